//! Finds the known word that a mistyped one most likely meant.

/// The word of `known` with the smallest edit distance to `word`, if at most a third of its letters differ (two in a
/// short word); the first one of equals.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let (distance, best) =
        known.into_iter().map(|k| (edit_distance(&word, &k.to_lowercase()), k)).min_by_key(|(d, _)| *d)?;
    (distance <= (best.chars().count() / 3).max(2)).then_some(best)
}

/// Levenshtein distance in characters: one row of the table at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let replaced = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distances() {
        for (a, b, expected) in [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("same", "same", 0)] {
            assert_eq!(edit_distance(a, b), expected);
            assert_eq!(edit_distance(b, a), expected);
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["shapes", "cifar100", "tinyimagenet"];
        assert_eq!(nearest("CIFAR-100", known), Some("cifar100"));
        assert_eq!(nearest("tiny-imagenet", known), Some("tinyimagenet"));
        assert_eq!(nearest("mnist", known), None);
    }
}
