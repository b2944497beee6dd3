//! The whole way on a folder of images, with class names that are hard to write.

use std::fs;
use std::path::Path;

use crate::Place;

/// A folder `pictures` of 12 x 9 pixels, four images a class, and a tiny configuration for 16 x 16.
pub fn place(classes: &[&str]) -> Place {
    let place = Place::new();
    for (c, class) in classes.iter().enumerate() {
        let folder = place.path("pictures").join(class);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..4 {
            let shade = (c * 40 + i * 10) as u8;
            image::RgbImage::from_pixel(12, 9, image::Rgb([shade, 200, 255 - shade]))
                .save(folder.join(format!("{i}.png")))
                .unwrap();
        }
    }
    let tiny = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/tiny.toml")).unwrap();
    let tiny = tiny.replace("dataset = \"shapes\"", "dataset = \"folder:pictures\"\nimage_size = 16");
    fs::write(place.path("tiny.toml"), tiny).unwrap();
    place
}

#[test]
fn names_with_spaces_unicode_and_200_characters_come_through_to_the_end() {
    let long = "long name ".repeat(20);
    let names = [long.trim_end(), "\u{c9}t\u{e9} \u{1f600}", "a, b: \"c\"", "train"];
    let place = place(&names);
    let result = place.json("run --config tiny.toml --name one --ipc 1 --epochs 1");
    assert_eq!(result["evaluations"].as_array().unwrap().len(), 2);
    let manifest = fs::read_to_string(
        Path::new(&place.path("")).join(result["distilled"].as_str().unwrap()).join("manifest.jsonl"),
    );
    let manifest = manifest.unwrap();
    for name in names {
        assert!(manifest.contains(&serde_json::to_string(name).unwrap()), "{name} is not in {manifest}");
    }
    let judged = place.json("eval --on random-real --dataset folder:pictures --ipc 1 --epochs 1");
    assert_eq!(judged["per_class"].as_array().unwrap().len(), 4);
}

#[test]
fn a_run_on_a_folder_goes_on_from_elsewhere() {
    let place = place(&["a", "b"]);
    place.ok("train --config tiny.toml --name one --stage vae");
    fs::create_dir(place.path("inner")).unwrap();
    let output = place
        .command("train --config ../runs/one/config.toml --out ../runs --name one")
        .current_dir(place.path("inner"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_preset_for_folders_wants_a_folder() {
    let place = place(&["a", "b"]);
    for (code, args, expected) in [
        (1, "train --preset folder-cpu", "--dataset folder:PATH"),
        (1, "train --dataset folder:nowhere", "nowhere is not a folder"),
        (2, "train --dataset folder:pictures --preset shapes", "the configuration is for shapes"),
        (2, "train --dataset folder:pictures --set image_size=50", "vae.channels"),
        (2, "train --dataset pictures/", "did you mean folder:pictures/?"),
    ] {
        let error = place.fails(code, args);
        assert!(error.contains(expected), "{args}: {error}");
    }
    let plan = place.json("train --dry-run --dataset folder:pictures");
    assert_eq!(plan["config"]["dataset"], format!("folder:{}", place.path("pictures").display()));
    let info = place.json("data info --dataset folder:pictures --image-size 24");
    assert_eq!((&info["image_size"], &info["splits"][0]["images"]), (&24.into(), &6.into()));
    let text = place.ok("data verify --dataset folder:pictures");
    assert!(text.contains("train:   6 images\n") && text.contains("64 x 64"), "{text}");
}
