//! TinyImageNet in its official folder layout, with its 200 classes or fewer.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::fetch::official::TINY_IMAGENET as ARCHIVE;
use super::{Class, Dataset, ImageSet, Split, decode};
use crate::error::{AtPath, Error, Result};
use crate::{fail, interrupt};

/// Height and width of an image in pixels.
pub const SIZE: usize = 64;

const WNIDS: &str = "wnids.txt";

/// A folder with `wnids.txt`, `words.txt`, `train/<wnid>/images/*.JPEG`, `val/images` and `val/val_annotations.txt`.
pub struct Folder(PathBuf);

impl Folder {
    /// Takes `root` itself if it has a `wnids.txt`, else the one folder in it called `tiny-imagenet-...` that has.
    pub fn find(root: &Path) -> Result<Folder> {
        if root.join(WNIDS).is_file() {
            return Ok(Folder(root.to_path_buf()));
        }
        let mut found = if root.is_dir() { children(root)? } else { Vec::new() };
        found.retain(|path| file_name(path).starts_with("tiny-imagenet-") && path.join(WNIDS).is_file());
        if found.len() > 1 {
            let names: Vec<String> = found.iter().map(|path| file_name(path)).collect();
            fail!(
                "{} holds several TinyImageNet folders: {}; point --data-dir at the one to use",
                root.display(),
                names.join(", ")
            );
        }
        if let Some(folder) = found.pop() {
            return Ok(Folder(folder));
        }
        let archive = root.join(ARCHIVE.file);
        if archive.is_file() {
            return Err(Error::NoData(format!(
                "{} is read unpacked: run `distill data fetch --dataset tinyimagenet`, or unzip it in that folder",
                archive.display()
            )));
        }
        Err(ARCHIVE.missing(
            &Dataset::TinyImageNet,
            &[root.join("tiny-imagenet-200").join(WNIDS), root.join("tiny-imagenet-*").join(WNIDS), root.join(WNIDS)],
        ))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Decodes a split: train by class and then file name, test in the order of `val_annotations.txt`.
    pub fn load(&self, split: Split) -> Result<ImageSet> {
        let classes = self.classes()?;
        let files = self.files(split, &classes)?;
        let mut pixels = vec![0; files.len() * SIZE * SIZE * 3];
        let images = pixels.par_chunks_mut(SIZE * SIZE * 3).zip(&files);
        // The first error in the files' order, whichever thread meets one first.
        let decoded = images.map(|(image, (file, _))| interrupt::check().and_then(|()| read(file, image)).err());
        if let Some(error) = decoded.find_map_first(|error| error) {
            return Err(error);
        }
        let labels = files.into_iter().map(|(_, label)| label).collect();
        Ok(ImageSet { pixels, labels, size: SIZE, classes: Arc::new(classes) })
    }

    /// Images in a split, without decoding them.
    pub fn count(&self, split: Split) -> Result<usize> {
        Ok(self.files(split, &self.classes()?)?.len())
    }

    /// The classes: a label is a class's place among the SORTED lines of `wnids.txt` (whose own order is arbitrary), the
    /// id is the wnid, and the name is the first synonym in `words.txt` (the wnid if that has none).
    pub fn classes(&self) -> Result<Vec<Class>> {
        let text = self.read(WNIDS)?;
        let mut wnids: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        wnids.sort_unstable();
        if let Some(pair) = wnids.windows(2).find(|pair| pair[0] == pair[1]) {
            fail!("{}: {} stands there twice; get the official file", self.0.join(WNIDS).display(), pair[0]);
        }
        if wnids.is_empty() || wnids.len() > usize::from(u16::MAX) {
            fail!("{}: {} classes, expected 1 to 200", self.0.join(WNIDS).display(), wnids.len());
        }
        let words = self.read("words.txt")?;
        let names: HashMap<&str, &str> = words.lines().filter_map(|line| line.split_once('\t')).collect();
        let name = |wnid: &str| {
            let synonyms = names.get(wnid).copied().unwrap_or(wnid);
            synonyms.split(',').next().unwrap_or(wnid).trim().to_string()
        };
        Ok(wnids.into_iter().map(|wnid| Class { name: name(wnid), id: wnid.to_string() }).collect())
    }

    /// Every image file of a split with its label.
    fn files(&self, split: Split, classes: &[Class]) -> Result<Vec<(PathBuf, u16)>> {
        match split {
            Split::Train => self.train_files(classes),
            Split::Test => self.val_files(classes),
        }
    }

    fn train_files(&self, classes: &[Class]) -> Result<Vec<(PathBuf, u16)>> {
        let mut files = Vec::new();
        for (label, class) in classes.iter().enumerate() {
            let folder = self.0.join("train").join(&class.id).join("images");
            let mut images = children(&folder)?;
            images.retain(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jpeg")));
            if images.is_empty() {
                fail!("{} holds no .JPEG file, expected 500 of them; unpack {} again", folder.display(), ARCHIVE.file);
            }
            files.extend(images.into_iter().map(|path| (path, label as u16)));
        }
        Ok(files)
    }

    fn val_files(&self, classes: &[Class]) -> Result<Vec<(PathBuf, u16)>> {
        let labels: BTreeMap<&str, u16> = classes.iter().enumerate().map(|(i, c)| (c.id.as_str(), i as u16)).collect();
        let list = Path::new("val").join("val_annotations.txt");
        let text = self.read(&list)?;
        let mut files = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut fields = line.split('\t');
            let (Some(name), Some(wnid)) = (fields.next(), fields.next().map(str::trim)) else {
                fail!("{}, line {}: expected a file name, a tab and a wnid", self.0.join(&list).display(), i + 1);
            };
            let Some(&label) = labels.get(wnid) else {
                fail!("{}, line {}: {wnid} is not in {WNIDS}", self.0.join(&list).display(), i + 1);
            };
            files.push((self.0.join("val").join("images").join(name), label));
        }
        if files.is_empty() {
            fail!("{} lists no image; unpack {} again", self.0.join(&list).display(), ARCHIVE.file);
        }
        Ok(files)
    }

    fn read(&self, name: impl AsRef<Path>) -> Result<String> {
        let path = self.0.join(name);
        if !path.is_file() {
            fail!("{} is missing; unpack {} again", path.display(), ARCHIVE.file);
        }
        fs::read_to_string(&path).at(&path)
    }
}

/// What a folder holds, sorted by name.
fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).at(folder)?;
    let mut paths = entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().at(folder)?;
    paths.sort_unstable();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Decodes an image of the one size into `out` (H, W, 3).
fn read(file: &Path, out: &mut [u8]) -> Result<()> {
    let image = decode::file(file)?;
    if image.dimensions() != (SIZE as u32, SIZE as u32) {
        fail!("{}: {}x{} pixels, expected {SIZE}x{SIZE}", file.display(), image.width(), image.height());
    }
    out.copy_from_slice(image.as_raw());
    Ok(())
}
