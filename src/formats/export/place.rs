//! Where an export may go: never onto the set that is exported, and onto nothing but an earlier export.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::super::Format;
use crate::error::{AtPath, Result};
use crate::fs::folder_of;
use crate::usage;

/// Refuses a place that holds something which writing would destroy. What exists is only taken with `overwrite`, and only
/// if it is an earlier export in the same format.
pub fn check_place(path: &Path, format: Format, overwrite: bool) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    if !overwrite {
        usage!("{} exists; replace it with --overwrite, or choose another place with --to", path.display());
    }
    if !is_export(path, format)? {
        usage!("{} holds something else than an earlier export; choose another place with --to", path.display());
    }
    Ok(())
}

/// Refuses a `target` that is the `source`, holds it or lies inside of it.
pub fn check_apart(source: &Path, target: &Path) -> Result<()> {
    let (from, to) = (real(source)?, real(target)?);
    if from.starts_with(&to) || to.starts_with(&from) {
        usage!(
            "{}: the set that is exported is {}, and must stay whole; choose another place with --to",
            target.display(),
            source.display()
        );
    }
    Ok(())
}

/// Whether something at `path` could be an export: a file by its extension, a folder if it holds nothing else.
fn is_export(path: &Path, format: Format) -> Result<bool> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let is_part: fn(&str) -> bool = match format {
        Format::Pt | Format::Challenge => return Ok(path.is_file() && ["pt", "pth"].contains(&extension)),
        Format::Safetensors => return Ok(false), // none is written
        Format::Npz => return Ok(path.is_file() && extension == "npz"),
        Format::Parquet => return Ok(path.is_file() && extension == "parquet"),
        Format::Webdataset => |name| name == "README.md" || name.starts_with("train-") && name.ends_with(".tar"),
        Format::Imagefolder => |name| ["README.md", "manifest.jsonl", "train"].contains(&name),
    };
    let card = fs::read_to_string(path.join("README.md")).unwrap_or_default();
    if !path.is_dir() || !card.contains("\n- dataset-distillation\n") {
        return Ok(false);
    }
    for entry in fs::read_dir(path).at(path)? {
        if !entry.at(path)?.file_name().to_str().is_some_and(is_part) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The path without links and dots; its last parts need not exist.
fn real(path: &Path) -> Result<PathBuf> {
    match (path.canonicalize(), path.file_name()) {
        (Err(e), Some(name)) if e.kind() == ErrorKind::NotFound => Ok(real(folder_of(path))?.join(name)),
        (found, _) => found.at(path),
    }
}
