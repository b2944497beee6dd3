//! `distill label`: a copy of a distilled set with a teacher's soft labels.

use serde::Serialize;
use serde_json::json;

use super::eval::run_of;
use super::resolve::check_name;
use super::{print, to_json};
use crate::cli::LabelArgs;
use crate::distilled::{self, DistilledSet, TENSOR_FILE, check_place};
use crate::error::Result;
use crate::eval::{Labeller, Teacher};
use crate::fs::folder_of;
use crate::order;
use crate::progress::Console;
use crate::run_dir::newest_distilled;

#[derive(Serialize)]
struct Summary {
    distilled: String,
    images: usize,
    views: u32,
    teacher: String,
}

pub fn run(args: &LabelArgs, console: &Console) -> Result<()> {
    let out = &args.common.out;
    let device = args.common.device.open()?;
    let path = args.set.clone().map_or_else(|| newest_distilled(out), Ok)?;
    let folder = if path.ends_with(TENSOR_FILE) { folder_of(&path) } else { &path };
    let name = match &args.name {
        Some(name) => {
            check_name("--name", name)?;
            name.clone()
        }
        None => format!("{}-soft", distilled::name_of(&path)),
    };
    let target = if folder.file_name().is_some() { folder_of(folder).join(name) } else { folder.join("..").join(name) };
    let listing = distilled::open(&path)?.listing;
    let teacher = Teacher::locate(args.teacher.as_deref(), out, &listing.provenance.dataset, listing.size)?;
    let teacher = Teacher::open(&teacher, &device)?;
    if args.common.dry_run {
        if args.common.json {
            let plan = json!({ "set": path, "teacher": teacher.folder, "views": args.views, "outputs": [target] });
            return print(&to_json(&plan)?);
        }
        return print(&format!(
            "{} labels {} views an image\nwrites {}",
            teacher.folder.display(),
            args.views,
            target.display()
        ));
    }
    check_place(&target, args.overwrite)?; // now, not after minutes of labelling
    let mut set = DistilledSet::read(&path)?;
    set.soft_labels = Some(teacher.label(&set.images, args.views, console)?);
    set.provenance.details.insert("soft_labels".into(), described(&teacher, args.views));
    let images = set.images.len();
    // As the newest, before it stands, like sets that are sampled or imported.
    match run_of(&path) {
        Some(run) => run.note(&target)?,
        None => target.strip_prefix(out).map_or(Ok(()), |inner| order::note(out, inner))?,
    }
    set.write(&target, args.overwrite)?;
    let summary =
        Summary { distilled: target.display().to_string(), images, views: args.views, teacher: teacher.name() };
    match args.common.json {
        true => print(&to_json(&summary)?),
        false => print(&format!("{}: {images} images, {} labelled views of each", summary.distilled, args.views)),
    }
}

/// What a set says of its soft labels.
fn described(teacher: &Teacher, views: u32) -> serde_json::Value {
    let Labeller { teacher: name, teacher_sha256, views } = teacher.labeller(views);
    json!({
        "teacher": name, "teacher_sha256": teacher_sha256, "architecture": teacher.card.recipe.arch,
        "teacher_accuracy": teacher.card.test_accuracy, "views": views, "temperature": 1.0,
    })
}
