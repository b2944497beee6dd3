//! `distill train --teacher`: what a teacher says of samples while the UNet trains.

use std::path::Path;

use candle_core::Device;

use crate::cli::Training;
use crate::config::Config;
use crate::data::ImageSet;
use crate::error::Result;
use crate::eval::Teacher;
use crate::eval::quality::{Gaussian, frechet_distance};
use crate::progress::{Console, Verbosity};
use crate::stages::Measure;
use crate::train::Validation;

/// A teacher, and held-out images in its features.
pub struct SampleQuality {
    teacher: Teacher,
    real: Gaussian,
    /// Samples that it is asked about at once.
    images: usize,
    /// The training's own bar stands meanwhile, so nothing else is shown.
    quiet: Console,
}

impl SampleQuality {
    /// None where `--teacher` was not given. `held_out` are real images that samples are compared with.
    pub fn of(
        training: &Training,
        config: &Config,
        out: &Path,
        held_out: &ImageSet,
        device: &Device,
    ) -> Result<Option<Self>> {
        let Some(named) = &training.teacher else { return Ok(None) };
        let folder = Teacher::locate(Some(named), out, &config.dataset, config.image_size)?;
        let (teacher, quiet) = (Teacher::open(&folder, device)?, Console::new(Verbosity::Quiet));
        let real = Gaussian::fit(&teacher.features(held_out, &quiet)?)?;
        Ok(Some(SampleQuality { teacher, real, images: training.fd_images as usize, quiet }))
    }

    pub fn measure(&self) -> Measure<'_> {
        Measure { images: self.images, figures: Box::new(|samples| self.figures(samples)) }
    }

    /// The Fréchet distance of samples to the held-out images, and the share of them whose class the teacher sees.
    fn figures(&self, samples: &ImageSet) -> Result<Validation> {
        let features = self.teacher.features(samples, &self.quiet)?;
        let distance = frechet_distance(&self.real, &Gaussian::fit(&features)?)?;
        Ok(vec![("fd", distance), ("label_agreement", self.teacher.agreement(samples, &self.quiet)?)])
    }
}
