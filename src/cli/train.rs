//! Options of `distill train`, and of training inside `distill run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::common::datasets;
use super::{Common, Configuring};
use crate::data::Dataset;

/// Options of training.
#[derive(Args, Clone, Debug)]
pub struct Training {
    /// shapes (built in), cifar10, cifar100, tinyimagenet, folder:PATH or hf:OWNER/NAME
    /// [default: the configuration's, else shapes]
    #[arg(long, value_name = "NAME", value_parser = datasets(), hide_possible_values = true)]
    pub dataset: Option<Dataset>,
    /// Train for about this long, for example 30m: the first steps are timed, then the number of steps is fixed
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub max_time: Option<Duration>,
    /// Name of the run's folder [default: made of the preset and the configuration]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Start again even if the run has finished, removing what it trained; its sets and evaluations move to old-1/
    #[arg(long)]
    pub overwrite: bool,
    /// Checkpoints kept while a network trains; where the newest is damaged, the one before it is taken
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub keep_last: u32,
    /// Keep the checkpoint with the best validation too, and take the final weights from it instead of the last step.
    /// Every train.sample_every steps the averaged weights are validated: the VAE by validation_mse, the UNet by
    /// validation_loss, or with --teacher by fd, the lower the better
    #[arg(long)]
    pub keep_best: bool,
    /// Write event files for TensorBoard too, into the run's folder tensorboard/: every figure of metrics.jsonl, and the
    /// pictures
    #[arg(long)]
    pub tensorboard: bool,
    /// Take the VAE of this run instead of training one: its data and all settings of a VAE must be the same
    #[arg(long, value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub vae: Option<PathBuf>,
    /// Measure samples at every validation of the UNet, in the features of the teacher in this folder, or of the newest one
    /// below it: their Frechet distance to the held-out tenth of train (fd), and the share that it takes for their class
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub teacher: Option<PathBuf>,
    /// Samples that it measures each time
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000), requires = "teacher")]
    pub fd_images: u32,
    #[command(flatten)]
    pub configuring: Configuring,
}

#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    #[command(flatten)]
    pub training: Training,
    /// Train one of the two networks only
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<Stage>,
    #[command(flatten)]
    pub common: Common,
}

/// One of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    Vae,
    Unet,
}

/// A time such as 30m, 1h30m or 90s; a bare number counts seconds. At most a year.
pub(super) fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let seconds = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    match seconds.map_or_else(|| humantime::parse_duration(text).map_err(|e| e.to_string()), Ok) {
        Ok(time) if !time.is_zero() && time <= YEAR => Ok(time),
        Ok(_) => Err("expected more than no time and at most a year, for example 30m".into()),
        Err(problem) => Err(format!("{problem}; expected a time such as 30m, 1h30m or 90s")),
    }
}
