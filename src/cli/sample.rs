//! Options of `distill sample`, and of sampling inside `distill run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::Common;
use super::train::parse_duration;
use crate::config::Override;
use crate::diffusion::samplers::SamplerKind;
use crate::eval::PoolSelection;

/// Options of sampling.
#[derive(Args, Clone, Debug)]
pub struct Sampling {
    /// Images per class
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = images_per_class())]
    pub ipc: u32,
    /// Sampling algorithm [default: the run's sampler.method]
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<SamplerKind>,
    /// Sampling steps [default: the run's sampler.steps]
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Scale of classifier-free guidance; 1 is none [default: the run's sampler.guidance for so many images]
    #[arg(long, value_name = "S")]
    pub guidance: Option<f64>,
    /// Noise that DDIM adds on the way: 0 none, 1 as DDPM [default: the run's sampler.eta]
    #[arg(long, value_name = "ETA")]
    pub eta: Option<f64>,
}

impl Sampling {
    pub fn overrides(&self) -> Vec<Override> {
        let sampler = self.sampler.map(|v| Override::new("sampler.method", v.as_str(), "--sampler"));
        let steps = self.steps.map(|v| Override::new("sampler.steps", i64::from(v), "--steps"));
        let guidance = self.guidance.map(|v| Override::new("sampler.guidance", v, "--guidance"));
        let eta = self.eta.map(|v| Override::new("sampler.eta", v, "--eta"));
        [sampler, steps, guidance, eta].into_iter().flatten().collect()
    }
}

#[derive(Args, Clone, Debug)]
pub struct SampleArgs {
    /// Run to sample from [default: the newest finished run]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run: Option<PathBuf>,
    #[command(flatten)]
    pub sampling: Sampling,
    /// Sample as many images per class as this time allows, for example 10m: a batch is timed, then
    /// the number is fixed; guidance is that of the most images
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "ipc")]
    pub budget: Option<Duration>,
    /// Draw so many images per class, and keep the best --ipc of them [default: the run's sampler.pool, where there is a
    /// teacher]
    #[arg(long, value_name = "N", value_parser = images_per_class(), conflicts_with = "budget")]
    pub pool: Option<u32>,
    /// Which images of the pool are kept [default: mix]
    #[arg(long, value_name = "WAY", conflicts_with = "budget")]
    pub select: Option<PoolSelection>,
    /// Teacher that chooses them [default: the data set's newest under OUT/teachers]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "budget")]
    pub teacher: Option<PathBuf>,
    /// Sample only these classes: numbers or names, separated by commas [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub classes: Vec<String>,
    /// Name of the distilled set's folder [default: made of the settings]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Folder that the set's folder is made in [default: distilled/ of the run]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: Option<PathBuf>,
    /// Replace a set of the same name
    #[arg(long)]
    pub overwrite: bool,
    /// Replace a sampler.* key, for example --set sampler.batch_size=50
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub common: Common,
}

pub(super) fn images_per_class() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=100_000)
}
