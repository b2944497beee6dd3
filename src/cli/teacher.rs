//! Options of `distill teacher`.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::Common;
use super::common::datasets;
use super::eval::student;
use super::train::parse_duration;
use crate::data::Dataset;
use crate::eval::Recipe;

#[derive(Args, Clone, Debug)]
pub struct TeacherArgs {
    /// shapes (built in), cifar10, cifar100, tinyimagenet, folder:PATH or hf:OWNER/NAME
    #[arg(long, value_name = "NAME", default_value = "shapes", value_parser = datasets(), hide_possible_values = true)]
    pub dataset: Dataset,
    /// Height and width that images of a folder or of the hub are resized to [default: 64]
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Recipe of training
    #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = PossibleValuesParser::new(Recipe::names()))]
    pub recipe: String,
    /// Architecture, as --student of `distill eval` names them [default: the recipe's]
    #[arg(long, value_name = "NAME", value_parser = student())]
    pub arch: Option<String>,
    /// Passes over the train split [default: the recipe's]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
    /// Replace one key of the recipe, for example --set learning_rate=1e-3; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Leave out the held-out tenth of the train split, for choosing settings
    #[arg(long)]
    pub hold_out: bool,
    /// Train for about this long, for example 15m: the first steps are timed, then the number of steps is fixed
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub max_time: Option<Duration>,
    /// Name of the teacher's folder [default: made of the data set and the recipe]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Start again even if the teacher has finished
    #[arg(long)]
    pub overwrite: bool,
    /// Checkpoints kept while it trains; where the newest is damaged, the one before it is taken
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub keep_last: u32,
    #[command(flatten)]
    pub common: Common,
}
