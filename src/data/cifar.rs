//! CIFAR-100 in its official binary layout: the unpacked folder, or the official archive read in memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::source::Download;
use super::{Class, Dataset, ImageSet, Split};
use crate::error::{AtPath, Result};
use crate::fail;

/// Height and width of an image in pixels.
pub const SIZE: usize = 32;

const PLANE: usize = SIZE * SIZE;
/// Coarse label, fine label, then the red, green and blue planes.
const RECORD: usize = 2 + 3 * PLANE;
/// Far above the official size: a damaged archive may claim any.
const MAX_BYTES: u64 = 1 << 30;
const COARSE_CLASSES: u8 = 20;
const FOLDER: &str = "cifar-100-binary";
const NAMES: &str = "fine_label_names.txt";
const DOWNLOAD: Download = Download {
    dataset: Dataset::Cifar100,
    file: "cifar-100-binary.tar.gz",
    bytes: 168_513_733,
    md5: "03b5dce01913d631647c71ecec9e9cb8",
    form: "unpacked or as it is",
};

/// Where the set is read from.
pub enum Source {
    /// A folder with `train.bin`, `test.bin` and `fine_label_names.txt`.
    Folder(PathBuf),
    /// The official `.tar.gz`, which holds that folder.
    Archive(PathBuf),
}

impl Source {
    /// Looks for `ROOT/cifar-100-binary/`, for its files in `root` itself, and for the archive in `root`.
    pub fn find(root: &Path) -> Result<Source> {
        let (folder, archive) = (root.join(FOLDER), root.join(DOWNLOAD.file));
        if folder.is_dir() {
            Ok(Source::Folder(folder))
        } else if root.join(bin_name(Split::Train)).is_file() || root.join(NAMES).is_file() {
            Ok(Source::Folder(root.to_path_buf()))
        } else if archive.is_file() {
            Ok(Source::Archive(archive))
        } else {
            Err(DOWNLOAD.missing(&[folder.join(bin_name(Split::Train)), root.join(bin_name(Split::Train)), archive]))
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Source::Folder(path) | Source::Archive(path) => path,
        }
    }

    /// Reads a split, in the file's order.
    pub fn load(&self, split: Split) -> Result<ImageSet> {
        let classes = self.classes()?;
        let (pixels, labels) = self.open(bin_name(split), |reader, bytes, file| {
            let images = images_in(bytes, file)?;
            read_records(reader, images, classes.len(), file)
        })?;
        Ok(ImageSet { pixels, labels, size: SIZE, classes: Arc::new(classes) })
    }

    /// Images in a split, from the size of its file alone.
    pub fn count(&self, split: Split) -> Result<usize> {
        self.open(bin_name(split), |_, bytes, file| images_in(bytes, file))
    }

    /// The fine classes: the label is the official fine label (the line of `fine_label_names.txt`), and the id is that
    /// number as text.
    pub fn classes(&self) -> Result<Vec<Class>> {
        let text = self.open(NAMES, |reader, _, file| {
            let mut text = String::new();
            reader.read_to_string(&mut text).at(file)?;
            Ok(text)
        })?;
        let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
        let classes: Vec<Class> = names.enumerate().map(|(i, n)| Class { name: n.into(), id: i.to_string() }).collect();
        if classes.is_empty() || classes.len() > 256 {
            fail!(
                "{}: {NAMES} has {} class names, where CIFAR-100 has 100; get the official file",
                self.path().display(),
                classes.len()
            );
        }
        Ok(classes)
    }

    /// Calls `read` with one of the set's files, its size in bytes and a path to name in errors.
    fn open<T>(&self, name: &str, read: impl FnOnce(&mut dyn Read, u64, &Path) -> Result<T>) -> Result<T> {
        match self {
            Source::Folder(folder) => {
                let path = folder.join(name);
                if !path.is_file() {
                    fail!(
                        "{} is missing: the folder must hold train.bin, test.bin and {NAMES}; unpack {} again",
                        path.display(),
                        DOWNLOAD.file
                    );
                }
                let mut file = File::open(&path).at(&path)?;
                let bytes = file.metadata().at(&path)?.len();
                read(&mut file, bytes, &path)
            }
            Source::Archive(archive) => {
                let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(File::open(archive).at(archive)?)));
                for entry in tar.entries().map_err(|e| cut_short(archive, &e))? {
                    let mut entry = entry.map_err(|e| cut_short(archive, &e))?;
                    let path = entry.path().at(archive)?.into_owned();
                    if path.file_name().is_some_and(|n| n == name) {
                        let bytes = entry.size();
                        return read(&mut entry, bytes, &archive.join(path));
                    }
                }
                fail!("{} holds no {name}: expected the official {}", archive.display(), DOWNLOAD.file)
            }
        }
    }
}

fn bin_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train.bin",
        Split::Test => "test.bin",
    }
}

/// Records in a file of `bytes` bytes, which must be a whole number of them and at least one.
fn images_in(bytes: u64, file: &Path) -> Result<usize> {
    if bytes == 0 || !bytes.is_multiple_of(RECORD as u64) || bytes > MAX_BYTES {
        fail!(
            "{}: {bytes} bytes, expected a whole number of {RECORD}-byte records (official: 153,700,000 for train, \
             30,740,000 for test): the file is cut short or another one; get it again",
            file.display()
        );
    }
    Ok((bytes / RECORD as u64) as usize)
}

/// Reads records into pixels (N, H, W, 3) and fine labels (N), some hundred at a time, so that the file is never held
/// beside the result.
fn read_records(mut reader: impl Read, images: usize, classes: usize, file: &Path) -> Result<(Vec<u8>, Vec<u16>)> {
    let mut pixels = vec![0; images * 3 * PLANE];
    let mut labels = Vec::with_capacity(images);
    let mut block = vec![0; 256 * RECORD];
    for out in pixels.chunks_mut(256 * 3 * PLANE) {
        let block = &mut block[..out.len() / (3 * PLANE) * RECORD];
        reader.read_exact(block).map_err(|e| cut_short(file, &e))?;
        for (record, image) in block.chunks_exact(RECORD).zip(out.chunks_exact_mut(3 * PLANE)) {
            let (coarse, fine) = (record[0], record[1]);
            if coarse >= COARSE_CLASSES || usize::from(fine) >= classes {
                fail!(
                    "{}: record {} has coarse label {coarse} and fine label {fine}, expected below {COARSE_CLASSES} and \
                     below {classes}: the file or {NAMES} is damaged or another one; get them again",
                    file.display(),
                    labels.len()
                );
            }
            labels.push(u16::from(fine));
            let (red, rest) = record[2..].split_at(PLANE);
            let (green, blue) = rest.split_at(PLANE);
            for (pixel, ((r, g), b)) in image.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
                pixel.copy_from_slice(&[*r, *g, *b]);
            }
        }
    }
    Ok((pixels, labels))
}

fn cut_short(file: &Path, source: &std::io::Error) -> crate::error::Error {
    crate::error::Error::Failed(format!(
        "{}: cannot be read to its end ({source}): it is cut short or damaged; get {} again ({} bytes, MD5 {})",
        file.display(),
        DOWNLOAD.file,
        DOWNLOAD.bytes,
        DOWNLOAD.md5
    ))
}
