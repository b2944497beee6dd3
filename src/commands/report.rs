//! `distill report`: a run on one HTML page.

use serde_json::json;

use super::{print, to_json};
use crate::cli::ReportArgs;
use crate::error::Result;
use crate::fs::write_atomic;
use crate::report::report;
use crate::run_dir::RunDir;
use crate::usage;

pub fn run(args: &ReportArgs) -> Result<()> {
    let run = RunDir::new(&args.run);
    let page = report(&run)?;
    let path = args.out_file.clone().unwrap_or_else(|| run.report());
    if path.is_dir() {
        usage!("--out-file {}: is a folder; name a file, for example {0}/report.html", path.display());
    }
    write_atomic(&path, page.html.as_bytes())?;
    if args.json {
        return print(&to_json(&json!({ "report": path, "bytes": page.html.len(), "problems": page.problems }))?);
    }
    let problems: String = page.problems.iter().map(|problem| format!("\n{problem}")).collect();
    print(&format!("wrote {}{problems}", path.display()))
}
