//! The train split as latents: encoded once, normalized by their own statistics, cached beside the VAE.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{BATCH, to_tensor};
use crate::checksums::Checksums;
use crate::data::ImageSet;
use crate::error::{Error, Result};
use crate::models::vae::Vae;
use crate::progress::Console;
use crate::train::{load_weights, read_metadata, save_weights};
use crate::{fail, interrupt};

/// Mean and standard deviation of each latent channel over the train split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatentStatistics {
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl LatentStatistics {
    /// Of values whose last dimension is the channel.
    fn measure(values: &[f32], channels: usize) -> Self {
        let n = (values.len() / channels).max(1) as f64;
        let mut sums = vec![(0.0f64, 0.0f64); channels];
        for row in values.chunks(channels) {
            for ((sum, squares), &v) in sums.iter_mut().zip(row) {
                *sum += f64::from(v);
                *squares += f64::from(v) * f64::from(v);
            }
        }
        let std = |&(sum, squares): &(f64, f64)| (squares / n - (sum / n).powi(2)).max(1e-12).sqrt() as f32;
        LatentStatistics { mean: sums.iter().map(|s| (s.0 / n) as f32).collect(), std: sums.iter().map(std).collect() }
    }

    /// To mean 0 and standard deviation 1, in place.
    fn normalize(&self, values: &mut [f32]) {
        for row in values.chunks_mut(self.mean.len()) {
            for ((v, m), s) in row.iter_mut().zip(&self.mean).zip(&self.std) {
                *v = (*v - m) / s;
            }
        }
    }

    /// The inverse of the normalization, for latents (B, H, W, C).
    pub fn restore(&self, latents: &Tensor) -> Result<Tensor> {
        let device = latents.device();
        let mean = Tensor::from_slice(&self.mean, self.mean.len(), device)?;
        let std = Tensor::from_slice(&self.std, self.std.len(), device)?;
        Ok(latents.broadcast_mul(&std)?.broadcast_add(&mean)?)
    }
}

/// Normalized latents of all images and, where training flips, of all mirrored images.
pub struct Latents {
    /// (variants x N, H x W x C) on the device that trains: after all images, if there, the mirrored ones.
    pub values: Tensor,
    pub labels: Vec<u16>,
    pub size: usize,
    pub channels: usize,
    pub statistics: LatentStatistics,
}

/// Latents as the encoder makes them: (variants, N, H, W, C).
struct Encoded {
    values: Vec<f32>,
    size: usize,
    channels: usize,
}

/// What the cache is checked against before it is believed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    statistics: LatentStatistics,
    /// Images, variants, size, channels.
    dims: [usize; 4],
    /// The hashes of the images that were encoded and of the VAE's weights file.
    images: String,
    vae: String,
}

impl Latents {
    /// Reads the cache at `path`, or encodes `images` with `vae` on `device`, whose weights file has the hash `weights`, and
    /// writes it.
    pub fn cached(
        path: &Path,
        vae: &Vae,
        weights: &str,
        images: &ImageSet,
        flip: bool,
        device: &Device,
        console: &Console,
    ) -> Result<Self> {
        let hashes = (images.sha256(), weights.to_string());
        if path.is_file() {
            match Encoded::read(path, images, flip, &hashes) {
                Ok((encoded, statistics)) => return Self::new(encoded, images, statistics, device),
                Err(problem) => console.warn(format!("{problem}; encoding again")),
            }
        }
        let mut encoded = Encoded::of(vae, images, flip, device, console)?;
        let statistics = LatentStatistics::measure(&encoded.values, encoded.channels.max(1));
        statistics.normalize(&mut encoded.values);
        encoded.write(path, images.len(), &statistics, hashes)?;
        Self::new(encoded, images, statistics, device)
    }

    /// Encodes `images` and normalizes them by the statistics of others.
    pub fn with_statistics(
        vae: &Vae,
        images: &ImageSet,
        statistics: &LatentStatistics,
        device: &Device,
        console: &Console,
    ) -> Result<Self> {
        let mut encoded = Encoded::of(vae, images, false, device, console)?;
        statistics.normalize(&mut encoded.values);
        Self::new(encoded, images, statistics.clone(), device)
    }

    fn new(encoded: Encoded, images: &ImageSet, statistics: LatentStatistics, device: &Device) -> Result<Self> {
        let Encoded { values, size, channels } = encoded;
        let len = size * size * channels;
        let shape = (values.len() / len.max(1), len);
        let values = Tensor::from_vec(values, shape, device).map_err(|e| {
            Error::Failed(format!("the device cannot hold all latents of {len} values ({e}); use --device cpu"))
        })?;
        Ok(Latents { values, labels: images.labels.clone(), size, channels, statistics })
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Elements of one latent.
    pub fn latent_len(&self) -> usize {
        self.size * self.size * self.channels
    }

    pub fn variants(&self) -> usize {
        self.values.dims()[0] / self.len().max(1)
    }

    /// The row of `values` that latent `i` is, mirrored for variant 1.
    pub fn place(&self, i: usize, variant: usize) -> u32 {
        (variant * self.len() + i) as u32
    }
}

impl Encoded {
    fn of(vae: &Vae, images: &ImageSet, flip: bool, device: &Device, console: &Console) -> Result<Self> {
        let variants = if flip { 2 } else { 1 };
        let bar = console.bar("latents", 0, (variants * images.len()) as u64);
        let (mut values, mut size, mut channels) = (Vec::new(), 0, 0);
        let indices: Vec<usize> = (0..images.len()).collect();
        for variant in 0..variants {
            for batch in indices.chunks(BATCH) {
                interrupt::check()?;
                let flips = vec![variant == 1; batch.len()];
                let latents = vae.encode_mean(&to_tensor(images, batch, Some(&flips), device)?)?;
                (_, size, _, channels) = latents.dims4()?;
                values.extend(latents.flatten_all()?.to_vec1::<f32>()?);
                bar.update((variant * images.len() + batch[batch.len() - 1] + 1) as u64, batch.len() as u64, None);
            }
        }
        Ok(Encoded { values, size, channels })
    }

    /// Writes the latents of `n` images to `path`, with their statistics and the hashes of the images and the VAE.
    fn write(
        &self,
        path: &Path,
        n: usize,
        statistics: &LatentStatistics,
        (images, vae): (String, String),
    ) -> Result<()> {
        let variants = self.values.len() / (n * self.size * self.size * self.channels).max(1);
        let header =
            Header { statistics: statistics.clone(), dims: [n, variants, self.size, self.channels], images, vae };
        let shape = (variants, n, self.size, self.size, self.channels);
        let values = Tensor::from_slice(&self.values, shape, &Device::Cpu)?;
        let hash = save_weights(path, &[("latents".to_string(), values)], &header)?;
        let mut sums = Checksums::default();
        sums.add(&file_name(path), hash);
        sums.write(&sums_of(path))
    }

    /// The latents at `path` and their statistics; an error if they are of other images or of another VAE.
    fn read(path: &Path, images: &ImageSet, flip: bool, hashes: &(String, String)) -> Result<(Self, LatentStatistics)> {
        Checksums::check(&sums_of(path), &[&file_name(path)])?;
        let header: Header = read_metadata(path)?;
        let [n, variants, size, channels] = header.dims;
        if n != images.len()
            || variants != 1 + usize::from(flip)
            || [&header.statistics.mean, &header.statistics.std].iter().any(|values| values.len() != channels)
            || (&header.images, &header.vae) != (&hashes.0, &hashes.1)
        {
            fail!("{}: holds the latents of other images or of another VAE", path.display());
        }
        let values = match load_weights(path, &Device::Cpu)?.remove("latents") {
            Some(tensor) if tensor.dims() == [variants, n, size, size, channels] => {
                tensor.flatten_all()?.to_vec1::<f32>()?
            }
            _ => fail!("{}: holds no latents of the size it states", path.display()),
        };
        Ok((Encoded { values, size, channels }, header.statistics))
    }
}

/// Where the hash of the cache at `path` stands.
fn sums_of(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
