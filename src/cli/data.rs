//! Options of `distill data`.

use clap::{Args, Subcommand};

use super::Common;
use crate::data::DatasetName;

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
    /// shapes (built in), cifar100 or tinyimagenet
    #[arg(long, value_name = "NAME")]
    pub dataset: DatasetName,
    #[command(flatten)]
    pub common: Common,
}
