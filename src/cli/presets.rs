//! Options of `distill presets`.

use clap::Args;

use super::common::presets;

#[derive(Args, Clone, Debug)]
pub struct PresetsArgs {
    /// Print this preset as TOML
    #[arg(value_parser = presets())]
    pub name: Option<String>,
    /// Print the reference of all configuration keys, as Markdown
    #[arg(long, conflicts_with = "name")]
    pub keys: bool,
    /// Print results as JSON
    #[arg(long)]
    pub json: bool,
}
