//! From options to a configuration, and from a configuration to its run's folder.

use std::path::Path;

use crate::checksums::sha256;
use crate::cli::{Common, Configuring, Training};
use crate::config::{Config, Layers, Override, default_preset};
use crate::data::Dataset;
use crate::error::{AtPath, Error, Result};
use crate::eval::Protocol;
use crate::progress::Console;
use crate::run_dir::RunDir;
use crate::usage;

/// A configuration and the preset that it started from.
pub struct Resolved {
    pub config: Config,
    pub preset: String,
}

/// preset < file < `--set` < flags.
pub fn resolve(
    configuring: &Configuring,
    dataset: Option<&Dataset>,
    flags: &[Override],
    common: &Common,
    console: &Console,
) -> Result<Resolved> {
    let on_gpu = common.device.open()?.is_cuda();
    let preset = match (&configuring.preset, dataset) {
        (Some(name), _) => name.clone(),
        (None, Some(dataset)) => default_preset(dataset, on_gpu).to_string(),
        (None, None) => default_preset(&dataset_of_file(configuring.config.as_deref())?, on_gpu).to_string(),
    };
    let mut layers = Layers::preset(&preset)?;
    if let Some(path) = &configuring.config {
        layers.file(path)?;
    }
    for key in configuring.overrides()?.iter().chain(flags) {
        if key.key == "dataset" {
            usage!("{}: name the data set with --dataset, so that its own preset is taken", key.source);
        }
        layers.set(key)?;
    }
    if let Some(seed) = common.seed {
        layers.set(&Override::new("seed", i64::try_from(seed).unwrap_or(i64::MAX), "--seed"))?;
    }
    let mut config = layers.resolve()?;
    if let Some(dataset) = dataset.filter(|d| d.own_size().is_none() && config.dataset.own_size().is_none()) {
        config.dataset = dataset.clone(); // one preset serves every folder
    }
    if let Some(dataset) = dataset.filter(|d| **d != config.dataset) {
        usage!(
            "--dataset {dataset}: the configuration is for {}; drop --dataset or name another preset",
            config.dataset
        );
    }
    Protocol::named(&config.eval.protocol).map_err(|e| Error::Usage(format!("eval.protocol: {e}")))?;
    if configuring.preset.is_none() {
        let place = if on_gpu { "a GPU" } else { "a CPU" };
        console.info(format!("preset {preset} (for {} on {place}; another with --preset)", config.dataset));
    }
    Ok(Resolved { config, preset })
}

/// The data set that a configuration file names; the built-in one where it names none.
fn dataset_of_file(path: Option<&Path>) -> Result<Dataset> {
    let Some(path) = path else { return Ok(Dataset::Shapes) };
    let text = std::fs::read_to_string(path).at(path)?;
    let table: toml::Table = text.parse().unwrap_or_default(); // `Layers::file` reports what is wrong with it
    match table.get("dataset").and_then(toml::Value::as_str) {
        Some(name) => name.parse(),
        None => Ok(Dataset::Shapes),
    }
}

/// The folder of the run that trains `config`: the same configuration always leads to the same folder.
pub fn run_dir(resolved: &Resolved, training: &Training, common: &Common) -> Result<RunDir> {
    let name = match &training.name {
        Some(name) => {
            check_name("--name", name)?;
            name.clone()
        }
        None => format!("{}-{}", resolved.preset, fingerprint(&resolved.config)),
    };
    Ok(RunDir::new(common.out.join(name)))
}

/// Eight hexadecimal digits that stand for everything that training depends on, but for what may change where a run goes
/// on.
fn fingerprint(config: &Config) -> String {
    let mut table = config.to_table();
    for section in ["sampler", "eval"] {
        table.remove(section);
    }
    for stage in ["vae", "unet"] {
        if let Some(stage) = table.get_mut("train").and_then(|train| train.get_mut(stage)?.as_table_mut()) {
            stage.remove("accumulate");
        }
    }
    sha256(table.to_string().as_bytes())[..8].into()
}

/// Bytes of a name: file systems take up to 255, and results add some words to the name of a set.
const LONGEST: usize = 150;

/// Refuses a name that is no name of one folder; `origin` says where it comes from, mostly "--name".
pub fn check_name(origin: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.contains(['/', '\\']) || name.contains(char::is_control) || name.starts_with('.') {
        usage!(
            "{origin} {name:?}: expected a folder name without /, a leading dot or control characters; choose another \
             --name, and use --out for the place"
        );
    }
    if name.len() > LONGEST {
        usage!("{origin} {name}: has {} bytes, expected at most {LONGEST}; choose a shorter --name", name.len());
    }
    Ok(())
}

/// A name that is too long is cut, and told apart from others by its hash.
pub fn shortened(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let end = (0..LONGEST - 9).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    format!("{}-{}", &name[..end], &sha256(name.as_bytes())[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_keeps_the_name_that_its_settings_give_it() {
        let mut config = Layers::preset("shapes").unwrap().resolve().unwrap();
        assert_eq!(fingerprint(&config), "8ca7e4d3", "runs that have begun would not be found again");
        config.train.unet.accumulate = 4;
        config.sampler.steps = 3;
        assert_eq!(fingerprint(&config), "8ca7e4d3");
        config.train.unet.steps += 1;
        assert_ne!(fingerprint(&config), "8ca7e4d3");
    }
}
