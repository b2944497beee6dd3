//! A set on its way to other programs' formats and back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Place, tiny};

#[test]
fn exported_sets_come_back_as_the_newest_and_runs_have_a_card() {
    let place = Place::new();
    place.ok(&format!("train {} --name tiny -q", tiny()));
    let card = fs::read_to_string(place.path("runs/tiny/README.md")).unwrap();
    for part in ["license: mit", "| UNet | ", "| 20 | 160 |", "distill sample --run runs/tiny", "10 classes at 32x32"] {
        assert!(card.contains(part), "{part:?} is not in:\n{card}");
    }
    place.ok("sample --ipc 10 --name mine -q");
    for (format, file) in [
        ("pt", "distilled.pt"),
        ("npz", "distilled.npz"),
        ("parquet", "train.parquet"),
        ("webdataset", "webdataset"),
        ("imagefolder", "imagefolder"),
        ("challenge", "shapes.pt"),
    ] {
        let exported = place.json(&format!("export runs/tiny/distilled/mine --format {format}"));
        let written = format!("runs/exports/mine/{file}");
        assert_eq!((exported["written"].as_str(), exported["images"].as_u64()), (Some(written.as_str()), Some(100)));
        let guess = if format == "challenge" { "--format challenge" } else { "" };
        let imported = place.json(&format!("import {written} --dataset shapes {guess} --name {format} -q"));
        assert_eq!(imported["most_images_of_a_class"], 10, "{imported}");
        let tensors = |set: &str| fs::read(place.path(set).join("distilled.safetensors")).unwrap();
        let (ours, theirs) = (tensors("runs/tiny/distilled/mine"), tensors(&format!("runs/distilled/{format}")));
        let values = 100 * (3 * 32 * 32 + 8); // pixels and labels stand at the end, after what differs
        assert_eq!(ours[ours.len() - values..], theirs[theirs.len() - values..], "{format}");
        let newest = place.json("eval --dry-run");
        assert_eq!(newest["on"], format!("runs/distilled/{format}"));
    }
    let missing = place.fails(1, "import runs/exports/mine/shapes.pt --dataset shapes --name again");
    assert!(missing.contains("--pixels"), "{missing}");
    let taken = place.fails(2, "import runs/exports/mine/distilled.npz --dataset shapes --name npz");
    assert!(taken.contains("--overwrite"), "{taken}");
}

/// Everything under a folder, with its content.
fn everything(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn exports_replace_nothing_but_exports() {
    let place = Place::new();
    place.ok(&format!("train {} --name tiny -q", tiny()));
    place.ok("sample --ipc 1 --name mine -q");
    place.ok("sample --ipc 1 --name other --seed 2 -q");
    fs::write(place.path("notes.txt"), "mine").unwrap();
    let before = (everything(&place.path("runs")), fs::read(place.path("notes.txt")).unwrap());
    let mine = "runs/tiny/distilled/mine";
    for (source, format, target, words) in [
        (mine, "imagefolder", "runs/tiny", "must stay whole"),
        (mine, "imagefolder", mine, "must stay whole"),
        (mine, "imagefolder", "runs/tiny/distilled/mine/deep/er", "must stay whole"),
        (mine, "imagefolder", "runs/tiny/distilled/other", "something else"),
        (
            "runs/tiny/distilled/mine/distilled.safetensors",
            "pt",
            "runs/../runs/tiny/distilled/mine/distilled.safetensors",
            "must stay whole",
        ),
        (mine, "npz", "notes.txt", "something else"),
    ] {
        for dry in ["", " --dry-run"] {
            let error = place.fails(2, &format!("export {source} --format {format} --to {target} --overwrite{dry}"));
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
    }
    assert_eq!((everything(&place.path("runs")), fs::read(place.path("notes.txt")).unwrap()), before);
    let export = "export runs/tiny/distilled/mine --format imagefolder --to there";
    place.ok(export);
    assert!(place.fails(2, &format!("{export} --dry-run")).contains("--overwrite"));
    place.ok(&format!("{export} --overwrite"));
}

/// A folder of one black picture, `pictures/a/0.png`.
fn picture(place: &Place, size: u32) -> PathBuf {
    let path = place.path("pictures/a/0.png");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::new(size, size).save(&path).unwrap();
    path
}

#[test]
fn imports_need_a_sound_data_set_and_a_plain_name() {
    let place = Place::new();
    picture(&place, 64);
    fs::create_dir_all(place.path("data/tiny-imagenet-200")).unwrap();
    fs::write(place.path("data/tiny-imagenet-200/wnids.txt"), "n01443537\n").unwrap();
    fs::rename(place.path("pictures"), place.path(". x")).unwrap();
    picture(&place, 64);
    for (code, args, words) in [
        (1, "pictures --dataset shapes", "is 64x64, expected 32x32"),
        (1, "pictures --dataset tinyimagenet --data-dir data", "words.txt is missing"),
        (1, "pictures --dataset tinyimagenet --data-dir nowhere", "1 classes, but tinyimagenet has 200"),
        (2, "pictures --dataset tinyimagenet --name a\u{1b}[2J", "control characters"),
    ] {
        let error = place.fails(code, &format!("import {args}"));
        assert!(error.contains(words) && !error.contains('\u{1b}'), "{words:?} is not in: {error}");
    }
    let output = place.command("import --dataset shapes").arg(". x").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && error.contains("called as its file"), "{error}");
}

/// The first picture is a pipe: what reads it waits until the signal has come.
#[cfg(unix)]
#[test]
fn a_signal_ends_an_import_at_the_next_image() {
    let place = Place::new();
    let path = picture(&place, 32);
    let png = fs::read(&path).unwrap();
    fs::rename(&path, path.with_file_name("1.png")).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut child = place.command("import pictures --dataset shapes --name it").stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = fs::File::options().write(true).open(&path).unwrap(); // waits for the reader
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("stopping")));
    pipe.write_all(&png).unwrap();
    drop(pipe);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!place.path("runs/distilled/it").exists());
}
