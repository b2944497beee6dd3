//! `distill check`: whether a device computes what it should. Every op and its gradients, the optimizers, and ten steps
//! of each network, in every precision; on the CPU with every set of kernels.

mod draws;
mod layers;
mod networks;
mod ops;
mod optimizers;

use std::fmt;

use candle_core::Device;
use serde::Serialize;

use super::{forced, print, to_json};
use crate::cli::{CheckArgs, DType};
use crate::device;
use crate::environment::Environment;
use crate::error::Result;
use crate::ops::check::Finding;
use crate::ops::cpu::isa::{self, Isa, Precision};
use crate::progress::Console;
use crate::{fail, interrupt, usage};

/// What a check compares, at most: parts of the largest values beside the errors.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// In f32 on the CPU, and on a GPU where nothing is multiplied by matrices.
    f32: f64,
    /// In f32 on a GPU, whose products round their operands to TF32: eleven bits.
    tf32: f64,
    bf16: f64,
}

/// Of single ops.
const OF_OPS: Allowed = Allowed { f32: 1e-5, tf32: 3e-3, bf16: 3e-2 };
/// Of what must be the same bits: the number of elements that differ.
const NONE: Allowed = Allowed { f32: 0.0, tf32: 0.0, bf16: 0.0 };

/// Compares what a device computes, with the kernels chosen before.
type Comparison = dyn Fn(&Device) -> Result<Vec<Finding>>;

/// One thing that is checked, with each of the device's sets of kernels.
struct Check {
    /// The op or network, and what is special about it.
    name: String,
    /// Of its inputs.
    shapes: String,
    allowed: Allowed,
    run: Box<Comparison>,
}

/// The kernels of a check.
#[derive(Clone, Copy, Debug)]
enum Kernels {
    Cpu(Isa),
    Gpu(Precision),
}

/// A line of the table.
#[derive(Serialize)]
struct Line {
    name: String,
    shapes: String,
    dtype: String,
    kernels: &'static str,
    /// The largest error, as a part of the largest value beside it; null where that is not a number or nothing was
    /// compared.
    error: Option<f64>,
    allowed: f64,
    /// "ok" or "FAILED".
    outcome: &'static str,
    /// What is wrong.
    reason: Option<String>,
}

#[derive(Serialize)]
struct Report {
    environment: Environment,
    passed: usize,
    failed: usize,
    checks: Vec<Line>,
}

pub fn run(args: &CheckArgs, console: &Console) -> Result<()> {
    let device = args.common.device.open()?;
    let checks = chosen(args)?;
    if args.common.dry_run {
        return print(&checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>().join("\n"));
    }
    console.info(format!("checking {} ...", device::describe(&device)));
    let environment = Environment::of(&device);
    let mut lines = Vec::new();
    for kernels in kernels(&device, args.common.dtype)? {
        for check in &checks {
            interrupt::check()?;
            let line = kernels.with(|| check.line(&device, kernels));
            if !args.common.json {
                print(&line.to_string())?;
            }
            lines.push(line);
        }
    }
    let count = |outcome| lines.iter().filter(|line| line.outcome == outcome).count();
    let (passed, failed) = (count("ok"), count("FAILED"));
    let all = lines.len();
    if args.common.json {
        print(&to_json(&Report { environment, passed, failed, checks: lines })?)?;
    } else {
        print(&format!("{passed} checks passed, {failed} failed"))?;
    }
    if failed > 0 {
        fail!(
            "{failed} of {all} checks failed on {}: its results cannot be trusted; update its driver and libraries \
             (docs/cuda.md), or use --device cpu",
            device::describe(&device)
        );
    }
    Ok(())
}

/// The checks that `--only` names.
fn chosen(args: &CheckArgs) -> Result<Vec<Check>> {
    let mut all = ops::checks()?;
    all.extend(layers::checks()?);
    all.extend(optimizers::checks());
    all.extend(networks::checks());
    all.extend(draws::checks());
    let Some(text) = &args.only else { return Ok(all) };
    let mut names: Vec<String> = all.iter().map(|check| check.name.clone()).collect();
    names.dedup();
    all.retain(|check| check.name.contains(text.as_str()));
    if all.is_empty() {
        usage!("--only {text}: no check has such a name; there are: {}", names.join("; "));
    }
    Ok(all)
}

/// The sets of kernels that a device has, or that the environment names, of the precision that `--dtype` names.
fn kernels(device: &Device, dtype: DType) -> Result<Vec<Kernels>> {
    let all: Vec<Kernels> = if device.is_cpu() {
        let wanted = forced()?;
        let here = Isa::ALL.into_iter().filter(|isa| isa.available() && wanted.is_none_or(|wanted| wanted == *isa));
        here.map(Kernels::Cpu).collect()
    } else {
        [Precision::F32, Precision::Bf16].map(Kernels::Gpu).into()
    };
    let of_type = |kernels: &Kernels| match dtype {
        DType::Auto => true,
        DType::F32 => kernels.precision() == Precision::F32,
        DType::Bf16 => kernels.precision() == Precision::Bf16,
    };
    Ok(all.into_iter().filter(of_type).collect())
}

/// With the CPU's portable kernels, with which others are compared.
fn on_portable_cpu<T>(work: impl FnOnce(&Device) -> T) -> T {
    isa::with(Isa::Portable, || work(&Device::Cpu))
}

impl Kernels {
    fn precision(self) -> Precision {
        match self {
            Kernels::Cpu(isa) => isa.precision(),
            Kernels::Gpu(precision) => precision,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Kernels::Cpu(isa) => isa.as_str(),
            Kernels::Gpu(_) => "cuda",
        }
    }

    /// Chooses them for `work`.
    fn with<T>(self, work: impl FnOnce() -> T) -> T {
        match self {
            Kernels::Cpu(isa) => isa::with(isa, work),
            Kernels::Gpu(precision) => {
                device::set_gpu_precision(precision);
                work()
            }
        }
    }
}

impl Allowed {
    fn of(self, kernels: Kernels) -> f64 {
        match kernels {
            Kernels::Cpu(isa) if isa.precision() == Precision::F32 => self.f32,
            Kernels::Gpu(Precision::F32) => self.tf32,
            _ => self.bf16,
        }
    }
}

impl Check {
    /// Runs it with `kernels`, which are chosen already.
    fn line(&self, device: &Device, kernels: Kernels) -> Line {
        let allowed = self.allowed.of(kernels);
        let mut line = Line {
            name: self.name.clone(),
            shapes: self.shapes.clone(),
            dtype: kernels.precision().to_string(),
            kernels: kernels.as_str(),
            error: None,
            allowed,
            outcome: "FAILED",
            reason: None,
        };
        match (self.run)(device) {
            Ok(findings) => line.judge(&findings),
            Err(error) => line.reason = Some(error.to_string()),
        }
        line
    }
}

impl Line {
    /// Takes the worst of `findings`.
    fn judge(&mut self, findings: &[Finding]) {
        let Some(worst) = findings.iter().max_by(|a, b| a.error.total_cmp(&b.error)) else {
            self.reason = Some("nothing was compared".into());
            return;
        };
        self.error = Some(worst.error).filter(|error| error.is_finite());
        if worst.error <= self.allowed {
            self.outcome = "ok";
        } else {
            let Finding { of, found, expected, place, .. } = worst;
            self.reason = Some(format!("{of}: element {place} is {found}, expected {expected}"));
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { name, shapes, dtype, kernels, allowed, outcome, .. } = self;
        let error = self.error.map_or("-".into(), |error| format!("{error:.1e}"));
        write!(f, "{name:<38} {shapes:<44} {dtype:<4} {kernels:<12} {error:>8} {allowed:>8.0e}  {outcome}")?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(error: f64) -> &'static str {
        let finding = Finding { of: "output".into(), error, found: 0.0, expected: 0.0, place: 0 };
        let run = Box::new(move |_: &Device| Ok(vec![finding.clone()]));
        let check = Check { name: "op".into(), shapes: "1".into(), allowed: OF_OPS, run };
        check.line(&Device::Cpu, Kernels::Cpu(Isa::Portable)).outcome
    }

    #[test]
    fn an_error_above_what_is_allowed_fails() {
        assert_eq!([0.0, 1e-5, 1.1e-5, f64::INFINITY].map(outcome), ["ok", "ok", "FAILED", "FAILED"]);
    }

    #[test]
    fn a_check_that_cannot_run_or_compares_nothing_fails() {
        for found in [Ok(Vec::new()), Err("no such kernel")] {
            let run = Box::new(move |_: &Device| match &found {
                Ok(findings) => Ok(findings.clone()),
                Err(problem) => fail!("{problem}"),
            });
            let check = Check { name: "op".into(), shapes: "1".into(), allowed: NONE, run };
            assert_eq!(check.line(&Device::Cpu, Kernels::Cpu(Isa::Portable)).outcome, "FAILED");
        }
    }
}
