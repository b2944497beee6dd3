//! Merging a preset, a file and single keys into one [`Config`], with errors that name the layer at fault.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::{Config, Preset};
use crate::error::{AtPath, Error, Result};
use crate::usage;

/// One key that replaces the layers below, and the option that it came from ("--guidance", "--set").
#[derive(Clone, Debug)]
pub struct Override {
    pub key: String,
    pub value: Value,
    pub source: String,
}

impl Override {
    pub fn new(key: &str, value: impl Into<Value>, source: &str) -> Self {
        Override { key: key.into(), value: value.into(), source: source.into() }
    }

    /// Parses `--set key=value`; the value is TOML, or a plain word.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((key, value)) = text.split_once('=') else {
            usage!("--set {text}: expected KEY=VALUE, for example --set unet.channels=96");
        };
        let word = || Value::String(value.trim().to_string());
        let value = match format!("v = {value}").parse::<Table>() {
            Ok(mut table) => table.remove("v").unwrap_or_else(word),
            Err(_) => word(),
        };
        Ok(Override { key: key.trim().to_string(), value, source: format!("--set {text}") })
    }
}

/// The layers of one configuration, lowest first.
pub struct Layers {
    base: Table,
    /// Where the lowest layer is from, for messages.
    source: String,
    /// (key, where it is from) of every key above the lowest layer, in the order of setting.
    set: Vec<(String, String)>,
}

impl Layers {
    pub fn preset(name: &str) -> Result<Self> {
        Self::parse(Preset::named(name)?.toml, &format!("preset {name}"))
    }

    /// The configuration that an earlier command wrote; keys that an earlier version did not know have their defaults.
    pub fn written(path: &Path) -> Result<Self> {
        let layers = Self::parse(&fs::read_to_string(path).at(path)?, &path.display().to_string())?;
        let base = typed(&layers.base).map_or(layers.base, |config| config.to_table()); // what is wrong, resolve() says
        Ok(Layers { base, ..layers })
    }

    fn parse(text: &str, source: &str) -> Result<Self> {
        Ok(Layers { base: table(text, source)?, source: source.into(), set: Vec::new() })
    }

    /// Lays the keys of a user's file on top; it may hold any part of the configuration.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let source = path.display().to_string();
        let text = fs::read_to_string(path).at(path)?;
        for (key, value) in flatten(&table(&text, &source)?) {
            self.set(&Override { key, value, source: source.clone() })?;
        }
        Ok(())
    }

    /// Lays one key on top.
    pub fn set(&mut self, key: &Override) -> Result<()> {
        let known = flatten(&self.base);
        let inside = format!("{}.", key.key);
        if let Some(example) = known.keys().find(|known| known.starts_with(&inside)) {
            usage!("{}: `{}` is a section; set its keys, for example `{example}`", key.source, key.key);
        }
        if !known.contains_key(&key.key) {
            let nearest = crate::nearest::nearest(&key.key, known.keys().map(String::as_str));
            usage!(
                "{}: there is no key `{}`{}",
                key.source,
                key.key,
                nearest.map_or(String::new(), |n| format!("; did you mean `{n}`?"))
            );
        }
        let mut table = &mut self.base;
        let mut parts: Vec<&str> = key.key.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            match table.get_mut(part) {
                Some(Value::Table(inner)) => table = inner,
                _ => usage!("{}: `{part}` is not a section", key.source),
            }
        }
        table.insert(last.to_string(), key.value.clone());
        typed(&self.base).map_err(|problem| Error::Usage(format!("{}: {problem}", key.source)))?;
        self.set.push((key.key.clone(), key.source.clone()));
        Ok(())
    }

    /// The typed, checked configuration.
    pub fn resolve(&self) -> Result<Config> {
        let config = typed(&self.base).map_err(|problem| Error::Usage(format!("{}: {problem}", self.source)))?;
        config.check().map_err(|error| match error {
            Error::Usage(problem) => Error::Usage(format!("{}: {problem}", self.at_fault(&problem))),
            other => other,
        })?;
        Ok(config)
    }

    /// Where the key is from that a problem speaks of: the last one that was set, else the lowest layer.
    fn at_fault(&self, problem: &str) -> &str {
        let named = self.set.iter().rev().find(|(key, _)| problem.contains(key.as_str()));
        named.map_or(&self.source, |(_, source)| source)
    }
}

/// The TOML document `text`; `source` is for messages.
pub(super) fn table(text: &str, source: &str) -> Result<Table> {
    text.parse().map_err(|e: toml::de::Error| Error::Usage(format!("{source}: is not valid TOML: {}", one_line(&e))))
}

fn typed(table: &Table) -> std::result::Result<Config, String> {
    table.clone().try_into().map_err(|e: toml::de::Error| one_line(&e))
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}

/// All leaves of a table by dotted key.
pub(super) fn flatten(table: &Table) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                out.extend(flatten(inner).into_iter().map(|(k, v)| (format!("{key}.{k}"), v)));
            }
            other => {
                out.insert(key.clone(), other.clone());
            }
        }
    }
    out
}
