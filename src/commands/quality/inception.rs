//! The same figures in the features of Inception-v3, by which the field compares generators.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::figures::{Distances, Reference, places};
use crate::checksums::sha256_file;
use crate::data::ImageSet;
use crate::error::Result;
use crate::eval::Features;
use crate::fs::make_folder;
use crate::interrupt;
use crate::models::inception::{FEATURES, Inception};
use crate::progress::Console;

/// Images that go through the network at once.
const BATCH: usize = 20;

/// What quality.json holds of it.
#[derive(Serialize)]
pub struct InInception {
    /// Of the weights file.
    weights_sha256: String,
    /// Real images that were compared with.
    real_images: usize,
    pub generated: Distances,
    /// Those of as many test images.
    pub real: Distances,
}

/// The network, and where the features of real images are kept.
pub struct Judge<'a> {
    network: Inception,
    sha256: String,
    kept: PathBuf,
    console: &'a Console,
}

impl<'a> Judge<'a> {
    /// With the weights in a file; features are kept in the folder `kept`.
    pub fn open(weights: &Path, kept: PathBuf, console: &'a Console) -> Result<Self> {
        Ok(Judge { network: Inception::open(weights)?, sha256: sha256_file(weights)?, kept, console })
    }

    /// Compares `generated` images, and `counterpart` of the test split, with at most 10,000 of the real ones.
    pub fn measure(
        &self,
        generated: &ImageSet,
        counterpart: &ImageSet,
        against: &ImageSet,
        neighbours: usize,
    ) -> Result<InInception> {
        let real = against.subset(&places(against.len()).collect::<Vec<_>>());
        make_folder(&self.kept)?;
        let hash = real.sha256();
        let name = format!("inception-{}.safetensors", &hash[..16]);
        let of = [self.sha256.clone(), hash, "f32".into()];
        let of_real = Features::kept(&self.kept, &name, &of, || self.features(&real))?;
        let reference = Reference::new(&of_real, neighbours)?;
        Ok(InInception {
            weights_sha256: self.sha256.clone(),
            real_images: real.len(),
            generated: reference.distances(&self.features(generated)?)?,
            real: reference.distances(&self.features(counterpart)?)?,
        })
    }

    fn features(&self, set: &ImageSet) -> Result<Features> {
        let bar = self.console.bar("Inception", 0, set.len() as u64);
        let (mut values, mut done) = (Vec::with_capacity(set.len() * FEATURES), 0);
        for pixels in set.pixels.chunks(BATCH * set.image_len()) {
            interrupt::check()?;
            values.extend(self.network.features(pixels, set.size)?);
            let images = (pixels.len() / set.image_len()) as u64;
            done += images;
            bar.update(done, images, None);
        }
        Ok(Features { values, dims: FEATURES })
    }
}
