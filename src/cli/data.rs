//! Options of `distill data`.

use clap::{Args, Subcommand};

use super::Common;
use crate::data::Dataset;

#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    pub action: DataAction,
}

#[derive(Clone, Debug, Subcommand)]
pub enum DataAction {
    /// Where a data set was found, its size and its classes
    Info(DataActionArgs),
    /// Decode every image; count classes and duplicates, measure mean and std
    Verify(DataActionArgs),
}

#[derive(Args, Clone, Debug)]
pub struct DataActionArgs {
    /// shapes (built in), cifar10, cifar100, tinyimagenet or folder:PATH
    #[arg(long, value_name = "NAME")]
    pub dataset: Dataset,
    /// Height and width that a folder's images are resized and cropped to [default: 64]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub image_size: Option<u16>,
    #[command(flatten)]
    pub common: Common,
}
