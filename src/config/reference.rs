//! The reference of the configuration, made of the types themselves: their comments are its text.

use std::fmt::Write;

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;

use super::{Config, Preset, layers, limits};
use crate::error::Result;

/// One key of the configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Key {
    /// With dots, as `--set` takes it: "unet.channels".
    pub key: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// What a number may be, in words; null for other types and where other keys decide.
    pub range: Option<String>,
    pub text: String,
    /// (preset, its value as TOML).
    pub presets: Vec<(&'static str, String)>,
}

/// Every key, section by section.
pub fn keys() -> Result<Vec<Key>> {
    let mut found = Vec::new();
    collect(&schema(), "", &mut found);
    for preset in Preset::all() {
        let values = layers::flatten(&preset.table()?);
        for key in &mut found {
            key.presets.extend(values.get(&key.key).map(|value| (preset.name, value.to_string())));
        }
    }
    Ok(found)
}

/// The reference as a Markdown document.
pub fn markdown() -> Result<String> {
    let mut out = String::from(HEAD);
    let (schema, mut section) = (schema(), None);
    for key in keys()? {
        let here = key.key.rsplit_once('.').map_or("", |(section, _)| section);
        if section.as_deref() != Some(here) {
            let title = if here.is_empty() { "Top level".into() } else { format!("`[{here}]`") };
            let text = about(&schema, here);
            let _ = write!(out, "\n## {title}\n\n{text}\n\n{COLUMNS}"); // a String never refuses
            section = Some(here.to_string());
        }
        let kind = key.range.as_ref().map_or(key.kind.clone(), |range| format!("{}, {range}", key.kind));
        let _ = writeln!(out, "| `{}` | {kind} | {} | {} |", key.key, key.text, values(&key));
    }
    Ok(out)
}

const HEAD: &str = "# Configuration\n
Every key that decides a run's result. A preset holds all of them; `--config FILE` replaces some, `--set KEY=VALUE`
replaces one, and options such as `--seed` or `--guidance` stand above both. Unknown keys are refused. `distill train
--dry-run` prints what holds in the end, and a run keeps it in its config.toml.\n
This page is what `distill presets --keys` prints.\n";

const COLUMNS: &str = "| key | type | meaning | in the presets |\n| --- | --- | --- | --- |\n";

/// The schema of [`Config`], everything in place.
fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().into()
}

/// Appends the keys of a section and of the sections inside it.
fn collect(section: &Value, prefix: &str, out: &mut Vec<Key>) {
    for (name, schema) in section["properties"].as_object().into_iter().flatten() {
        let key = format!("{prefix}{name}");
        if !schema["properties"].is_object() {
            let (kind, text, range) = (kind(schema), description(schema), limits::range(&key));
            out.push(Key { key, kind, range, text, presets: Vec::new() });
        }
    }
    for (name, schema) in section["properties"].as_object().into_iter().flatten() {
        collect(schema, &format!("{prefix}{name}."), out);
    }
}

/// The comment on a section's type.
fn about(schema: &Value, section: &str) -> String {
    let place = section.split('.').filter(|part| !part.is_empty());
    description(place.fold(schema, |schema, part| &schema["properties"][part]))
}

/// A comment on one line; of an enumeration the words' own comments follow.
fn description(schema: &Value) -> String {
    let line = |schema: &Value| {
        schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let words = schema["oneOf"].as_array().into_iter().flatten();
    let words = words.map(|word| format!(" `{}`: {}", word["const"].as_str().unwrap_or_default(), line(word)));
    words.fold(line(schema), |text, word| text + &word).replace('|', "\\|")
}

fn kind(schema: &Value) -> String {
    match (schema["type"].as_str(), schema["oneOf"].as_array()) {
        (_, Some(words)) => words
            .iter()
            .filter_map(|word| word["const"].as_str())
            .map(|w| format!("`\"{w}\"`"))
            .collect::<Vec<_>>()
            .join(" or "),
        (Some("array"), _) if schema["prefixItems"].is_array() => "pair".into(),
        (Some("array"), _) => format!("list of {}s", kind(&schema["items"])),
        (Some("boolean"), _) => "true or false".into(),
        (Some(name), _) => name.into(),
        (None, None) => match schema["anyOf"].as_array() {
            Some(kinds) => kinds.iter().map(kind).collect::<Vec<_>>().join(", or "),
            None => "value".into(),
        },
    }
}

/// The presets' values, each with the presets that have it where they differ.
fn values(key: &Key) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (preset, value) in &key.presets {
        match groups.iter_mut().find(|(known, _)| known == value) {
            Some((_, presets)) => presets.push(preset),
            None => groups.push((value, vec![preset])),
        }
    }
    match &groups[..] {
        [(value, _)] => format!("`{value}`"),
        _ => groups
            .iter()
            .map(|(value, presets)| format!("`{value}` {}", presets.join(", ")))
            .collect::<Vec<_>>()
            .join("; "),
    }
}
