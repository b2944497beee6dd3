//! What a result was computed with. It stands in every artefact that may differ from machine to machine.

use std::fs;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::device;
use crate::ops::cpu::isa::{self, Isa};

/// The program and the machine behind a result. Nothing in it differs between two equal commands on one machine: no
/// times, no host names, no paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The version of `distill`.
    pub version: String,
    /// The commit that it was built from, with "+" if the source had changed since; null if that is not known.
    pub commit: Option<String>,
    /// For example "linux x86_64".
    pub system: String,
    /// The processor's name, where the system tells.
    pub processor: Option<String>,
    /// The instruction sets that the program's kernels use here.
    pub instructions: Vec<String>,
    /// Threads of the kernels.
    pub threads: usize,
    pub device: String,
    /// What the networks compute in: "f32" or "bf16".
    pub dtype: String,
    /// The kernels: "portable", "avx512", "avx512-bf16" or "amx" of the CPU, or "cuda".
    #[serde(default)]
    pub kernels: String,
}

impl Environment {
    /// That of work on `device` with the kernels chosen now.
    pub fn of(device: &Device) -> Self {
        Environment {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit().map(str::to_string),
            system: system(),
            processor: processor(),
            instructions: instructions().into_iter().map(str::to_string).collect(),
            threads: rayon::current_num_threads(),
            device: device::describe(device),
            dtype: device::precision(device).to_string(),
            kernels: if device.is_cpu() { isa::current().as_str().into() } else { "cuda".into() },
        }
    }
}

/// What `distill --version` prints.
pub fn long_version() -> String {
    format!(
        "{}\ncommit: {}\nsystem: {}\nprocessor: {}\ninstruction sets: {}",
        env!("CARGO_PKG_VERSION"),
        commit().unwrap_or("not known"),
        system(),
        processor().as_deref().unwrap_or("not known"),
        instructions().join(" "),
    )
}

/// Set by build.rs.
fn commit() -> Option<&'static str> {
    option_env!("DISTILL_COMMIT")
}

fn system() -> String {
    format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn instructions() -> Vec<&'static str> {
    let mut known = vec![("amx-bf16", Isa::Amx.available()), ("avx512-bf16", Isa::Avx512Bf16.available())];
    #[cfg(target_arch = "x86_64")]
    known.extend([
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
    ]);
    #[cfg(target_arch = "aarch64")]
    known.push(("neon", std::arch::is_aarch64_feature_detected!("neon")));
    known.into_iter().filter(|(_, here)| *here).map(|(name, _)| name).collect()
}
