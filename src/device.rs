//! The device that everything runs on, chosen in this one place.

use std::str::FromStr;

use candle_core::Device;

use crate::error::{Error, Result};
use crate::usage;

/// What `--device` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => match number(text) {
                Some(ordinal) => Ok(DeviceChoice::Cuda(ordinal)),
                None => usage!("expected auto, cpu or cuda:N"),
            },
        }
    }
}

impl DeviceChoice {
    /// Opens the device. The ops have CPU kernels only so far, so a GPU is refused by name and never picked.
    pub fn open(self) -> Result<Device> {
        match self {
            DeviceChoice::Auto | DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Cuda(ordinal) => {
                usage!("--device cuda:{ordinal}: this program was built without CUDA; use --device cpu")
            }
        }
    }
}

/// "cpu (2 threads)", for reports.
pub fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => format!("cpu ({} threads)", rayon::current_num_threads()),
        other => format!("{:?}", other.location()),
    }
}
