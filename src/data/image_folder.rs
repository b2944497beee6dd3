//! A folder of images, a sub-folder a class: with parts `train/` and `test/`, or as one tree that is split here.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::{Class, ImageSet, Split, decode, tenth, zeros};
use crate::error::{AtPath, Error, Result};
use crate::{fail, interrupt};

/// Names of the part that tests, the first one that is there.
const TEST_PARTS: [&str; 3] = ["test", "val", "validation"];

/// The image files of a folder by split, class and path.
pub struct ImageFolder {
    /// In the byte order of their folders' names, which are both name and id.
    pub classes: Vec<Class>,
    train: Vec<Labelled>,
    test: Vec<Labelled>,
    /// What a user should know of how the folder was read.
    pub notes: Vec<String>,
}

/// A file and its label.
type Labelled = (PathBuf, u16);

impl ImageFolder {
    /// Lists the folder at `root`; no image is opened.
    ///
    /// If `root/train` holds folders, these are the classes of the train split; the test split is `root/test`, `root/val`
    /// or `root/validation` with the same classes. Otherwise the classes are the folders in `root`. Where there is no test
    /// part, a stratified tenth of the images is the test split. All files below a class's folder belong to it.
    pub fn open(root: &Path) -> Result<ImageFolder> {
        if !root.is_dir() {
            return Err(Error::NoData(format!(
                "{} is not a folder; name a folder of images with --dataset folder:PATH",
                root.display()
            )));
        }
        let mut skipped = Skipped::default();
        let train_part = root.join("train");
        let has_parts = train_part.is_dir() && !folders(&train_part, &mut Skipped::default())?.is_empty();
        let train_part = if has_parts { train_part } else { root.to_path_buf() };
        let test_part = TEST_PARTS.map(|part| root.join(part)).into_iter().find(|part| has_parts && part.is_dir());

        let (classes, train) = list(&train_part, &mut skipped)?;
        let mut notes = Vec::new();
        let (train, test) = match &test_part {
            Some(part) => {
                let (found, test) = list(part, &mut skipped)?;
                check_same(&train_part, &classes, part, &found)?;
                notes.push(format!("the test split is {}", part.display()));
                (train, test)
            }
            None => {
                notes.push(
                    "there is no test part: a tenth of each class, chosen by a fixed seed, is the test split".into(),
                );
                split(train, &classes)?
            }
        };
        notes.extend(skipped.note());
        let classes = classes.into_iter().map(|name| Class { id: name.clone(), name }).collect();
        Ok(ImageFolder { classes, train, test, notes })
    }

    fn files(&self, split: Split) -> &[Labelled] {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    /// Images in a split.
    pub fn count(&self, split: Split) -> usize {
        self.files(split).len()
    }

    /// Decodes a split, by class and then path; each image as the `size` x `size` pixels that [`decode::square`] makes.
    pub fn load(&self, split: Split, size: usize) -> Result<ImageSet> {
        let files = self.files(split);
        let mut pixels = zeros(files.len(), size)?;
        let one = |(image, (file, _)): (&mut [u8], &Labelled)| {
            interrupt::check()?;
            decode::square(&decode::file(file)?, size, image);
            Ok(())
        };
        // The first error in the files' order, whichever thread meets one first.
        let images = pixels.par_chunks_mut(size * size * 3).zip(files);
        if let Some(error) = images.map(|image| one(image).err()).find_map_first(|error| error) {
            return Err(error);
        }
        let labels = files.iter().map(|&(_, label)| label).collect();
        Ok(ImageSet { pixels, labels, size, classes: Arc::new(self.classes.clone()) })
    }
}

/// What is neither a folder nor an image by its extension, or hidden.
#[derive(Default)]
struct Skipped {
    count: usize,
    first: Option<PathBuf>,
}

impl Skipped {
    fn add(&mut self, path: PathBuf) {
        self.count += 1;
        self.first.get_or_insert(path);
    }

    fn note(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(format!("{} left out (hidden, or not PNG or JPEG), the first: {}", self.count, first.display()))
    }
}

/// The class names of a part and its files, both in order. An error if there is no class, or one without images.
fn list(part: &Path, skipped: &mut Skipped) -> Result<(Vec<String>, Vec<Labelled>)> {
    let (mut classes, mut files) = (Vec::new(), Vec::new());
    let above = fs::canonicalize(part).at(part)?;
    for folder in folders(part, skipped)? {
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else {
            fail!("{}: the name is not valid Unicode; rename the folder", folder.display());
        };
        let Ok(label) = u16::try_from(classes.len()) else {
            fail!("{} holds more than 65536 folders; a data set can have so many classes at most", part.display());
        };
        // A link that leads upwards would bring the images of every class.
        let mut seen: HashSet<PathBuf> = above.ancestors().map(Path::to_path_buf).collect();
        let before = files.len();
        walk(&folder, &mut seen, skipped, &mut |file| files.push((file, label)))?;
        if files.len() == before {
            fail!("{}: the class has no PNG or JPEG file; add some, or remove the folder", folder.display());
        }
        classes.push(name.to_string());
    }
    if classes.is_empty() {
        fail!("{} holds no folders; expected a folder of images for each class", part.display());
    }
    Ok((classes, files))
}

/// Calls `found` for every image below `folder`, each folder once however many links lead to it.
fn walk(
    folder: &Path,
    seen: &mut HashSet<PathBuf>,
    skipped: &mut Skipped,
    found: &mut impl FnMut(PathBuf),
) -> Result<()> {
    if !seen.insert(fs::canonicalize(folder).at(folder)?) {
        return Ok(());
    }
    for (path, kind) in children(folder)? {
        match kind {
            Kind::Folder if !is_hidden(&path) => walk(&path, seen, skipped, found)?,
            Kind::File if !is_hidden(&path) && is_image(&path) => found(path),
            _ => skipped.add(path),
        }
    }
    Ok(())
}

/// The visible folders in `part`, sorted by name.
fn folders(part: &Path, skipped: &mut Skipped) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for (path, kind) in children(part)? {
        if matches!(kind, Kind::Folder) && !is_hidden(&path) { out.push(path) } else { skipped.add(path) }
    }
    Ok(out)
}

/// What a name in a folder leads to, through links.
enum Kind {
    Folder,
    File,
    /// A link to nowhere or in a circle, a pipe, a socket.
    Other,
}

/// What a folder holds, sorted by the bytes of the name.
fn children(folder: &Path) -> Result<Vec<(PathBuf, Kind)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let (path, mut kind) = (entry.path(), entry.file_type().at(folder)?);
        if kind.is_symlink() {
            match fs::metadata(&path) {
                Ok(target) => kind = target.file_type(),
                // A broken link to an image is a missing image: decoding names it.
                Err(_) if is_image(&path) => {
                    out.push((path, Kind::File));
                    continue;
                }
                Err(_) => {}
            }
        }
        let kind = match (kind.is_dir(), kind.is_file()) {
            (true, _) => Kind::Folder,
            (_, true) => Kind::File,
            _ => Kind::Other,
        };
        out.push((path, kind));
    }
    out.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(out)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_image(path: &Path) -> bool {
    let extension = |known: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(known));
    ["png", "jpg", "jpeg"].into_iter().any(extension)
}

/// Refuses parts with different classes: their labels would mean different things.
fn check_same(train_part: &Path, train: &[String], test_part: &Path, test: &[String]) -> Result<()> {
    let only = |a: &[String], b: &[String]| a.iter().find(|name| b.binary_search(name).is_err()).cloned();
    let (there, here, name) = match (only(train, test), only(test, train)) {
        (Some(name), _) => (train_part, test_part, name),
        (None, Some(name)) => (test_part, train_part, name),
        (None, None) => return Ok(()),
    };
    fail!(
        "{} has a class \"{name}\" that {} has not ({} classes in train, {} in test); both must have the same folders",
        there.display(),
        here.display(),
        train.len(),
        test.len()
    );
}

/// Splits the files, which are in order of label, into a train and a test part.
fn split(files: Vec<Labelled>, classes: &[String]) -> Result<(Vec<Labelled>, Vec<Labelled>)> {
    let mut by_class = vec![Vec::new(); classes.len()];
    for (i, &(_, label)) in files.iter().enumerate() {
        by_class[usize::from(label)].push(i);
    }
    if let Some(label) = by_class.iter().position(|indices| indices.len() < 2) {
        fail!(
            "the class \"{}\" has one image, but without a test part at least two are needed, one of them to test; add \
             images, or make folders train/ and test/",
            classes[label]
        );
    }
    let mut is_test = vec![false; files.len()];
    tenth(&by_class, "folder-test").into_iter().for_each(|i| is_test[i] = true);
    let (test, train): (Vec<_>, Vec<_>) = files.into_iter().zip(is_test).partition(|(_, test)| *test);
    let files = |part: Vec<(Labelled, bool)>| part.into_iter().map(|(file, _)| file).collect();
    Ok((files(train), files(test)))
}
