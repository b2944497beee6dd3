//! The arrows between the parts of the library, as src/lib.rs draws them.

use std::fs;
use std::path::{Path, PathBuf};

/// (part, parts that it must not know).
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("ops", &["nn", "models", "diffusion", "train", "data", "stages", "eval", "commands", "config"]),
    ("nn", &["models", "diffusion", "train", "data", "stages", "eval", "commands", "config"]),
    ("models", &["diffusion", "train", "data", "stages", "eval", "commands", "config"]),
    ("diffusion", &["models", "nn", "train", "data", "stages", "eval", "commands", "config"]),
    ("train", &["models", "diffusion", "data", "stages", "eval", "commands", "config"]),
    ("data", &["ops", "nn", "models", "diffusion", "train", "stages", "eval", "commands", "config"]),
    ("distilled", &["ops", "nn", "models", "diffusion", "train", "stages", "eval", "commands", "config"]),
    ("formats", &["ops", "nn", "models", "diffusion", "train", "stages", "eval", "commands", "config"]),
    ("eval", &["diffusion", "stages", "commands", "config"]),
    ("report", &["ops", "nn", "models", "diffusion", "train", "stages", "eval", "commands", "config"]),
    ("config", &["commands", "stages", "eval", "ops"]),
    ("stages", &["commands", "eval"]),
];

#[test]
fn no_part_knows_a_part_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for (part, forbidden) in FORBIDDEN {
        for file in rust_files(&root.join(part)) {
            let text = fs::read_to_string(&file).unwrap();
            for other in *forbidden {
                if text.contains(&format!("crate::{other}::")) || text.contains(&format!("crate::{other};")) {
                    broken.push(format!("{} uses {other}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_main_knows_the_commands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&root) {
        let text = fs::read_to_string(&file).unwrap();
        let inside = file.starts_with(root.join("commands")) || file.ends_with("main.rs");
        assert!(inside || !text.contains("commands::"), "{}", file.display());
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("kernels") {
            out.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out.sort();
    assert!(!out.is_empty(), "{} holds no Rust file", folder.display());
    out
}
