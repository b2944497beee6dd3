//! Finished students are used again, and the result is that of an evaluation in one go.

use std::fs;
use std::path::Path;

use distill::checksums::sha256;
use distill::data::ImageSet;
use distill::error::{Error, Result};
use distill::eval::{EpochMetrics, Evaluation, FinishedRuns, Origin, Protocol, StudentKind, Trial, evaluate};
use distill::progress::{Console, Verbosity};

use super::CIFAR100;
use super::students::{small_protocol, textures};

/// No stop.
const ALL: usize = usize::MAX;

/// One call that keeps its students in `folder`; it ends before epoch `stop` is noted.
fn call(folder: &Path, runs: u32, seed: u64, stop: usize) -> (Result<Evaluation>, Vec<EpochMetrics>) {
    let (train, test): (ImageSet, ImageSet) = (textures(5, 0), textures(5, 1));
    let protocol: Protocol = small_protocol(3, runs);
    let (student, normalization) = (StudentKind::ConvNet, CIFAR100);
    let trial = Trial { student, protocol: &protocol, train: &train, test: &test, normalization, seed };
    let origin = Origin { dataset: "textures".into(), on: "real".into(), split: "test".into() };
    let finished = FinishedRuns::new(folder, &trial).unwrap();
    let mut epochs = Vec::new();
    let result = evaluate(&trial, &origin, Some(&finished), &Console::new(Verbosity::Quiet), &mut |epoch| {
        if epochs.len() == stop {
            return Err(Error::Interrupted);
        }
        epochs.push(epoch.clone());
        Ok(())
    });
    (result, epochs)
}

/// All but the times.
fn timeless(evaluation: Result<Evaluation>) -> Evaluation {
    Evaluation { seconds: 0.0, ..evaluation.unwrap() }
}

#[test]
fn an_evaluation_goes_on_after_the_last_finished_student() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (unbroken, epochs) = call(whole.path(), 3, 0, ALL);
    let unbroken = timeless(unbroken);

    let (stopped, _) = call(parts.path(), 3, 0, 4);
    assert!(matches!(stopped, Err(Error::Interrupted)));
    let first = fs::read(parts.path().join("run-00.json")).unwrap();
    assert!(!parts.path().join("run-01.json").exists());
    let (resumed, again) = call(parts.path(), 3, 0, ALL);
    assert_eq!((timeless(resumed), again), (unbroken.clone(), epochs.clone()));
    // It holds the seconds that training took, so another training would have left other bytes.
    assert_eq!(fs::read(parts.path().join("run-00.json")).unwrap(), first);

    let fewer = timeless(call(parts.path(), 2, 0, ALL).0);
    assert_eq!(fewer.runs, unbroken.runs[..2]);
    assert_eq!(timeless(call(parts.path(), 3, 0, ALL).0), unbroken);
}

#[test]
fn the_mistakes_of_a_class_and_its_accuracy_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let result = timeless(call(folder.path(), 2, 0, ALL).0);
    assert!(result.accuracy_mean < 100.0 && !result.confusion.is_empty());
    assert!(result.confusion.is_sorted_by(|a, b| a.share >= b.share));
    for class in &result.per_class {
        // Four classes have twelve pairs, and all are listed.
        let mistaken: Vec<_> = result.confusion.iter().filter(|pair| pair.class == class.class).collect();
        assert!(mistaken.iter().all(|pair| pair.predicted != pair.class && pair.name == class.name));
        let all = class.accuracy.unwrap() + mistaken.iter().map(|pair| pair.share).sum::<f64>();
        assert!((all - 100.0).abs() < 1e-9, "{}: {all}", class.name);
    }
}

#[test]
fn students_kept_by_earlier_versions_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let whole = timeless(call(folder.path(), 1, 0, ALL).0);
    let file = folder.path().join("run-00.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    kept["result"].as_object_mut().unwrap().shift_remove("mistakes").unwrap();
    kept["sha256"] = sha256(&serde_json::to_vec(&(&kept["settings"], &kept["result"])).unwrap()).into();
    let earlier = serde_json::to_vec_pretty(&kept).unwrap();
    fs::write(&file, &earlier).unwrap();
    let again = timeless(call(folder.path(), 1, 0, ALL).0);
    assert_eq!(fs::read(&file).unwrap(), earlier, "it was trained again");
    assert_eq!(again, Evaluation { confusion: Vec::new(), ..whole });
}

#[test]
fn damaged_and_foreign_students_are_trained_again() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = timeless(call(own.path(), 2, 0, ALL).0);
    let file = own.path().join("run-01.json");
    let whole = fs::read_to_string(&file).unwrap();
    let accuracy = whole.lines().find(|line| line.contains("\"accuracy\"")).unwrap();
    let damaged = [whole[..whole.len() / 2].to_string(), whole.replace(accuracy, "\"accuracy\": 1.5,"), String::new()];
    for damaged in damaged {
        assert_ne!(damaged, whole);
        fs::write(&file, damaged).unwrap();
        assert_eq!(timeless(call(own.path(), 2, 0, ALL).0), expected);
    }
    let ((fresh, losses), (found, found_losses)) = (call(other.path(), 2, 1, ALL), call(own.path(), 2, 1, ALL));
    assert_eq!(losses, found_losses, "students of another seed were taken");
    assert_eq!(timeless(found), timeless(fresh));
}
