//! `distill eval`: students trained on a set, tested on real images.

mod compare;
mod judge;
mod labelling;
mod selected;
mod subject;
mod table;

use std::path::PathBuf;

use serde_json::json;

use super::{print, to_json};
use crate::cli::EvalArgs;
use crate::error::Result;
use crate::eval::{Evaluation, StudentKind};
use crate::progress::{Console, duration};
use crate::run_dir::RunDir;

pub use judge::Judge;
pub use subject::{Source, Subject, run_of, stem_of};

/// Images per class of a baseline where `--ipc` does not say otherwise.
const DEFAULT_IPC: u32 = 10;

pub fn run(args: &EvalArgs, console: &Console) -> Result<()> {
    if args.compare {
        return compare::run(args, console);
    }
    let subject = Subject::of(args)?;
    let judge = Judge::of(args, &subject.config.eval.protocol)?;
    let students = args.judging.students();
    if args.common.dry_run {
        return dry_run(args, &subject, &judge, &students);
    }
    log_to_run(&subject, console)?;
    let material = judge.load(&subject, console)?;
    let judged = |&student: &StudentKind| judge.judge(&subject, student, &material, console);
    let results = students.iter().map(judged).collect::<Result<Vec<_>>>()?;
    match (&results[..], args.common.json) {
        ([only], true) => print(&to_json(only)?),
        (_, true) => print(&to_json(&results)?),
        _ => results.iter().try_for_each(|result| print(&sentence(result))),
    }
}

fn dry_run(args: &EvalArgs, subject: &Subject, judge: &Judge, students: &[StudentKind]) -> Result<()> {
    let protocol = &judge.protocol;
    let outputs: Vec<PathBuf> = students.iter().map(|&s| judge.output(subject, s).join("eval.json")).collect();
    if args.common.json {
        let dataset = &subject.config.dataset;
        return print(&to_json(
            &json!({ "on": subject.name(), "dataset": dataset, "protocol": protocol, "outputs": outputs }),
        )?);
    }
    print(&format!(
        "{} on {} ({}), protocol:\n{}\nwrites {}",
        students.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        subject.name(),
        subject.config.dataset,
        to_json(protocol)?,
        outputs.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    ))
}

/// Has the log of the run that the results go to hear what is said.
fn log_to_run(subject: &Subject, console: &Console) -> Result<()> {
    match subject.folder.parent().map(RunDir::new).filter(|run| run.config().is_file()) {
        Some(run) => console.log_to(&run.log()),
        None => Ok(()),
    }
}

/// The result in one line.
pub fn sentence(result: &Evaluation) -> String {
    let spread = result.accuracy_std.map_or(String::new(), |std| format!(" +- {std:.2}"));
    let ipc = result.ipc.map_or(String::new(), |ipc| format!(", {ipc} images a class"));
    format!(
        "{} on {}{ipc}: {:.2}{spread} % on {} {} (protocol {}, runs: {}, {}, {})",
        result.student,
        result.on,
        result.accuracy_mean,
        result.dataset,
        result.split,
        result.protocol,
        result.runs.len(),
        result.environment.dtype,
        duration(result.seconds)
    )
}
