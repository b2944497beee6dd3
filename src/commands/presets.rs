//! `distill presets`: the named configurations, and what every key means.

use serde::Serialize;

use super::{print, to_json};
use crate::cli::PresetsArgs;
use crate::config::{self, Preset};
use crate::error::Result;

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    dataset: String,
    /// "cpu", "gpu" or "any".
    device: &'static str,
    about: &'static str,
    /// Of a preset that was asked for by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<toml::Table>,
}

pub fn run(args: &PresetsArgs) -> Result<()> {
    match &args.name {
        _ if args.keys && args.json => print(&to_json(&config::keys()?)?),
        _ if args.keys => print(config::markdown()?.trim_end()),
        Some(name) if args.json => print(&to_json(&listed(Preset::named(name)?, true)?)?),
        Some(name) => print(Preset::named(name)?.toml.trim_end()),
        None => list(args.json),
    }
}

fn list(json: bool) -> Result<()> {
    let presets = Preset::all().map(|preset| listed(preset, false)).collect::<Result<Vec<_>>>()?;
    if json {
        return print(&to_json(&presets)?);
    }
    let mut table = format!("{:<18} {:<14} {:<6} {}", "preset", "data set", "device", "what it is");
    for Listed { name, dataset, device, about, .. } in presets {
        table += &format!("\n{name:<18} {dataset:<14} {device:<6} {about}");
    }
    print(&table)
}

fn listed(preset: Preset, with_config: bool) -> Result<Listed> {
    let Preset { name, .. } = preset;
    let config = preset.table()?;
    let dataset = config.get("dataset").and_then(toml::Value::as_str).unwrap_or_default().to_string();
    let (device, about) = (preset.device(), preset.about());
    Ok(Listed { name, dataset, device, about, config: with_config.then_some(config) })
}
