//! `distill eval --compare`: a distilled set beside real images, all under one protocol, in one table.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::judge::Judge;
use super::selected::Selection;
use super::subject::{Source, Subject, reconstructing, run_of, teacher_of};
use super::{DEFAULT_IPC, log_to_run, table};
use crate::cli::{EvalArgs, RowKind};
use crate::commands::{print, to_json};
use crate::config::Layers;
use crate::distilled;
use crate::error::{Error, Result};
use crate::eval::{Evaluation, StudentKind};
use crate::fs::{make_folder, write_atomic};
use crate::progress::Console;
use crate::run_dir::distilled_sets;
use crate::usage;

/// The protocol of the row `real`.
const REAL: &str = "steps";
/// The rows in the table's order; `real` is judged only if it is asked for.
const ROWS: [RowKind; 7] = [
    RowKind::RandomReal,
    RowKind::KCenter,
    RowKind::Herding,
    RowKind::Mix,
    RowKind::Reconstructed,
    RowKind::Distilled,
    RowKind::Real,
];

/// The comparison: what its JSON file holds.
#[derive(Serialize)]
pub struct Comparison {
    pub dataset: String,
    /// Images a class of every row but `real`.
    pub ipc: u32,
    /// The protocol of every row but `real`.
    pub protocol: String,
    pub split: String,
    pub seed: u64,
    pub rows: Vec<Line>,
}

/// One student on one row.
#[derive(Serialize)]
pub struct Line {
    pub row: &'static str,
    pub student: String,
    /// Accuracy of full data less this one's, in percentage points; null where full data was not judged.
    pub gap: Option<f64>,
    /// This accuracy less random-real's, in percentage points; null where that was not judged.
    pub gain: Option<f64>,
    /// The file of the result; it may hold more students.
    pub file: PathBuf,
    pub result: Evaluation,
}

pub fn run(args: &EvalArgs, console: &Console) -> Result<()> {
    let plan = Plan::of(args, console)?;
    let mut judge = Judge::of(args, &plan.main.config.eval.protocol)?;
    if plan.asked(RowKind::Distilled) {
        judge.label_as(&plan.main)?;
    }
    let judge = judge;
    let mut on_all = args.judging.clone();
    on_all.protocol = Some(REAL.into());
    let judge_of_real = Judge::new(&on_all, REAL, &args.common)?;
    let of = |kind| if kind == RowKind::Real { &judge_of_real } else { &judge };
    let students = args.judging.students();
    let name = format!("compare-{}-ipc{}-{}", plan.dataset(), plan.ipc, judge.suffix());
    let output = plan.main.folder.join(name);
    if args.common.dry_run {
        return plan.print(&output, &of, &students, args);
    }
    log_to_run(&plan.main, console)?;
    let mut rows = Vec::new();
    for (kind, subject) in &plan.rows {
        let found: Vec<_> = students.iter().map(|&student| plan.finished(*kind, subject, of(*kind), student)).collect();
        if found.iter().all(Option::is_some) {
            rows.extend(found.into_iter().flatten());
            continue;
        }
        if !plan.asked(*kind) {
            continue;
        }
        let material = of(*kind).load(subject, console)?;
        for &student in &students {
            let result = of(*kind).judge(subject, student, &material, console)?;
            rows.push(line(*kind, of(*kind).output(subject, student).join("eval.json"), result));
        }
    }
    if rows.is_empty() {
        usage!("--compare: there is nothing to judge; name rows with --rows");
    }
    let comparison = Comparison {
        dataset: plan.main.config.dataset.to_string(),
        ipc: plan.ipc,
        protocol: judge.protocol.name.clone(),
        split: judge.split().into(),
        seed: judge.seed,
        rows: with_differences(rows),
    };
    make_folder(&plan.main.folder)?;
    let named = |extension: &str| output.with_file_name(format!("{}.{extension}", file_name(&output)));
    write_atomic(&named("json"), to_json(&comparison)?.as_bytes())?;
    write_atomic(&named("md"), table::markdown(&comparison).as_bytes())?;
    console.info(format!("wrote {} and {}", named("json").display(), named("md").display()));
    if args.common.json { print(&to_json(&comparison)?) } else { print(table::text(&comparison).trim_end()) }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn line(kind: RowKind, file: PathBuf, result: Evaluation) -> Line {
    Line { row: word(kind), student: result.student.clone(), gap: None, gain: None, file, result }
}

/// The lines with each one's differences from full data and from random-real, student by student.
fn with_differences(mut rows: Vec<Line>) -> Vec<Line> {
    let means: Vec<_> = rows.iter().map(|line| (line.row, line.student.clone(), line.result.accuracy_mean)).collect();
    let mean = |row: RowKind, student: &str| {
        means.iter().find(|(other, by, _)| *other == word(row) && by == student).map(|(.., mean)| *mean)
    };
    for line in &mut rows {
        line.gap = mean(RowKind::Real, &line.student).map(|real| real - line.result.accuracy_mean);
        line.gain = mean(RowKind::RandomReal, &line.student).map(|random| line.result.accuracy_mean - random);
    }
    rows
}

fn word(kind: RowKind) -> &'static str {
    match kind {
        RowKind::RandomReal => "random-real",
        RowKind::KCenter => Selection::KCenter.as_str(),
        RowKind::Herding => Selection::Herding.as_str(),
        RowKind::Mix => Selection::Mix.as_str(),
        RowKind::Reconstructed => "reconstructed",
        RowKind::Distilled => "distilled",
        RowKind::Real => "real",
    }
}

/// What is to be compared.
struct Plan {
    /// The distilled set, or else a baseline: it says where results go and how they are judged.
    main: Subject,
    ipc: u32,
    rows: Vec<(RowKind, Subject)>,
    /// The rows that were asked for by name.
    named: Vec<RowKind>,
}

impl Plan {
    fn of(args: &EvalArgs, console: &Console) -> Result<Self> {
        let distilled = match distilled(args) {
            Err(problem) if args.on.is_some() || args.rows.contains(&RowKind::Distilled) => return Err(problem),
            Err(problem) if args.rows.is_empty() => {
                console.warn(format!("no row for a distilled set: {problem}"));
                None
            }
            found => found.ok(),
        };
        let ipc = args.ipc.or(distilled.as_ref().and_then(|(_, ipc)| *ipc)).unwrap_or(DEFAULT_IPC);
        let distilled = distilled.map(|(subject, _)| subject);
        let main = match distilled {
            Some(subject) => subject,
            None => Subject::baseline(Source::RandomReal(ipc), args)?,
        };
        let mut plan = Plan { main, ipc, rows: Vec::new(), named: args.rows.clone() };
        for kind in ROWS {
            if !plan.asked(kind) && kind != RowKind::Real {
                continue;
            }
            match plan.subject(kind, args) {
                Ok(Some(subject)) => plan.rows.push((kind, subject)),
                Ok(None) => {}
                Err(problem) if plan.named.is_empty() => {
                    console.warn(format!("no row for {}: {problem}", word(kind)));
                }
                Err(problem) => return Err(problem),
            }
        }
        Ok(plan)
    }

    /// Whether a row is to be judged: those that were named, or all that cost little.
    fn asked(&self, kind: RowKind) -> bool {
        if self.named.is_empty() { kind != RowKind::Real } else { self.named.contains(&kind) }
    }

    /// The data set in file names.
    fn dataset(&self) -> String {
        self.main.config.dataset.file_stem(self.main.config.image_size)
    }

    /// A row's set; none for the distilled set where there is none.
    fn subject(&self, kind: RowKind, args: &EvalArgs) -> Result<Option<Subject>> {
        let config = &self.main.config;
        let selected = |way| teacher_of(config, args).map(|teacher| Source::Selected(way, self.ipc, teacher));
        let source = match kind {
            RowKind::Distilled => {
                return match &self.main.source {
                    Source::Distilled(path) | Source::File(path, _) => Subject::at(path, args).map(Some),
                    _ => Ok(None),
                };
            }
            RowKind::RandomReal => Source::RandomReal(self.ipc),
            RowKind::KCenter => selected(Selection::KCenter)?,
            RowKind::Herding => selected(Selection::Herding)?,
            RowKind::Mix => selected(Selection::Mix)?,
            RowKind::Real => Source::Real,
            RowKind::Reconstructed => {
                let own = match &self.main.source {
                    Source::Distilled(path) => run_of(path),
                    _ => None,
                };
                let place = args.run.as_deref().unwrap_or(&args.common.out);
                let run = own.map_or_else(|| reconstructing(place), Ok)?;
                let theirs = Layers::written(&run.config())?.resolve()?.dataset;
                if theirs != config.dataset {
                    let root = run.root.display();
                    usage!("{root}: its VAE is of {theirs}, but the set of {}; name a run with --run", config.dataset);
                }
                let folder = run.eval();
                return Ok(Some(Subject {
                    folder,
                    source: Source::Reconstructed(self.ipc, run),
                    config: config.clone(),
                }));
            }
        };
        Ok(Some(Subject { source, folder: args.common.out.join("eval"), config: config.clone() }))
    }

    /// What `real` reached before, where it is not to be judged now.
    fn finished(&self, kind: RowKind, subject: &Subject, judge: &Judge, student: StudentKind) -> Option<Line> {
        if kind != RowKind::Real || self.asked(kind) {
            return None;
        }
        let file = judge.output(subject, student).join("eval.json");
        let result: Evaluation = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        let protocol = judge.protocol.at(subject.config.image_size).ok()?;
        result.protocol_settings.same_recipe(&protocol).then(|| line(kind, file, result))
    }

    /// What `--dry-run` shows.
    fn print<'a>(
        &self,
        output: &Path,
        judge: &dyn Fn(RowKind) -> &'a Judge<'a>,
        students: &[StudentKind],
        args: &EvalArgs,
    ) -> Result<()> {
        let rows = self.rows.iter().filter(|(kind, _)| self.asked(*kind));
        let outputs = rows.flat_map(|(kind, subject)| {
            let judge = judge(*kind);
            students.iter().map(move |&s| (word(*kind), judge.output(subject, s).join("eval.json")))
        });
        let outputs: Vec<(&str, PathBuf)> = outputs.collect();
        let table = output.with_file_name(format!("{}.json", file_name(output)));
        if args.common.json {
            let files: Vec<&PathBuf> = outputs.iter().map(|(_, file)| file).collect();
            return print(&to_json(&serde_json::json!({ "ipc": self.ipc, "outputs": files, "table": table }))?);
        }
        let lines: String = outputs.iter().map(|(row, file)| format!("{row}: {}\n", file.display())).collect();
        print(&format!("{lines}table: {}", table.display()))
    }
}

/// The distilled set to compare, and its images a class where that is known before it is read: the one that was named, or
/// the newest with as many images a class as were asked for.
fn distilled(args: &EvalArgs) -> Result<(Subject, Option<u32>)> {
    let ipc_of = |path: &Path| distilled::open(path).map(|set| set.listing.ipc() as u32);
    if let Some(named) = &args.on {
        let subject = Subject::of(args)?;
        let ipc = match &subject.source {
            Source::Distilled(path) => Some(ipc_of(path)?),
            Source::File(..) if args.ipc.is_none() => {
                usage!("--compare: say with --ipc how many images a class {named} has")
            }
            Source::File(..) => None,
            _ => usage!("--compare: --on names the distilled set, but {named} is a baseline; choose it by --rows"),
        };
        if let (Some(found), Some(asked)) = (ipc, args.ipc.filter(|&asked| ipc.is_some_and(|found| found != asked))) {
            usage!("--ipc {asked}: {named} has {found} images a class; drop --ipc");
        }
        return Ok((subject, ipc));
    }
    let place = args.run.as_deref().unwrap_or(&args.common.out);
    for set in distilled_sets(place)? {
        match (ipc_of(&set), args.ipc) {
            (Ok(found), Some(asked)) if found != asked => {}
            (found, _) => return Ok((Subject::at(&set, args)?, Some(found?))),
        }
    }
    let asked = args.ipc.map_or(String::new(), |ipc| format!(" with {ipc} images a class"));
    Err(Error::Usage(format!(
        "{}: no distilled set{asked} is there; make one with `distill sample`, or name one with --on PATH",
        place.display()
    )))
}
