//! Options of `distill label`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Common;

/// Views that a teacher labels where it is not said otherwise.
pub const VIEWS: u32 = 20;

#[derive(Args, Clone, Debug)]
pub struct LabelArgs {
    /// Distilled set [default: the newest]
    #[arg(value_name = "SET", value_hint = ValueHint::AnyPath)]
    pub set: Option<PathBuf>,
    /// Teacher that labels the images [default: the data set's newest under OUT/teachers]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub teacher: Option<PathBuf>,
    /// Views of each image that are labelled: the image itself, and augmented ones, which students see in turn
    #[arg(long, value_name = "K", default_value_t = VIEWS, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub views: u32,
    /// Name of the labelled set's folder, beside the set [default: the set's with -soft]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Replace a set of the same name
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub common: Common,
}
