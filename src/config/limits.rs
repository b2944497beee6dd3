//! What each number of a configuration may be: checked before anything runs, and printed in the reference.

use toml::Value;

use super::{Config, layers};
use crate::error::Result;
use crate::usage;

/// More than nothing.
const POSITIVE: f64 = f64::MIN_POSITIVE;
const ANY: f64 = f64::INFINITY;

/// (key, least, most) of a number, or of each entry of a list. The largest sizes are such that no machine could hold
/// more.
const RANGES: [(&str, f64, f64); 32] = [
    ("image_size", 1.0, 1024.0),
    ("vae.channels", 1.0, 4096.0),
    ("vae.blocks", 1.0, 16.0),
    ("vae.latent_channels", 1.0, 256.0),
    ("unet.channels", 1.0, 4096.0),
    ("unet.channel_mult", 1.0, 64.0),
    ("unet.blocks", 1.0, 16.0),
    ("diffusion.steps", 1.0, 1048576.0),
    ("diffusion.min_snr_gamma", POSITIVE, ANY),
    ("diffusion.class_dropout", 0.0, 1.0),
    ("train.kl_weight", 0.0, 1e6),
    ("train.vae.steps", 1.0, 2147483648.0),
    ("train.vae.batch_size", 1.0, 65536.0),
    ("train.vae.accumulate", 1.0, 65536.0),
    ("train.vae.learning_rate", POSITIVE, 1.0),
    ("train.vae.weight_decay", 0.0, 1e3),
    ("train.vae.clip_norm", POSITIVE, ANY),
    ("train.vae.ema_decay", 0.0, 1.0),
    ("train.unet.steps", 1.0, 2147483648.0),
    ("train.unet.batch_size", 1.0, 65536.0),
    ("train.unet.accumulate", 1.0, 65536.0),
    ("train.unet.learning_rate", POSITIVE, 1.0),
    ("train.unet.weight_decay", 0.0, 1e3),
    ("train.unet.clip_norm", POSITIVE, ANY),
    ("train.unet.ema_decay", 0.0, 1.0),
    ("sampler.steps", 1.0, 1048576.0),
    ("sampler.eta", 0.0, 1.0),
    ("sampler.pool", 0.0, 1048576.0),
    ("sampler.batch_size", 1.0, 65536.0),
    ("vae.groups", 1.0, 4096.0),
    ("unet.groups", 1.0, 4096.0),
    ("unet.head_dim", 1.0, 4096.0),
];

/// (key, most entries) of lists that must not be empty.
const LENGTHS: [(&str, usize); 2] = [("vae.channels", 8), ("unet.channel_mult", 8)];

/// Refuses numbers and lists outside their range, each by itself.
pub(super) fn check(config: &Config) -> Result<()> {
    let values = layers::flatten(&config.to_table());
    for (key, most) in LENGTHS {
        let entries = values.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        if !(1..=most).contains(&entries) {
            usage!("{key} has {entries} entries; expected from 1 to {most}");
        }
    }
    for (key, low, high) in RANGES {
        let outside = numbers(values.get(key)).into_iter().find(|number| !(low..=high).contains(number));
        if let Some(number) = outside {
            usage!("{key} is {number}; expected {}", words(low, high));
        }
    }
    Ok(())
}

/// The range of a key in words: "from 1 to 16".
pub(super) fn range(key: &str) -> Option<String> {
    let (_, low, high) = RANGES.iter().find(|(known, ..)| *known == key)?;
    let length = LENGTHS.iter().find(|(known, _)| *known == key);
    Some(match length {
        Some((_, most)) => format!("1 to {most} entries, each {}", words(*low, *high)),
        None => words(*low, *high),
    })
}

fn words(low: f64, high: f64) -> String {
    match (low == POSITIVE, high == ANY) {
        (true, true) => "more than 0".into(),
        (true, false) => format!("more than 0, at most {high}"),
        _ => format!("from {low} to {high}"),
    }
}

fn numbers(value: Option<&Value>) -> Vec<f64> {
    match value {
        Some(Value::Integer(number)) => vec![*number as f64],
        Some(Value::Float(number)) => vec![*number],
        Some(Value::Array(entries)) => entries.iter().flat_map(|entry| numbers(Some(entry))).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, preset_names};

    /// A misspelt key would check nothing.
    #[test]
    fn every_limit_is_that_of_a_number() {
        for preset in preset_names() {
            let values = layers::flatten(&Layers::preset(preset).unwrap().resolve().unwrap().to_table());
            for (key, ..) in RANGES {
                assert!(!numbers(values.get(key)).is_empty(), "{key} in {preset}");
            }
            assert!(LENGTHS.iter().all(|(key, _)| values[*key].is_array()));
        }
    }
}
