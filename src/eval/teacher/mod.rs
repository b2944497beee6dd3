//! The teacher: a classifier trained on the real train split, in whose features sets are compared and which labels
//! images softly.

mod recipe;
mod task;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use recipe::Recipe;
pub use task::TeacherTask;

use super::student::{TEST_BATCH, all_batches, argmax};
use super::{Features, Labeller, PixelTable, view};
use crate::checksums::{check_file, sha256};
use crate::data::{Class, Dataset, ImageSet, Normalization};
use crate::distilled::SoftLabels;
use crate::environment::Environment;
use crate::error::{AtPath, Error, Result};
use crate::fs::write_atomic;
use crate::models::students::Classifier;
use crate::nn::Params;
use crate::ops::{Tape, Value};
use crate::order::Order;
use crate::progress::Console;
use crate::train::{FORMAT_VERSION, Finished, encode_weights, load_weights, read_metadata};
use crate::{fail, interrupt};

const WEIGHTS: &str = "final.safetensors";
const SUMMARY: &str = "summary.json";
/// The folder of all teachers below that of all runs.
pub const FOLDER: &str = "teachers";

/// What stands beside a teacher's weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherCard {
    pub format: u32,
    /// "teacher"
    pub kind: String,
    /// Version of this program.
    pub distill: String,
    pub dataset: String,
    /// Height and width of the images in pixels.
    pub image_size: usize,
    pub classes: Vec<Class>,
    pub normalization: Normalization,
    /// Of the images that it was trained on.
    pub data_sha256: String,
    /// Whether the held-out tenth was left out of them.
    pub hold_out: bool,
    pub seed: u64,
    pub recipe: Recipe,
    pub steps: u64,
    /// Percent of the held-out tenth of the train split that it classifies correctly: of images that it has not seen only
    /// if `hold_out`.
    pub held_out_accuracy: f64,
    /// Percent of the test split, where it is stated: to be reported, never to choose by.
    pub test_accuracy: Option<f64>,
}

impl TeacherCard {
    /// Refuses images of `size` x `size` pixels of `classes` that the teacher in `folder` does not know.
    pub fn check(&self, folder: &Path, size: usize, classes: &[Class]) -> Result<()> {
        let name = folder.display();
        if size != self.image_size {
            fail!(
                "{name}: this teacher knows images of {0} x {0} pixels, these have {size} x {size}; train one on their data \
                 set with `distill teacher`",
                self.image_size,
            );
        }
        if classes.len() != self.classes.len() {
            fail!(
                "{name}: this teacher tells {} classes of {} apart, the images have {}; train one on their data set with \
                 `distill teacher`",
                self.classes.len(),
                self.dataset,
                classes.len()
            );
        }
        if let Some((i, (a, b))) = self.classes.iter().zip(classes).enumerate().find(|(_, (a, b))| a != b) {
            fail!(
                "{name}: class {i} is {} ({}) to this teacher but {} ({}) in the images; train one on their data set with \
                 `distill teacher`",
                a.name,
                a.id,
                b.name,
                b.id
            );
        }
        Ok(())
    }
}

/// summary.json: how training ended, and the hash of the weights that came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Summary {
    #[serde(flatten)]
    training: Finished,
    held_out_accuracy: f64,
    test_accuracy: Option<f64>,
    /// Of final.safetensors.
    sha256: String,
}

/// Writes a trained teacher into `folder`, the weights last: where they are, training has ended.
pub fn write_teacher(
    folder: &Path,
    tensors: &[(String, Tensor)],
    card: &TeacherCard,
    training: Finished,
) -> Result<()> {
    let path = folder.join(WEIGHTS);
    let bytes = encode_weights(&path, tensors, card)?;
    let TeacherCard { held_out_accuracy, test_accuracy, .. } = *card;
    let summary = Summary { training, held_out_accuracy, test_accuracy, sha256: sha256(&bytes) };
    let json = serde_json::to_vec_pretty(&summary).map_err(|e| Error::Failed(e.to_string()))?;
    write_atomic(&folder.join(SUMMARY), &json)?;
    write_atomic(&path, &bytes)
}

/// A trained teacher.
pub struct Teacher {
    pub card: TeacherCard,
    pub folder: PathBuf,
    /// SHA-256 of its weights file, by which results name it.
    pub sha256: String,
    network: Box<dyn Classifier>,
    device: Device,
}

impl Teacher {
    /// Whether a finished teacher is in `folder`.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(WEIGHTS).is_file()
    }

    /// What stands beside the weights of the teacher in `folder`.
    pub fn card(folder: &Path) -> Result<TeacherCard> {
        read_metadata(&folder.join(WEIGHTS))
    }

    /// The folder of the teacher at `named`, or of the newest one of `dataset` at `size` x `size` pixels below it, or
    /// below the folder of all runs, `out`.
    pub fn locate(named: Option<&Path>, out: &Path, dataset: &Dataset, size: usize) -> Result<PathBuf> {
        let path = named.map_or_else(|| out.join(FOLDER), Path::to_path_buf);
        if Self::is_in(&path) {
            return Ok(path);
        }
        let name = dataset.to_string();
        let fits = |folder: &Path| Self::card(folder).is_ok_and(|card| card.dataset == name && card.image_size == size);
        let newest = below(&path).into_iter().rev().find(|folder| fits(folder));
        newest.ok_or_else(|| {
            let path = path.display();
            let at = if dataset.own_size().is_none() { format!(" --image-size {size}") } else { String::new() };
            Error::Failed(format!(
                "{path}: no finished teacher of {name} at {size} x {size} pixels is there; train one with `distill teacher \
                 --dataset {name}{at}`"
            ))
        })
    }

    /// The folder of the teacher whose weights have this SHA-256, below the folder of all runs, `out`.
    pub fn with_weights(sha256: &str, out: &Path) -> Option<PathBuf> {
        below(&out.join(FOLDER)).into_iter().rev().find(|folder| {
            let summary = fs::read(folder.join(SUMMARY)).ok();
            summary.and_then(|bytes| serde_json::from_slice::<Summary>(&bytes).ok()).is_some_and(|s| s.sha256 == sha256)
        })
    }

    /// The teacher in `folder` on `device`.
    ///
    /// # Errors
    /// There is none, or its weights are not those that its summary names.
    pub fn open(folder: &Path, device: &Device) -> Result<Teacher> {
        if !Self::is_in(folder) {
            fail!("{}: holds no finished teacher; train one with `distill teacher`", folder.display());
        }
        let (weights, summary) = (folder.join(WEIGHTS), folder.join(SUMMARY));
        let remedy = "put back a copy, or train it again with `distill teacher --overwrite`";
        let stated: Summary = serde_json::from_slice(&fs::read(&summary).at(&summary)?)
            .map_err(|e| Error::Failed(format!("{}: is damaged ({e}); {remedy}", summary.display())))?;
        check_file(&weights, &stated.sha256, &summary).map_err(|e| Error::Failed(format!("{e}; {remedy}")))?;
        let card = Self::card(folder)?;
        if card.kind != "teacher" || card.format != FORMAT_VERSION {
            fail!(
                "{}: holds a {} of format {}, expected a teacher of format {FORMAT_VERSION}; {remedy}",
                weights.display(),
                card.kind,
                card.format
            );
        }
        let params = Params::new(0, device);
        let network = card.recipe.build(card.image_size, card.classes.len(), params.builder());
        let network = network.map_err(|e| Error::Failed(format!("{}: its recipe: {e}", weights.display())))?;
        params.assign(&load_weights(&weights, device)?, &weights.display().to_string())?;
        let folder = folder.to_path_buf();
        Ok(Teacher { card, folder, sha256: stated.sha256, network, device: device.clone() })
    }

    /// Refuses images of another size or with other classes than the teacher's.
    pub fn check(&self, set: &ImageSet) -> Result<()> {
        self.card.check(&self.folder, set.size, &set.classes)
    }

    /// What the last layer reads, for every image of `set`; it must pass [`Teacher::check`] but for its labels.
    pub fn features(&self, set: &ImageSet, console: &Console) -> Result<Features> {
        self.check(set)?;
        let features = |tape: &Tape, x: &Value| self.network.features(tape, x);
        let (values, dims) =
            over(set, self.card.normalization, &self.device, 0, console, "teacher's features", &features)?;
        Ok(Features { values, dims })
    }

    /// [`Teacher::features`], kept in the teacher's folder for the next time.
    pub fn cached_features(&self, set: &ImageSet, console: &Console) -> Result<Features> {
        self.check(set)?;
        let images = set.sha256();
        let name = format!("features-{}.safetensors", &images[..16]);
        let of = [self.sha256.clone(), images, Environment::of(&self.device).kernels]; // kernels round in ways of their own
        Features::kept(&self.folder, &name, &of, || self.features(set, console))
    }

    /// Soft labels of `views` views of every image: view 0 is the image itself, every other one an augmentation of it as
    /// [`view`] draws it.
    pub fn label(&self, set: &ImageSet, views: u32, console: &Console) -> Result<SoftLabels> {
        self.check(set)?;
        let (classes, count) = (set.classes.len(), views as usize);
        let forward = |tape: &Tape, x: &Value| self.network.forward(tape, x);
        let mut values = vec![0.0; set.len() * count * classes];
        for seen in 0..count {
            let name = format!("labels {}/{views}", seen + 1);
            let (logits, _) = over(set, self.card.normalization, &self.device, seen as u32, console, &name, &forward)?;
            for (i, row) in logits.chunks(classes).enumerate() {
                softmax(row, &mut values[(i * count + seen) * classes..][..classes]);
            }
        }
        Ok(SoftLabels { values: Arc::new(values), views: count })
    }

    /// The name of its folder.
    pub fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What results say of it as the one who labelled `views` views of an image.
    pub fn labeller(&self, views: u32) -> Labeller {
        Labeller { teacher: self.name(), teacher_sha256: self.sha256.clone(), views }
    }

    /// The share of images that it takes for what their label says.
    pub fn agreement(&self, set: &ImageSet, console: &Console) -> Result<f64> {
        Ok(agreement(&self.logits(set, console)?, set))
    }

    /// Logits (N, classes), row by row.
    pub fn logits(&self, set: &ImageSet, console: &Console) -> Result<Vec<f32>> {
        self.check(set)?;
        logits(self.network.as_ref(), set, self.card.normalization, &self.device, console)
    }
}

/// The folders of finished teachers in `parent`, the newest last.
fn below(parent: &Path) -> Vec<PathBuf> {
    let order = Order::of(parent);
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let folder = entry.path();
        found.extend(order.age(Path::new(&entry.file_name()), &folder.join(WEIGHTS)).map(|age| (age, folder)));
    }
    found.sort();
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// Logits of all images of `set`, (N, classes).
fn logits(
    network: &dyn Classifier,
    set: &ImageSet,
    normalization: Normalization,
    device: &Device,
    console: &Console,
) -> Result<Vec<f32>> {
    let forward = |tape: &Tape, x: &Value| network.forward(tape, x);
    Ok(over(set, normalization, device, 0, console, "teacher", &forward)?.0)
}

/// The share of `set`'s images whose largest logit is their label's.
fn agreement(logits: &[f32], set: &ImageSet) -> f64 {
    let rows = logits.chunks(set.classes.len()).zip(&set.labels);
    let right = rows.filter(|(row, label)| argmax(row) == usize::from(**label)).count();
    right as f64 / set.len().max(1) as f64
}

/// The probabilities of `logits`.
fn softmax(logits: &[f32], out: &mut [f32]) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|v| (v - most).exp()).sum();
    out.iter_mut().zip(logits).for_each(|(out, v)| *out = (v - most).exp() / sum);
}

/// A network's values, computed on `device`, for view `seen` of all images of `set`, row by row, and how many an image has.
fn over(
    set: &ImageSet,
    normalization: Normalization,
    device: &Device,
    seen: u32,
    console: &Console,
    label: &str,
    network: &dyn Fn(&Tape, &Value) -> Result<Value>,
) -> Result<(Vec<f32>, usize)> {
    let pixels = PixelTable::new(normalization);
    let bar = console.bar(label, 0, set.len() as u64);
    let (mut values, mut width) = (Vec::new(), 0);
    for indices in all_batches(set, TEST_BATCH) {
        interrupt::check()?;
        let mut images = pixels.batch(set, &indices);
        for (image, &i) in images.chunks_exact_mut(set.image_len()).zip(&indices) {
            if let Some(change) = view(set.size, i, seen) {
                change.apply(image, set.size);
            }
        }
        let x = Tensor::from_vec(images, (indices.len(), set.size, set.size, 3), device)?;
        let found = network(&Tape::inference(), &Value::constant(x))?;
        width = found.dims()[1];
        values.extend(found.tensor().flatten_all()?.to_vec1::<f32>()?);
        bar.update(u64::from(indices[0]) + indices.len() as u64, indices.len() as u64, None);
    }
    Ok((values, width))
}
