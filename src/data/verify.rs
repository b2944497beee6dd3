//! What a data set is (`info`) and whether all of it is sound (`verify`).

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::image_folder::ImageFolder;
use super::{Class, Dataset, ImageSet, Normalization, Split, cifar, data_root, hub, load, shapes, tiny_imagenet};
use crate::error::Result;
use crate::interrupt;

/// A data set as found, without reading its images.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    pub dataset: Dataset,
    /// The folder or archive it is read from; "built in" for shapes.
    pub source: String,
    /// Height and width in pixels.
    pub image_size: usize,
    pub normalization: Normalization,
    pub splits: Vec<SplitInfo>,
    /// How this copy differs from the official set, or how a folder was read.
    pub notes: Vec<String>,
    /// In label order.
    pub classes: Vec<Class>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SplitInfo {
    pub split: Split,
    pub images: usize,
    /// None where there is no official set.
    pub official_images: Option<usize>,
}

/// A data set with every image decoded and looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    #[serde(flatten)]
    pub info: Info,
    pub reports: Vec<SplitReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SplitReport {
    pub split: Split,
    pub images: usize,
    /// Wall-clock time of reading and decoding the split.
    pub load_seconds: f64,
    /// Images of each class, in label order.
    pub images_per_class: Vec<usize>,
    /// Images whose pixels are those of an earlier image of the same split.
    pub duplicates: usize,
    /// Images whose pixels occur in the train split; zero for the train split itself.
    pub also_in_train: usize,
    /// Measured over every pixel in [0, 1], R, G, B.
    pub mean: [f64; 3],
    pub std: [f64; 3],
    /// [`ImageSet::sha256`].
    pub sha256: String,
}

/// Finds a data set and counts its classes and images. `image_size` as for [`load`].
pub fn info(dataset: &Dataset, image_size: usize, data_dir: Option<&Path>) -> Result<Info> {
    dataset.check_size(image_size)?;
    let mut notes = Vec::new();
    let (source, classes, images) = match dataset {
        Dataset::Shapes => ("built in".into(), shapes::classes(), Split::ALL.map(shapes::count)),
        Dataset::Cifar10 => in_cifar(cifar::CIFAR10.find(&data_root(data_dir)?)?)?,
        Dataset::Cifar100 => in_cifar(cifar::CIFAR100.find(&data_root(data_dir)?)?)?,
        Dataset::TinyImageNet => {
            let folder = tiny_imagenet::Folder::find(&data_root(data_dir)?)?;
            let images = [folder.count(Split::Train)?, folder.count(Split::Test)?];
            (folder.path().display().to_string(), folder.classes()?, images)
        }
        Dataset::Folder(root) => {
            let folder = ImageFolder::open(root)?;
            notes.extend(folder.notes.clone());
            let images = Split::ALL.map(|split| folder.count(split));
            (root.display().to_string(), folder.classes, images)
        }
        Dataset::Hub(name) => {
            let (source, classes, images, note) = hub::describe(name)?;
            notes.push(note);
            (source, classes, images)
        }
    };
    let official = dataset.official_counts();
    let of_split = official.map(|(_, train, test)| [train, test]);
    let splits: Vec<SplitInfo> = Split::ALL
        .into_iter()
        .enumerate()
        .map(|(i, split)| SplitInfo { split, images: images[i], official_images: of_split.map(|counts| counts[i]) })
        .collect();
    if let Some((official_classes, ..)) = official.filter(|&(count, ..)| count != classes.len()) {
        notes.push(format!("{} of the official {official_classes} classes", classes.len()));
    }
    for s in &splits {
        if let Some(official) = s.official_images.filter(|&count| count != s.images) {
            notes.push(format!("{} has {} of the official {official} images", s.split, s.images));
        }
    }
    let (dataset, normalization) = (dataset.clone(), dataset.normalization());
    Ok(Info { dataset, source, image_size, normalization, splits, notes, classes })
}

/// Place, classes and images of both splits.
fn in_cifar(source: cifar::Source) -> Result<(String, Vec<Class>, [usize; 2])> {
    let (train, test) = (source.contents(Split::Train)?, source.contents(Split::Test)?);
    let images = [train.images(), test.images()];
    Ok((source.path().display().to_string(), train.classes, images))
}

/// The number of classes, from the official set's figures or else by looking at the folder.
pub fn class_count(dataset: &Dataset, image_size: usize, data_dir: Option<&Path>) -> Result<usize> {
    match dataset.official_counts() {
        Some((classes, ..)) => Ok(classes),
        None => Ok(info(dataset, image_size, data_dir)?.classes.len()),
    }
}

/// Reads every image of both splits and reports on them; an error is the first thing that cannot be read.
pub fn verify(dataset: &Dataset, image_size: usize, data_dir: Option<&Path>) -> Result<Verification> {
    let info = info(dataset, image_size, data_dir)?;
    let mut train = HashSet::new();
    let mut reports = Vec::new();
    for split in Split::ALL {
        let start = Instant::now();
        let set = load(dataset, split, image_size, data_dir)?;
        let load_seconds = start.elapsed().as_secs_f64();
        interrupt::check()?;
        let (report, digests) = report(&set, split, &train);
        reports.push(SplitReport { load_seconds, ..report });
        if split == Split::Train {
            train = digests;
        }
    }
    Ok(Verification { info, reports })
}

/// The report on a split, and the digests of its images.
fn report(set: &ImageSet, split: Split, train: &HashSet<[u8; 32]>) -> (SplitReport, HashSet<[u8; 32]>) {
    let mut digests = HashSet::with_capacity(set.len());
    let (mut duplicates, mut also_in_train) = (0, 0);
    for i in 0..set.len() {
        let digest: [u8; 32] = Sha256::digest(set.image(i)).into();
        also_in_train += usize::from(train.contains(&digest));
        duplicates += usize::from(!digests.insert(digest));
    }
    let (mean, std) = pixel_statistics(set);
    let report = SplitReport {
        split,
        images: set.len(),
        load_seconds: 0.0,
        images_per_class: set.by_class().iter().map(Vec::len).collect(),
        duplicates,
        also_in_train,
        mean,
        std,
        sha256: set.sha256(),
    };
    (report, digests)
}

/// Mean and standard deviation of each channel over all pixels in [0, 1]; sums of whole numbers, so exact.
fn pixel_statistics(set: &ImageSet) -> ([f64; 3], [f64; 3]) {
    let (mut sums, mut squares) = ([0u64; 3], [0u64; 3]);
    for pixel in set.pixels.chunks_exact(3) {
        for c in 0..3 {
            let value = u64::from(pixel[c]);
            sums[c] += value;
            squares[c] += value * value;
        }
    }
    let n = (set.pixels.len() / 3) as f64;
    let mean = sums.map(|sum| sum as f64 / n / 255.0);
    let std = [0, 1, 2].map(|c| (squares[c] as f64 / n / (255.0 * 255.0) - mean[c] * mean[c]).max(0.0).sqrt());
    (mean, std)
}
