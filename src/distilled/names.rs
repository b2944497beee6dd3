//! The files of a distilled folder: names that every file system and every reader takes, whatever classes are called.

use crate::data::Class;

/// Words that Hugging Face's image folder takes for a split wherever they stand alone in a folder's name.
const SPLIT_WORDS: [&str; 10] =
    ["train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"];
/// Characters of a class's name that its folder keeps: file systems take names of up to 255 bytes, some of them 143.
const LONGEST: usize = 100;

/// The PNG file of each image of a set.
pub struct FileNames {
    folders: Vec<String>,
    /// Digits of a file's number.
    width: usize,
}

impl FileNames {
    /// For a set with up to `ipc` images of each of `classes`.
    pub fn new(classes: &[Class], ipc: usize) -> Self {
        let folders = (0..classes.len()).map(|label| class_folder(classes, label)).collect();
        FileNames { folders, width: digits(ipc.saturating_sub(1)).max(4) }
    }

    /// A class's folder relative to the distilled folder: "train/000_apple".
    pub fn folder(&self, label: u16) -> String {
        format!("train/{}", self.folders[usize::from(label)])
    }

    /// The file of the image that stands at `place` among its class's images: "train/000_apple/0003.png".
    pub fn file(&self, label: u16, place: usize) -> String {
        format!("{}/{place:0width$}.png", self.folder(label), width = self.width)
    }
}

/// A class's folder, "000_apple": the number keeps the order of labels for readers that sort folders by name, and tells
/// apart what is alike once cleaned. CIFAR-100's class "train" becomes "090_trainclass": as "090_train" inside train/ its
/// images would be loaded twice.
fn class_folder(classes: &[Class], label: usize) -> String {
    let width = digits(classes.len().saturating_sub(1)).max(3);
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = classes[label].name.chars().take(LONGEST).map(letter).collect();
    format!("{label:0width$}_{}", without_split_words(&name))
}

/// The name with "class" behind each word that means a split. Digits end a word, as they do for Hugging Face.
fn without_split_words(name: &str) -> String {
    let mut out = String::new();
    for part in name.split_inclusive(|c: char| !c.is_ascii_alphabetic()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
        out += word;
        if SPLIT_WORDS.contains(&word) {
            out += "class";
        }
        out += &part[word.len()..];
    }
    out
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}
