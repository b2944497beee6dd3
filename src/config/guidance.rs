//! The scale of guidance: one number, or one for each number of images a class. Few images must show their class plainly,
//! many may differ.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::usage;

/// The largest scale that is taken.
const MOST: f64 = 100.0;

/// Scales of classifier-free guidance by images a class, the fewest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Guidance(Vec<(u32, f64)>);

/// How it stands in a file.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, or pairs of images a class and scale such as [[1, 6.0], [10, 3.0]]")]
pub(super) enum Written {
    Always(f64),
    ByImages(Vec<(u32, f64)>),
}

impl From<f64> for Guidance {
    fn from(scale: f64) -> Self {
        Guidance(vec![(1, scale)])
    }
}

impl From<Written> for Guidance {
    fn from(written: Written) -> Self {
        match written {
            Written::Always(scale) => scale.into(),
            Written::ByImages(scales) => Guidance(scales),
        }
    }
}

impl From<Guidance> for Written {
    fn from(guidance: Guidance) -> Self {
        match guidance.0[..] {
            [(1, scale)] => Written::Always(scale),
            _ => Written::ByImages(guidance.0),
        }
    }
}

impl Guidance {
    /// The scale for `ipc` images a class: that of the largest number which is not above it.
    pub fn at(&self, ipc: u32) -> f64 {
        self.0.iter().rev().find(|(from, _)| *from <= ipc).map_or(1.0, |(_, scale)| *scale)
    }

    /// Whether any scale needs the UNet's second branch, the one without a class.
    pub fn needs_both_branches(&self) -> bool {
        self.0.iter().any(|(_, scale)| *scale != 1.0)
    }

    /// Refuses scales outside [0, 100], and numbers of images that do not rise from 1 on.
    pub(super) fn check(&self) -> Result<()> {
        if let Some((_, scale)) = self.0.iter().find(|(_, scale)| !(0.0..=MOST).contains(scale)) {
            usage!("sampler.guidance is {scale}; expected from 0 to {MOST}");
        }
        let from: Vec<u32> = self.0.iter().map(|(from, _)| *from).collect();
        if from.first() != Some(&1) || !from.is_sorted_by(|a, b| a < b) {
            usage!(
                "sampler.guidance: expected images a class that rise from 1 on, as in [[1, 6.0], [10, 3.0]], found {from:?}"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Guidance {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        if let [(_, scale)] = self.0[..] {
            return write!(out, "{scale}");
        }
        let words: Vec<String> = self.0.iter().map(|(from, scale)| format!("{scale} from {from}")).collect();
        write!(out, "{} images a class on", words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &str) -> std::result::Result<Guidance, toml::de::Error> {
        let table: toml::Table = format!("v = {value}").parse()?;
        table["v"].clone().try_into()
    }

    #[test]
    fn the_number_of_images_decides() {
        let guidance = written("[[1, 6], [10, 3.0], [50, 1.5]]").unwrap();
        guidance.check().unwrap();
        assert_eq!([1, 9, 10, 49, 50, u32::MAX].map(|ipc| guidance.at(ipc)), [6.0, 6.0, 3.0, 3.0, 1.5, 1.5]);
        assert_eq!(guidance.to_string(), "6 from 1, 3 from 10, 1.5 from 50 images a class on");
        let again = toml::Value::try_from(&guidance).unwrap();
        assert_eq!(again.try_into::<Guidance>().unwrap(), guidance);
    }

    #[test]
    fn a_number_holds_for_any() {
        let guidance = written("2").unwrap();
        assert_eq!([guidance.at(1), guidance.at(1000)], [2.0, 2.0]);
        assert_eq!((toml::Value::try_from(&guidance).unwrap(), guidance.to_string()), (2.0.into(), "2".into()));
        assert!(guidance.needs_both_branches() && !written("1.0").unwrap().needs_both_branches());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for value in ["\"x\"", "[1, 2]", "[[-1, 2.0]]", "[[1, 2.0, 3.0]]"] {
            assert!(written(value).unwrap_err().to_string().contains("expected a number, or pairs"), "{value}");
        }
        for value in ["[]", "[[2, 3.0]]", "[[1, 3.0], [1, 2.0]]", "[[1, 3.0], [10, 2.0], [5, 1.0]]"] {
            assert!(written(value).unwrap().check().unwrap_err().to_string().contains("rise from 1 on"), "{value}");
        }
        for value in ["-1", "101", "nan", "[[1, 6.0], [10, inf]]"] {
            assert!(written(value).unwrap().check().unwrap_err().to_string().contains("from 0 to 100"), "{value}");
        }
    }
}
