//! `distill export`: a distilled set in another program's format.

use std::path::PathBuf;

use serde_json::json;

use super::{print, to_json};
use crate::cli::ExportArgs;
use crate::distilled::DistilledSet;
use crate::error::Result;
use crate::formats;
use crate::run_dir::newest_distilled;

pub fn run(args: &ExportArgs) -> Result<()> {
    let source = match &args.set {
        Some(path) => path.clone(),
        None => newest_distilled(&args.common.out)?,
    };
    let set = DistilledSet::read(&source)?;
    let target = args.to.clone().unwrap_or_else(|| {
        let folder = if source.is_file() { source.parent().unwrap_or(&source) } else { &source };
        let name = folder.file_name().map_or_else(|| "set".into(), PathBuf::from);
        args.common.out.join("exports").join(name).join(args.format.file_name(&set))
    });
    if !args.common.dry_run {
        formats::export(&set, args.format, &target, args.overwrite)?;
    }
    let summary = json!({ "set": source, "images": set.images.len(), "written": target });
    if args.common.json {
        return print(&to_json(&summary)?);
    }
    let verb = if args.common.dry_run { "would be written" } else { "written" };
    print(&format!("{}: {} images of {}, {verb}", target.display(), set.images.len(), source.display()))
}
