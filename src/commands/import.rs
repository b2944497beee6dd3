//! `distill import`: another program's file as a distilled folder.

use std::path::Path;

use serde_json::json;

use super::resolve::check_name;
use super::{print, to_json};
use crate::cli::{ImportArgs, ReadingArgs};
use crate::data::{self, Dataset, Normalization};
use crate::distilled::check_place;
use crate::error::{Error, Result};
use crate::formats::{Format, Imported, Pixels, Reading, import};
use crate::fs::make_folder;
use crate::order;
use crate::progress::Console;
use crate::{fail, usage};

pub fn run(args: &ImportArgs, console: &Console) -> Result<()> {
    let path = &args.path;
    let reading = reading(path, &args.dataset, &args.reading)?;
    let name = match &args.name {
        Some(name) => {
            check_name("--name", name)?;
            name.clone()
        }
        None => {
            let stem = path.file_stem().map_or_else(|| "imported".into(), |stem| stem.to_string_lossy().into_owned());
            check_name("without --name, the set is called as its file", &stem)?;
            stem
        }
    };
    let inner = Path::new("distilled").join(name);
    let target = args.common.out.join(&inner);
    check_place(&target, args.overwrite)?; // now, not after reading it all
    let known = |size| match data::info(&args.dataset, size, args.common.data_dir.as_deref()) {
        Ok(info) => Ok(Some(info.classes)),
        Err(Error::NoData(_)) => Ok(None),
        Err(Error::Usage(_)) if matches!(args.dataset, Dataset::Hub(_)) => Ok(None), // built without the hub's reader
        Err(damaged) => Err(damaged),
    };
    let Imported { set, warnings, .. } = import(path, &reading, known)?;
    for warning in &warnings {
        console.warn(warning);
    }
    if !args.common.dry_run {
        make_folder(&args.common.out)?;
        order::note(&args.common.out, &inner)?; // before the set stands, as sampling does
        set.write(&target, args.overwrite)?;
    }
    let counts = set.listing().images_per_class();
    let classes = counts.iter().filter(|&&count| count > 0).count();
    if args.common.json {
        return print(&to_json(&json!({
            "distilled": target, "images": set.images.len(), "size": set.images.size, "classes": counts.len(),
            "classes_with_images": classes, "most_images_of_a_class": counts.iter().max(), "warnings": warnings,
        }))?);
    }
    let verb = if args.common.dry_run { "would be imported" } else { "imported" };
    print(&format!("{}: {} images of {classes} classes {verb}", target.display(), set.images.len()))
}

/// How the file or folder at `path` is to be read, an error if there is none.
pub fn reading(path: &Path, dataset: &Dataset, args: &ReadingArgs) -> Result<Reading> {
    if !path.exists() {
        fail!("{}: there is no such file or folder", path.display());
    }
    let format = args.format.map_or_else(|| Format::guess(path), Ok)?;
    let ReadingArgs { pixels, labels, mean, std, .. } = args.clone();
    let normalization = mean.zip(std).map(|(mean, std)| Normalization { mean: mean.0, std: std.0 });
    let reading = Reading { dataset: dataset.clone(), format, pixels, normalization, labels, exact: false };
    if normalization.is_some() && reading.pixels() != Some(Pixels::Normalized) {
        usage!("--mean, --std: are what normalized values were made with; say that they are with --pixels normalized");
    }
    Ok(reading)
}
