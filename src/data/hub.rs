//! Sets on the Hugging Face hub, `hf:OWNER/NAME`: the Parquet files that the hub makes of every set.
//!
//! candle-datasets' reader brings them into the hub's own cache (`HF_HOME`, `HF_ENDPOINT` and tokens as everywhere); they
//! are read from there, `CONFIG/SPLIT/0000.parquet`, so that a set once fetched needs no network.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_datasets::hub::from_hub;
use hf_hub::{HFClientSync, resolve_cache_dir};
use rayon::prelude::*;

use super::parquet::ParquetImages;
use super::{Class, ImageSet, Split, decode, tenth, zeros};
use crate::error::{AtPath, Error, Result};
use crate::{fail, interrupt, usage};

/// Names of the split that tests, the first one that is there.
const TEST_SPLITS: [&str; 3] = ["test", "validation", "valid"];
/// The branch that the hub converts every set on.
const BRANCH: &str = "refs/convert/parquet";
/// Images decoded at once.
const BLOCK: usize = 1024;

/// A set in the hub's cache.
struct HubSet {
    /// The folder of its Parquet files.
    folder: PathBuf,
    classes: Vec<Class>,
    /// How the test split was found.
    note: String,
    train: Rows,
    test: Rows,
}

/// Some rows of some files.
#[derive(Clone)]
struct Rows {
    files: Vec<PathBuf>,
    /// Of all rows of all files.
    labels: Vec<u16>,
    /// Whether a row is one of these.
    taken: Vec<bool>,
}

/// Brings what is missing of the set `name`, "OWNER/NAME", into the hub's cache.
pub fn fetch(name: &str) -> Result<()> {
    let files = HFClientSync::new().map_err(Into::into).and_then(|client| from_hub(&client, name.into()));
    match files {
        Ok(_) => Ok(()),
        Err(problem) => fail!(
            "hf:{name}: cannot be fetched ({problem}); check the name and the network (HF_ENDPOINT), or set \
             HF_HUB_OFFLINE=1 to use what is in the cache"
        ),
    }
}

/// Whether the hub's own variable forbids the network.
pub fn is_offline() -> bool {
    std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()))
}

/// Decodes a split of the set `name` in the cache, each image as the `size` x `size` pixels that [`decode::square`] makes.
pub fn load(name: &str, split: Split, size: usize) -> Result<ImageSet> {
    HubSet::open(name)?.load(split, size)
}

/// The folder of the set `name` in the cache, its classes, the images of both splits, and how it was read.
pub fn describe(name: &str) -> Result<(String, Vec<Class>, [usize; 2], String)> {
    let set = HubSet::open(name)?;
    let images = Split::ALL.map(|split| set.rows(split).count());
    Ok((set.folder.display().to_string(), set.classes, images, set.note))
}

impl HubSet {
    /// Opens the set `name`, "OWNER/NAME", in the cache and reads its labels; no image is decoded. The train split is
    /// `train`; the test split is `test`, `validation` or `valid`, or a stratified tenth of train where there is none.
    fn open(name: &str) -> Result<HubSet> {
        let folder = config(name)?;
        let splits = children(&folder)?;
        let Some(train) = splits.iter().find(|split| split.ends_with("train")) else {
            fail!("{}: expected a split called train; hf:{name} cannot be learned from", folder.display());
        };
        let test = TEST_SPLITS.iter().find_map(|known| splits.iter().find(|split| split.ends_with(known)));
        let names = class_names(train)?;
        let train = Rows::open(train, names.as_ref().map(Vec::len))?;
        let count =
            names.as_ref().map_or_else(|| 1 + usize::from(train.labels.iter().copied().max().unwrap_or(0)), Vec::len);
        let names = names.unwrap_or_else(|| (0..count).map(|label| label.to_string()).collect());
        let classes = names.into_iter().enumerate().map(|(id, name)| Class { name, id: id.to_string() }).collect();
        let (train, test, note) = match test {
            Some(folder) => {
                (train, Rows::open(folder, Some(count))?, format!("the test split is {}", folder.display()))
            }
            None => {
                let (train, test) = train.split(count);
                (train, test, "there is no test split: a tenth of each class, chosen by a fixed seed, is it".into())
            }
        };
        Ok(HubSet { folder, classes, note, train, test })
    }

    fn rows(&self, split: Split) -> &Rows {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    /// Decodes a split in the files' order.
    fn load(&self, split: Split, size: usize) -> Result<ImageSet> {
        let rows = self.rows(split);
        let mut pixels = zeros(rows.count(), size)?;
        let mut room = pixels.chunks_mut(size * size * 3);
        let mut row = 0;
        for file in &rows.files {
            let mut block: Vec<(&mut [u8], Vec<u8>)> = Vec::new();
            ParquetImages::open(file)?.for_each(|bytes, _| {
                if rows.taken.get(row) == Some(&true)
                    && let Some(out) = room.next()
                {
                    block.push((out, bytes.to_vec()));
                }
                row += 1;
                if block.len() == BLOCK { decode_all(&mut block, size, file) } else { Ok(()) }
            })?;
            decode_all(&mut block, size, file)?;
        }
        let kept = rows.labels.iter().zip(&rows.taken).filter(|(_, taken)| **taken);
        let labels = kept.map(|(&label, _)| label).collect();
        Ok(ImageSet { pixels, labels, size, classes: Arc::new(self.classes.clone()) })
    }
}

impl Rows {
    /// All rows of the files in `folder`. An error for a label that is not below `classes`, where that is known.
    fn open(folder: &Path, classes: Option<usize>) -> Result<Rows> {
        let files = children(folder)?;
        let mut labels = Vec::new();
        for file in &files {
            for (i, label) in ParquetImages::open(file)?.labels()?.into_iter().enumerate() {
                match u16::try_from(label).ok().filter(|&l| classes.is_none_or(|n| usize::from(l) < n)) {
                    Some(label) => labels.push(label),
                    None => fail!(
                        "{}, row {i}: label {label}, expected one from 0 to {}",
                        file.display(),
                        classes.unwrap_or(usize::from(u16::MAX) + 1) - 1
                    ),
                }
            }
        }
        if labels.is_empty() {
            fail!("{}: holds no images", folder.display());
        }
        let taken = vec![true; labels.len()];
        Ok(Rows { files, labels, taken })
    }

    fn count(&self) -> usize {
        self.taken.iter().filter(|taken| **taken).count()
    }

    /// A train and a test part of the same files.
    fn split(self, classes: usize) -> (Rows, Rows) {
        let mut by_class = vec![Vec::new(); classes];
        for (i, &label) in self.labels.iter().enumerate() {
            by_class[usize::from(label)].push(i);
        }
        let mut train = self.clone();
        let mut test = Rows { taken: vec![false; self.labels.len()], ..self };
        for i in tenth(&by_class, "hub-test") {
            (train.taken[i], test.taken[i]) = (false, true);
        }
        (train, test)
    }
}

/// Decodes a block of images into their places, and empties it.
fn decode_all(block: &mut Vec<(&mut [u8], Vec<u8>)>, size: usize, file: &Path) -> Result<()> {
    interrupt::check()?;
    let decoded = block.par_iter_mut().map(|(out, bytes)| {
        decode::square(&decode::bytes(bytes, file)?, size, out);
        Ok(())
    });
    let error = decoded.map(|done: Result<()>| done.err()).find_map_first(|error| error);
    block.clear();
    error.map_or(Ok(()), Err)
}

/// The folder of the set's one configuration, or of the one called `default`, in the newest snapshot in the cache.
fn config(name: &str) -> Result<PathBuf> {
    let cache = resolve_cache_dir().join(format!("datasets--{}", name.replace('/', "--")));
    let reference = cache.join("refs").join(BRANCH);
    let Ok(commit) = fs::read_to_string(&reference) else {
        return Err(Error::NoData(format!(
            "hf:{name}: not in the hub's cache ({}); run the command once without --offline and HF_HUB_OFFLINE",
            cache.display()
        )));
    };
    let snapshot = cache.join("snapshots").join(commit.trim());
    let configs = children(&snapshot)?;
    match (configs.iter().find(|config| config.ends_with("default")), &configs[..]) {
        (Some(config), _) | (None, [config]) => Ok(config.clone()),
        (None, several) => {
            let names: Vec<_> = several.iter().filter_map(|c| Some(c.file_name()?.to_string_lossy())).collect();
            usage!(
                "hf:{name}: expected one configuration or one called default, found {}; save the one you want with \
                 Hugging Face's datasets as an image folder and use folder:PATH",
                names.join(", ")
            )
        }
    }
}

/// The class names that the first file of a split states.
fn class_names(split: &Path) -> Result<Option<Vec<String>>> {
    match children(split)?.first() {
        Some(file) => Ok(ParquetImages::open(file)?.class_names()),
        None => fail!("{}: holds no Parquet file", split.display()),
    }
}

/// What a folder holds, sorted.
fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).at(folder)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().at(folder)?;
    paths.sort();
    Ok(paths)
}
