//! `distill inspect`: what is in a run, a checkpoint, a weights file or a distilled set.

use std::fs;
use std::path::Path;

use candle_core::Device;
use serde_json::{Value, json};

use super::{print, to_json};
use crate::cli::InspectArgs;
use crate::error::{AtPath, Error, Result};
use crate::fail;
use crate::run_dir::RunDir;
use crate::train::{load_weights, read_metadata};

/// The weights of a finished network.
const FINAL: &str = "final.safetensors";

pub fn run(args: &InspectArgs) -> Result<()> {
    let found = inspect(&args.path)?;
    if args.common.json { print(&to_json(&found)?) } else { print(outline(&found, 0).trim_end()) }
}

fn inspect(path: &Path) -> Result<Value> {
    if !path.exists() {
        fail!("{}: there is no such file or folder; `distill runs` lists runs", path.display());
    }
    if path.join(FINAL).is_file() {
        return network(path); // before a run: a teacher has a configuration too
    }
    if path.join("config.toml").is_file() {
        return run_folder(&RunDir::new(path));
    }
    if path.join("state.json").is_file() {
        return checkpoint(path);
    }
    if path.join("distilled.safetensors").is_file() || path.ends_with("distilled.safetensors") {
        return distilled(path);
    }
    if path.is_file() && path.extension().is_some_and(|e| e == "safetensors") {
        return weights(path);
    }
    fail!(
        "{}: expected a run's folder (config.toml), a checkpoint's (state.json), that of a trained network or teacher \
         ({FINAL}), a distilled set (distilled.safetensors) or a .safetensors file",
        path.display()
    )
}

fn run_folder(run: &RunDir) -> Result<Value> {
    let mut out = json!({ "kind": "run", "finished": run.is_finished() });
    if run.meta().is_file() {
        out["meta"] = read_json(&run.meta())?;
    }
    for stage in ["vae", "unet"] {
        if run.weights(stage).is_file() {
            out[stage] = read_json(&run.summary(stage))?;
        }
    }
    for (kind, folder, file) in
        [("distilled", run.distilled(), "distilled.safetensors"), ("evaluations", run.eval(), "eval.json")]
    {
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.at(&folder)?.path();
            if path.join(file).is_file() {
                names.push(path.display().to_string());
            }
        }
        names.sort();
        out[kind] = json!(names);
    }
    Ok(out)
}

fn checkpoint(folder: &Path) -> Result<Value> {
    let mut out = read_json(&folder.join("state.json"))?;
    out["kind"] = json!("checkpoint");
    for part in ["model", "ema", "optim"] {
        let (tensors, values) = count(&folder.join(format!("{part}.safetensors")))?;
        out[part] = json!({ "tensors": tensors, "values": values });
    }
    Ok(out)
}

/// A teacher's folder, or that of a run's network.
fn network(folder: &Path) -> Result<Value> {
    let mut out = weights(&folder.join(FINAL))?;
    out["kind"] = out["metadata"]["kind"].take();
    out["training"] = read_json(&folder.join("summary.json"))?;
    Ok(out)
}

fn distilled(path: &Path) -> Result<Value> {
    let set = crate::distilled::open(path)?.listing;
    let counts = set.images_per_class();
    Ok(json!({
        "kind": "distilled set",
        "images": set.len(),
        "size": set.size,
        "classes": counts.len(),
        "classes_with_images": counts.iter().filter(|&&n| n > 0).count(),
        "most_images_of_a_class": counts.iter().max(),
        "soft_label_views": set.soft_labels.map(|soft| soft.views),
        "provenance": set.provenance,
    }))
}

fn weights(path: &Path) -> Result<Value> {
    let (tensors, values) = count(path)?;
    let metadata: Value = read_metadata(path)?;
    Ok(json!({ "kind": "weights", "tensors": tensors, "values": values, "metadata": metadata }))
}

/// Tensors and values of a weights file.
fn count(path: &Path) -> Result<(usize, usize)> {
    let tensors = load_weights(path, &Device::Cpu)?;
    Ok((tensors.len(), tensors.values().map(|t| t.elem_count()).sum()))
}

/// A file that holds one JSON document.
pub fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).at(path)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Failed(format!("{}: is not valid JSON: {e}", path.display())))
}

/// Nested values as indented lines; long lists are cut.
fn outline(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| match value {
                Value::Object(inner) if !inner.is_empty() => format!("{indent}{key}:\n{}", outline(value, depth + 1)),
                Value::Array(items) if items.iter().any(|i| i.is_object() || i.is_string()) && items.len() > 12 => {
                    format!("{indent}{key}: {} entries\n", items.len())
                }
                Value::Array(items) if items.iter().any(Value::is_object) => {
                    format!("{indent}{key}: {} entries\n", items.len())
                }
                Value::Array(items) if items.iter().any(Value::is_string) => {
                    let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                    format!("{indent}{key}: {}\n", words.join(" "))
                }
                Value::String(text) => format!("{indent}{key}: {text}\n"),
                other => format!("{indent}{key}: {other}\n"),
            })
            .collect(),
        other => format!("{indent}{other}\n"),
    }
}
