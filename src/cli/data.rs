//! Options of `distill data`.

use clap::{Args, Subcommand};

use super::Common;
use super::common::datasets;
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
    /// Download a data set's official archive, check it and unpack it
    Fetch(FetchArgs),
}

#[derive(Args, Clone, Debug)]
pub struct FetchArgs {
    /// cifar10, cifar100, tinyimagenet or hf:OWNER/NAME
    #[arg(long, value_name = "NAME", value_parser = datasets(), hide_possible_values = true)]
    pub dataset: Dataset,
    /// Address of the archive [default: under $DISTILL_MIRROR if that is set, else its authors' site]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Clone, Debug)]
pub struct DataActionArgs {
    /// shapes (built in), cifar10, cifar100, tinyimagenet, folder:PATH or hf:OWNER/NAME
    #[arg(long, value_name = "NAME", value_parser = datasets(), hide_possible_values = true)]
    pub dataset: Dataset,
    /// Height and width that images of a folder or the hub are cropped and resized to [default: 64]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub image_size: Option<u16>,
    #[command(flatten)]
    pub common: Common,
}
