//! `distill teacher`: trains, goes on to the same bytes, and is refused for other images.

use std::fs;

use candle_core::Device;
use distill::data::{Dataset, ImageSet, Split, load};
use distill::eval::Teacher;
use distill::progress::{Console, Verbosity};

use crate::Place;
use crate::resume::{signal, started};

const TINY: &str = "teacher --dataset shapes --arch convnet-d2-w8-batch --set batch_size=32 --set warmup=5 --set ema_decay=0.9 \
                    --set checkpoint_every=7 --set log_every=5 --set validate_every=50";

fn shapes(split: Split) -> ImageSet {
    load(&Dataset::Shapes, split, 32, None).unwrap()
}

#[test]
fn a_teacher_learns_and_says_how_well() {
    let place = Place::new();
    let report = place.json(&format!("{TINY} --epochs 2 --name one"));
    assert_eq!(report["teacher"], "runs/teachers/one");
    let accuracy = report["test_accuracy"].as_f64().unwrap();
    assert!(accuracy > 30.0, "{accuracy} % of ten classes");

    let teacher = Teacher::open(&place.path("runs/teachers/one"), &Device::Cpu).unwrap();
    let quiet = Console::new(Verbosity::Quiet);
    let (card, test) = (&teacher.card, shapes(Split::Test));
    assert_eq!((card.dataset.as_str(), card.image_size, card.classes.len()), ("shapes", 32, 10));
    assert_eq!((card.recipe.arch.as_str(), card.hold_out), ("convnet-d2-w8-batch", false));
    assert_eq!(card.data_sha256, shapes(Split::Train).sha256());
    assert!((card.test_accuracy.unwrap() - accuracy).abs() < 1e-9);
    // The figure again, from the logits.
    let logits = teacher.logits(&test, &quiet).unwrap();
    let right = logits.chunks(10).zip(&test.labels).filter(|(row, label)| {
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        row[usize::from(**label)] == best
    });
    // The binary may compute in bf16.
    assert!((100.0 * right.count() as f64 / test.len() as f64 - accuracy).abs() < 2.0);

    // An image's values do not depend on those beside it.
    let some = test.subset(&[3, 700, 41]);
    let (all, alone) = (teacher.features(&test, &quiet).unwrap(), teacher.features(&some, &quiet).unwrap());
    assert_eq!((all.dims, all.len(), alone.len()), (8 * 8 * 8, test.len(), 3));
    for (row, i) in [3, 700, 41].into_iter().enumerate() {
        assert_eq!(alone.row(row), all.row(i));
        assert_eq!(teacher.logits(&some, &quiet).unwrap()[row * 10..][..10], logits[i * 10..][..10]);
    }

    let refused = |set: &ImageSet| teacher.features(set, &quiet).unwrap_err().to_string();
    let mut classes = (*test.classes).clone();
    classes.swap(2, 5);
    assert!(refused(&ImageSet { classes: classes.clone().into(), ..some.clone() }).contains("class 2 is"));
    classes.pop();
    assert!(refused(&ImageSet { classes: classes.into(), ..some.clone() }).contains("the images have 9"));
    let small = ImageSet { size: 16, pixels: vec![0; 3 * 16 * 16 * 3], ..some };
    assert!(refused(&small).contains("16 x 16"));

    let weights = place.path("runs/teachers/one/final.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let error = Teacher::open(&place.path("runs/teachers/one"), &Device::Cpu).err().unwrap().to_string();
    assert!(error.contains("is damaged") && error.contains("distill teacher --overwrite"), "{error}");
}

#[test]
fn an_interrupted_teacher_ends_as_the_unbroken_one() {
    let place = Place::new();
    let args = |name: &str| format!("{TINY} --epochs 2 --hold-out --name {name}");
    place.ok(&args("unbroken"));
    let child = started(&place, &args("broken"), "runs/teachers/broken", 1);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let mut child = started(&place, &args("broken"), "runs/teachers/broken", 2);
    signal(&child, "KILL");
    assert!(!child.wait().unwrap().success());

    let other = place.fails(2, &format!("{} --seed 1", args("broken")));
    assert!(other.contains("other settings"), "{other}");
    place.ok(&args("broken"));
    for file in ["final.safetensors", "metrics.jsonl", "config.toml"] {
        let read = |name: &str| fs::read(place.path("runs/teachers").join(name).join(file)).unwrap();
        assert!(read("unbroken") == read("broken"), "{file} differs");
    }
    let teacher = Teacher::open(&place.path("runs/teachers/broken"), &Device::Cpu).unwrap();
    assert_eq!((teacher.card.hold_out, teacher.card.test_accuracy), (true, None));
    assert_eq!(teacher.card.data_sha256, shapes(Split::Train).hold_out().0.sha256());
    let left: Vec<_> = fs::read_dir(place.path("runs/teachers/broken")).unwrap().flatten().collect();
    assert!(left.iter().all(|e| !e.file_name().to_string_lossy().starts_with("step-")), "{left:?}");

    let finished = place.fails(2, &args("broken"));
    assert!(finished.contains("has finished"), "{finished}");
    place.ok(&format!("{} --seed 1 --overwrite", args("broken")));
    assert_ne!(Teacher::open(&place.path("runs/teachers/broken"), &Device::Cpu).unwrap().sha256, teacher.sha256);
}

#[test]
fn what_makes_no_teacher_is_refused() {
    let place = Place::new();
    for (options, said) in [
        ("--set learning_rte=1", "did you mean `learning_rate`"),
        ("--set epochs=0", "epochs is 0"),
        ("--set ema_decay=1", "ema_decay is 1"),
        ("--set batch_size=many", "--set batch_size=many"),
        ("--arch resnet17", "resnet18"),
        ("--image-size 64", "64"),
        ("--name a/b", "folder name"),
    ] {
        let error = place.fails(2, &format!("teacher {options}"));
        assert!(error.contains(said), "{options}: {error}");
    }
    let plan = place.ok("teacher --dry-run --arch resnet18");
    assert!(plan.contains("11173962 parameters") && plan.contains("arch = \"resnet18\""), "{plan}");
    assert!(!place.path("runs").exists());
    let error = Teacher::open(&place.path("runs/teachers"), &Device::Cpu).err().unwrap().to_string();
    assert!(error.contains("distill teacher"), "{error}");
}
