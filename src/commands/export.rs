//! `distill export`: a distilled set in another program's format.

use serde_json::json;

use super::{print, to_json};
use crate::cli::ExportArgs;
use crate::distilled;
use crate::error::Result;
use crate::formats::{self, Format};
use crate::progress::Console;
use crate::run_dir::newest_distilled;

pub fn run(args: &ExportArgs, console: &Console) -> Result<()> {
    let source = match &args.set {
        Some(path) => path.clone(),
        None => newest_distilled(&args.common.out)?,
    };
    let mut set = distilled::open(&source)?;
    let listing = set.listing.clone();
    let target = args.to.clone().unwrap_or_else(|| {
        args.common.out.join("exports").join(distilled::name_of(&source)).join(args.format.file_name(&listing))
    });
    formats::check_apart(&source, &target)?;
    formats::check_place(&target, args.format, args.overwrite)?;
    if listing.soft_labels.is_some() && !matches!(args.format, Format::Pt | Format::Npz) {
        console.warn("this format has no place for soft labels, which stay behind; pt and npz take them");
    }
    if !args.common.dry_run {
        let images = &mut std::iter::repeat_with(|| set.image()).take(listing.len());
        formats::export(&listing, images, args.format, &target, args.overwrite)?;
    }
    let summary = json!({ "set": source, "images": listing.len(), "written": target });
    if args.common.json {
        return print(&to_json(&summary)?);
    }
    let verb = if args.common.dry_run { "would be written" } else { "written" };
    print(&format!("{}: {} images of {}, {verb}", target.display(), listing.len(), source.display()))
}
