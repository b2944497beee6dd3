//! `distill bench`: time and peak memory of each kind of work, on random data. `--save` writes what the work computes
//! instead, for scripts/bench_vs_torch.sh to compare.

mod sampling;
mod save;
mod works;

pub use works::random_images;

use std::fs;
use std::time::Instant;

use candle_core::Device;
use serde::Serialize;
use serde_json::json;

use super::resolve::resolve;
use super::{print, to_json};
use crate::cli::BenchArgs;
use crate::config::Config;
use crate::environment::Environment;
use crate::error::Result;
use crate::progress::Console;
use crate::{interrupt, usage};
use works::{Kind, Work};

/// One measured piece of work.
#[derive(Serialize)]
struct Measurement {
    work: String,
    /// Images that the network sees at once.
    batch: usize,
    /// The median.
    seconds_per_step: f64,
    images_per_second: f64,
    /// Most memory in use at once, less what was in use before any work (what an earlier work took and the allocator kept
    /// counts, so name one with `--only` for a figure of its own); null on a GPU, and where the system does not tell.
    peak_bytes: Option<u64>,
    environment: Environment,
}

pub fn run(args: &BenchArgs, console: &Console) -> Result<()> {
    let config = resolve(&args.configuring, None, &[], &args.common, console)?.config;
    let device = args.common.device.open()?;
    let kinds = chosen(args, &config)?;
    if args.common.dry_run {
        return dry_run(&kinds, args.common.json);
    }
    if let Some(folder) = &args.save {
        return save::all(folder, &kinds, &config, &device, args.common.json);
    }
    let mut found = Vec::new();
    let idle = resident("VmRSS").unwrap_or(0);
    for kind in &kinds {
        console.info(format!("{} ...", kind.name));
        found.push(measure(kind, args.seconds, idle, &config, &device)?);
    }
    if args.common.json {
        return print(&to_json(&found)?);
    }
    for m in found {
        let peak = m.peak_bytes.map_or("-".into(), |b| format!("{:.0} MiB", b as f64 / 1048576.0));
        let milliseconds = 1000.0 * m.seconds_per_step;
        print(&format!(
            "{:<14} {milliseconds:>8.1} ms/step {:>10.1} images/s {peak:>10}",
            m.work, m.images_per_second
        ))?;
    }
    Ok(())
}

/// The work that `--only` names, in batches of `--batch`.
fn chosen(args: &BenchArgs, config: &Config) -> Result<Vec<Kind>> {
    let kinds = works::kinds(config);
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let wanted = |kind: &Kind| args.only.as_ref().is_none_or(|text| kind.name.contains(text.as_str()));
    let in_batches = |kind: Kind| Kind { batch: args.batch.map_or(kind.batch, |batch| batch as usize), ..kind };
    let chosen: Vec<Kind> = kinds.into_iter().filter(wanted).map(in_batches).collect();
    if chosen.is_empty() {
        usage!(
            "--only {}: no work has such a name; there are {}",
            args.only.as_deref().unwrap_or_default(),
            names.join(", ")
        );
    }
    Ok(chosen)
}

/// Says what would be measured.
fn dry_run(kinds: &[Kind], json: bool) -> Result<()> {
    if json {
        let works: Vec<_> = kinds.iter().map(|kind| json!({ "work": kind.name, "batch": kind.batch })).collect();
        return print(&to_json(&works)?);
    }
    print(&kinds.iter().map(|kind| format!("{} (batch {})", kind.name, kind.batch)).collect::<Vec<_>>().join("\n"))
}

/// A GPU is waited for only as often as this many seconds pass, as in training, which hardly waits for it.
const BETWEEN_WAITS: f64 = 0.2;

/// Repeats the work for about `seconds`, after steps to warm up. `idle`: bytes in use before any work.
fn measure(kind: &Kind, seconds: f64, idle: u64, config: &Config, device: &Device) -> Result<Measurement> {
    let Work { mut step, images, .. } = (kind.build)(config, kind.batch, device)?;
    reset_peak();
    let mut next = 0;
    // The mean time of `steps` steps, to the end of the device's work.
    let mut timed = |steps: u32| {
        interrupt::check()?;
        let before = Instant::now();
        for _ in 0..steps {
            step(next)?;
            next += 1;
        }
        device.synchronize()?;
        Result::Ok(before.elapsed().as_secs_f64() / f64::from(steps))
    };
    timed(1)?;
    let steps = if device.is_cpu() { 1 } else { (BETWEEN_WAITS / timed(1)?).clamp(1.0, 32.0) as u32 };
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || start.elapsed().as_secs_f64() < seconds {
        times.push(timed(steps)?);
    }
    let seconds_per_step = median(times);
    Ok(Measurement {
        work: kind.name.into(),
        batch: kind.batch,
        seconds_per_step,
        images_per_second: images as f64 / seconds_per_step,
        peak_bytes: resident("VmHWM").filter(|_| device.is_cpu()).map(|peak| peak.saturating_sub(idle)),
        environment: Environment::of(device),
    })
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

/// Starts a new high-water mark of resident memory (Linux; elsewhere nothing happens).
fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// A size in bytes of /proc/self/status.
fn resident(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
