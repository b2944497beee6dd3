//! Options that several commands share.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Args, ValueEnum, ValueHint};

use crate::config::{Override, preset_names};
use crate::data::Dataset;
use crate::device::DeviceChoice;
use crate::error::Result;
use crate::progress::Verbosity;

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Where to compute: auto, cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Common options")]
    pub device: DeviceChoice,
    /// Precision inside the networks: f32, bf16 (sums, weights and losses in f32), or auto: bf16 on a GPU and where the
    /// processor has AMX or AVX-512 BF16, else f32
    #[arg(long, value_name = "DTYPE", default_value = "auto", help_heading = "Common options")]
    pub dtype: DType,
    /// Folder that holds the data sets [default: $DISTILL_DATA, else the user's cache folder]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Common options")]
    pub data_dir: Option<PathBuf>,
    /// Never download a data set; DISTILL_OFFLINE=1 says the same
    #[arg(long, help_heading = "Common options")]
    pub offline: bool,
    /// Folder under which runs live
    #[arg(long, value_name = "DIR", default_value = "runs", value_hint = ValueHint::DirPath)]
    #[arg(help_heading = "Common options")]
    pub out: PathBuf,
    /// Seed of all randomness [default: of train and run the configuration's, else 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    #[arg(help_heading = "Common options")]
    pub seed: Option<u64>,
    /// Show what would be done: configuration, parameter counts, FLOPs an image, output paths
    #[arg(long, help_heading = "Common options")]
    pub dry_run: bool,
    /// Print results as JSON
    #[arg(long, help_heading = "Common options")]
    pub json: bool,
    /// Say less: warnings and results only
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Common options")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, help_heading = "Common options")]
    pub verbose: bool,
}

impl Common {
    /// Whether downloads are forbidden, by the option or by the variable.
    pub fn offline(&self) -> bool {
        self.offline || std::env::var_os("DISTILL_OFFLINE").is_some_and(|value| !value.is_empty() && value != "0")
    }

    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// What `--dtype` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DType {
    Auto,
    F32,
    Bf16,
}

/// Options that choose and change the configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct Configuring {
    /// Named settings; `distill presets` lists them [default: the data set's preset for the device]
    #[arg(long, value_name = "NAME", value_parser = presets(), help_heading = "Configuration")]
    pub preset: Option<String>,
    /// TOML file whose keys replace the preset's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// Replace one key, for example --set unet.channels=96; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Configuration")]
    pub set: Vec<String>,
}

impl Configuring {
    /// The keys of `--set`, parsed.
    pub fn overrides(&self) -> Result<Vec<Override>> {
        self.set.iter().map(|text| Override::parse(text)).collect()
    }
}

/// The names of presets.
pub(super) fn presets() -> ValueParser {
    PossibleValuesParser::new(preset_names()).into()
}

/// Data sets: those with a name, which shells complete, and places of others.
pub(super) fn datasets() -> ValueParser {
    let known = || Dataset::NAMED.iter().map(ToString::to_string).collect();
    Named { parse: |text| text.parse::<Dataset>(), known }.into()
}

/// A parser of values, of which shells complete the `known` names.
#[derive(Clone)]
pub(super) struct Named<T> {
    pub parse: fn(&str) -> Result<T>,
    pub known: fn() -> Vec<String>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Named<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> std::result::Result<T, clap::Error> {
        self.parse.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.known)().into_iter().map(PossibleValue::new)))
    }
}
