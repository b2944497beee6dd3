//! CIFAR-10 and CIFAR-100 in their official binary layout: the unpacked folder, or the official archive read in memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::fetch::{Archive, official};
use super::{Class, Dataset, ImageSet, Split};
use crate::error::{AtPath, Error, Result};
use crate::fail;

/// Height and width of an image in pixels.
pub const SIZE: usize = 32;

const PLANE: usize = SIZE * SIZE;
const IMAGE: usize = 3 * PLANE;
/// Records read at once.
const BLOCK: usize = 256;
/// Far above the largest official file: a damaged archive may claim any size.
const MAX_BYTES: u64 = 1 << 28;
/// Bytes that one byte of a compressed archive can stand for, at most.
const DEFLATE_RATIO: u64 = 1032;
/// Far above the official list of names.
const MAX_NAMES: u64 = 1 << 16;

/// One of the two sets: a record is some label bytes, then the red, green and blue planes.
pub struct Cifar {
    dataset: Dataset,
    archive: Archive<'static>,
    /// The file with the name of each class, one a line.
    names: &'static str,
    classes: usize,
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// How many coarse classes there are, where a coarse label stands before the label.
    coarse: Option<u8>,
}

pub static CIFAR10: Cifar = Cifar {
    dataset: Dataset::Cifar10,
    archive: official::CIFAR10,
    names: "batches.meta.txt",
    classes: 10,
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: &["test_batch.bin"],
    coarse: None,
};

pub static CIFAR100: Cifar = Cifar {
    dataset: Dataset::Cifar100,
    archive: official::CIFAR100,
    names: "fine_label_names.txt",
    classes: 100,
    train: &["train.bin"],
    test: &["test.bin"],
    coarse: Some(20),
};

impl Cifar {
    /// The files of a split, in their order.
    fn files(&self, split: Split) -> &'static [&'static str] {
        match split {
            Split::Train => self.train,
            Split::Test => self.test,
        }
    }

    /// Bytes of the labels before an image.
    fn label_bytes(&self) -> usize {
        1 + usize::from(self.coarse.is_some())
    }

    fn record(&self) -> usize {
        self.label_bytes() + IMAGE
    }

    /// Looks for `ROOT/<folder>/`, for its files in `root` itself, and for the archive in `root`.
    pub fn find(&'static self, root: &Path) -> Result<Source> {
        let (folder, archive) = (root.join(self.archive.folder), root.join(self.archive.file));
        let place = if folder.is_dir() {
            Place::Folder(folder)
        } else if root.join(self.train[0]).is_file() || root.join(self.names).is_file() {
            Place::Folder(root.to_path_buf())
        } else if archive.is_file() {
            Place::Archive(archive)
        } else {
            return Err(self
                .archive
                .missing(&self.dataset, &[folder.join(self.train[0]), root.join(self.train[0]), archive]));
        };
        Ok(Source { set: self, place })
    }
}

/// Where a set is read from.
pub struct Source {
    set: &'static Cifar,
    place: Place,
}

enum Place {
    Folder(PathBuf),
    /// The official `.tar.gz`, which holds that folder.
    Archive(PathBuf),
}

/// What is known of a split before its images are read.
pub struct Contents {
    /// A label is a line of the names' file, and the id is that number as text.
    pub classes: Vec<Class>,
    /// Images in each file of the split.
    images: Vec<usize>,
}

impl Contents {
    /// Images in the split.
    pub fn images(&self) -> usize {
        self.images.iter().sum()
    }
}

impl Source {
    pub fn path(&self) -> &Path {
        match &self.place {
            Place::Folder(path) | Place::Archive(path) => path,
        }
    }

    /// Reads the class names, and counts images by the size of their files.
    pub fn contents(&self, split: Split) -> Result<Contents> {
        let files = [&[self.set.names], self.set.files(split)].concat();
        let (mut classes, mut images) = (Vec::new(), vec![0; files.len()]);
        self.each(&files, |i, reader, bytes, file| {
            if i == 0 {
                classes = self.classes(reader, file)?
            } else {
                images[i] = self.images_in(bytes, file)?
            }
            Ok(())
        })?;
        images.remove(0);
        Ok(Contents { classes, images })
    }

    /// Reads a split, in the files' order.
    pub fn load(&self, split: Split) -> Result<ImageSet> {
        let contents = self.contents(split)?;
        let mut pixels = vec![0; contents.images() * IMAGE];
        let mut labels = vec![0; contents.images()];
        self.each(self.set.files(split), |i, reader, bytes, file| {
            if self.images_in(bytes, file)? != contents.images[i] {
                fail!("{}: changed while it was read; run the command again", file.display());
            }
            let first: usize = contents.images[..i].iter().sum();
            let pixels = &mut pixels[first * IMAGE..][..contents.images[i] * IMAGE];
            let labels = &mut labels[first..][..contents.images[i]];
            self.read_records(reader, contents.classes.len(), pixels, labels, file)
        })?;
        Ok(ImageSet { pixels, labels, size: SIZE, classes: Arc::new(contents.classes) })
    }

    fn classes(&self, reader: &mut dyn Read, file: &Path) -> Result<Vec<Class>> {
        let mut text = String::new();
        reader.take(MAX_NAMES).read_to_string(&mut text).at(file)?;
        let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
        let classes: Vec<Class> = names.enumerate().map(|(i, n)| Class { name: n.into(), id: i.to_string() }).collect();
        if classes.is_empty() || classes.len() > 256 {
            fail!(
                "{}: {} class names, where {} has {}; get the official file",
                file.display(),
                classes.len(),
                self.set.dataset.title(),
                self.set.classes
            );
        }
        Ok(classes)
    }

    /// Calls `read` once for each of the set's files `names`, with its place in the list, a reader, its size in bytes and
    /// a path to name in errors. An archive is gone through once, so its files come in its own order.
    fn each(&self, names: &[&str], mut read: impl FnMut(usize, &mut dyn Read, u64, &Path) -> Result<()>) -> Result<()> {
        let archive = match &self.place {
            Place::Folder(folder) => {
                for (i, name) in names.iter().enumerate() {
                    let path = folder.join(name);
                    if !path.is_file() {
                        fail!("{} is missing; unpack {} again", path.display(), self.set.archive.file);
                    }
                    let mut file = File::open(&path).at(&path)?;
                    let bytes = file.metadata().at(&path)?.len();
                    read(i, &mut file, bytes, &path)?;
                }
                return Ok(());
            }
            Place::Archive(archive) => archive,
        };
        let mut missing = names.to_vec();
        let file = File::open(archive).at(archive)?;
        let length = file.metadata().at(archive)?.len();
        let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
        // Raw: a header that holds a long name is passed over as any other file, and not read whole into memory.
        for entry in tar.entries().map_err(|e| self.cut_short(archive, &e))?.raw(true) {
            let mut entry = entry.map_err(|e| self.cut_short(archive, &e))?;
            let path = entry.path().at(archive)?.into_owned();
            let Some(place) = missing.iter().position(|name| path.file_name().is_some_and(|n| n == *name)) else {
                continue;
            };
            let name = missing.remove(place);
            let bytes = entry.size();
            if bytes > length.saturating_mul(DEFLATE_RATIO) {
                return Err(self
                    .set
                    .archive
                    .get_again(&archive.join(path), &format!("cannot hold the {bytes} bytes it claims")));
            }
            let i = names.iter().position(|n| *n == name).unwrap_or_default();
            read(i, &mut entry, bytes, &archive.join(path))?;
            if missing.is_empty() {
                return Ok(());
            }
        }
        fail!("{} holds no {}: expected the official {}", archive.display(), missing[0], self.set.archive.file)
    }

    /// Records in a file of `bytes` bytes, which must be a whole number of them and at least one.
    fn images_in(&self, bytes: u64, file: &Path) -> Result<usize> {
        let record = self.set.record() as u64;
        if bytes == 0 || !bytes.is_multiple_of(record) || bytes > MAX_BYTES {
            fail!(
                "{}: {bytes} bytes, expected a whole number of {record}-byte records, at most {MAX_BYTES} bytes: the file \
                 is cut short or another one; get {} again",
                file.display(),
                self.set.archive.file
            );
        }
        Ok((bytes / record) as usize)
    }

    /// Reads records into pixels (N, H, W, 3) and labels (N), some hundred at a time, so that a file is never held beside
    /// the result.
    fn read_records(
        &self,
        reader: &mut dyn Read,
        classes: usize,
        pixels: &mut [u8],
        labels: &mut [u16],
        file: &Path,
    ) -> Result<()> {
        let coarse_classes = self.set.coarse.unwrap_or(u8::MAX);
        let mut block = vec![0; BLOCK * self.set.record()];
        for (n, (images, labels)) in pixels.chunks_mut(BLOCK * IMAGE).zip(labels.chunks_mut(BLOCK)).enumerate() {
            let block = &mut block[..labels.len() * self.set.record()];
            reader.read_exact(block).map_err(|e| self.cut_short(file, &e))?;
            let records = block.chunks_exact(self.set.record());
            for (i, ((record, image), label)) in records.zip(images.chunks_exact_mut(IMAGE)).zip(labels).enumerate() {
                let (head, planes) = record.split_at(self.set.label_bytes());
                let (coarse, fine) = (head[0], head[head.len() - 1]);
                if usize::from(fine) >= classes || (self.set.coarse.is_some() && coarse >= coarse_classes) {
                    fail!(
                        "{}: record {} has the labels {head:?}, expected {classes} classes{}: the file or {} is damaged or \
                         another one; get them again",
                        file.display(),
                        n * BLOCK + i,
                        self.set.coarse.map_or(String::new(), |count| format!(" after {count} coarse ones")),
                        self.set.names
                    );
                }
                *label = u16::from(fine);
                interleave(planes, image);
            }
        }
        Ok(())
    }

    fn cut_short(&self, file: &Path, source: &std::io::Error) -> Error {
        let what = format!("cannot be read to its end ({source}): it is cut short or damaged");
        self.set.archive.get_again(file, &what)
    }
}

/// Three planes (3, H, W) to pixels (H, W, 3).
fn interleave(planes: &[u8], image: &mut [u8]) {
    let (red, rest) = planes.split_at(PLANE);
    let (green, blue) = rest.split_at(PLANE);
    for (pixel, ((r, g), b)) in image.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
        pixel.copy_from_slice(&[*r, *g, *b]);
    }
}
