//! From a file's labels to a data set's: the classic failure is a class list in another order, so labels are matched by
//! the names of their classes wherever a file has names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::super::unique_names;
use super::Found;
use super::tensor::{Soft, in_file};
use crate::data::{Class, Dataset, ImageSet};
use crate::distilled::{FileNames, SoftLabels};
use crate::error::Result;

/// Labels are u16.
const MOST_CLASSES: usize = 1 << 16;

/// The images, and their soft labels, under the labels of `known`, the data set's own classes; under the file's own where
/// those are not at hand.
pub fn label(
    found: Found,
    known: Option<Vec<Class>>,
    dataset: &Dataset,
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<(ImageSet, Option<SoftLabels>)> {
    let n = found.images.pixels.len() / (3 * found.images.size * found.images.size);
    let refuse = in_file(path);
    let (classes, map) = match (found.classes, known) {
        (Some(named), Some(known)) => {
            let map = by_name(&named, &known).map_err(&refuse)?;
            if map.iter().any(|(from, to)| from != to) {
                warnings.push("the file numbers the classes in another order; its labels were matched by name".into());
            }
            (known, map)
        }
        (Some(named), None) => {
            warnings.push("the data set is not at hand, so the file's class list was taken as it is".into());
            let map = identity(named.len());
            if let Some((official, ..)) = dataset.official_counts().filter(|&(count, ..)| count != named.len()) {
                return Err(refuse(format!(
                    "it names {} classes, but {dataset} has {official}; is this the right data set? A part of it must lie \
                     where `distill data info` finds it",
                    named.len()
                )));
            }
            if !named.keys().eq(map.keys()) {
                return Err(refuse("it names some of its classes only, and the data set was not found".into()));
            }
            let class = |(label, class): (i64, Class)| match class {
                Class { name, id } if id.is_empty() => Class { name, id: label.to_string() },
                class => class,
            };
            (named.into_iter().map(class).collect(), map)
        }
        (None, Some(known)) => {
            warnings.push("the file names no classes, so its labels were taken to be in the data set's order".into());
            let map = identity(known.len());
            (known, map)
        }
        (None, None) => {
            return Err(refuse(
                "it names no classes, and the data set was not found; put the data set where `distill data info` finds it"
                    .into(),
            ));
        }
    };
    if !(1..=MOST_CLASSES).contains(&classes.len()) {
        return Err(refuse(format!("{} classes, expected 1 to {MOST_CLASSES}", classes.len())));
    }
    let soft = match found.soft_labels {
        Some(soft) => Some(columns(soft, n, &map, classes.len()).map_err(&refuse)?),
        None => None,
    };
    let labels = match found.labels {
        Some(labels) if labels.len() == n => labels,
        Some(labels) => return Err(refuse(format!("it has {n} images, but {} labels", labels.len()))),
        None if n.is_multiple_of(classes.len()) => {
            let each = n / classes.len();
            warnings.push(format!("it has no labels: its images were taken to be in order of class, {each} of each"));
            (0..n as i64).map(|i| i / each as i64).collect()
        }
        None => {
            return Err(refuse(format!(
                "it has no labels, and its {n} images are not the same number for each of {} classes; name the file of \
                 labels with --labels",
                classes.len()
            )));
        }
    };
    let new = |(i, label): (usize, i64)| match map.get(&label) {
        Some(&label) => Ok(label as u16),
        None => Err(refuse(format!("image {i} has label {label}, which is none of the {} classes", classes.len()))),
    };
    let labels = labels.into_iter().enumerate().map(new).collect::<Result<_>>()?;
    Ok((ImageSet { pixels: found.images.pixels, labels, size: found.images.size, classes: Arc::new(classes) }, soft))
}

/// Soft labels of `images` images with each column at the place of its class, which `map` tells; they must be
/// probabilities.
fn columns(
    soft: Soft,
    images: usize,
    map: &BTreeMap<i64, i64>,
    classes: usize,
) -> std::result::Result<SoftLabels, String> {
    let Soft { labels, classes: columns } = soft;
    if columns != map.len() {
        return Err(format!("its soft labels have {columns} columns, expected one for each of {} classes", map.len()));
    }
    labels.check(images, columns)?;
    let place = |column: usize| map.get(&(column as i64)).map(|&label| label as usize);
    let Some(places) = (0..columns).map(place).collect::<Option<Vec<usize>>>() else {
        return Err("it has soft labels, but does not name the classes of all their columns".into());
    };
    if columns == classes && places.iter().enumerate().all(|(column, &place)| column == place) {
        return Ok(labels);
    }
    let mut values = vec![0.0; labels.values.len() / columns * classes];
    for (from, to) in labels.values.chunks_exact(columns).zip(values.chunks_exact_mut(classes)) {
        from.iter().zip(&places).for_each(|(&value, &place)| to[place] = value);
    }
    Ok(SoftLabels { values: Arc::new(values), views: labels.views })
}

fn identity(classes: usize) -> BTreeMap<i64, i64> {
    (0..classes as i64).map(|label| (label, label)).collect()
}

/// For each label of `named`, the label of `known` whose class has the same id, or else the same name or folder.
fn by_name(named: &BTreeMap<i64, Class>, known: &[Class]) -> std::result::Result<BTreeMap<i64, i64>, String> {
    let (unique, folders) = (unique_names(known), FileNames::new(known, 1));
    let is_called = |other: usize, name: &str| {
        let folder = folders.folder(other as u16);
        let folder = folder.rsplit('/').next();
        known[other].name == name || known[other].id == name || unique[other] == name || folder == Some(name)
    };
    let mut map = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (&label, class) in named {
        let same = |&other: &usize| match class.id.is_empty() {
            true => is_called(other, &class.name),
            false => known[other] == *class,
        };
        let matches: Vec<usize> = (0..known.len()).filter(same).collect();
        let found = match matches[..] {
            [only] => only,
            [] => {
                return Err(format!(
                    "its class {label}, {:?}, is none of the data set's {} classes; is this the right data set, and the \
                     same copy of it?",
                    class.name,
                    known.len()
                ));
            }
            _ if matches.iter().any(|&other| other as i64 == label) => label as usize, // they share a name, not a place
            _ => return Err(format!("its class {label}, {:?}, could be several of the data set's", class.name)),
        };
        if !taken.insert(found) {
            return Err(format!("it names {:?} twice", class.name));
        }
        map.insert(label, found as i64);
    }
    Ok(map)
}
