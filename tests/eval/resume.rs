//! Finished students are used again, and the result is that of an evaluation in one go.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use distill::checksums::sha256;
use distill::error::{Error, Result};
use distill::eval::{
    EpochMetrics, Evaluation, FinishedRuns, Origin, Protocol, StudentKind, TrainingSet, Trial, evaluate,
};
use distill::progress::{Console, Verbosity};

use super::CIFAR100;
use super::students::{small_protocol, textures};

/// No stop.
const ALL: usize = usize::MAX;

/// One call that keeps its students in `folder`; it ends before epoch `stop` is noted.
fn call(folder: &Path, runs: u32, seed: u64, stop: usize) -> (Result<Evaluation>, Vec<EpochMetrics>) {
    call_under(folder, &small_protocol(3, runs), seed, stop)
}

fn call_under(folder: &Path, protocol: &Protocol, seed: u64, stop: usize) -> (Result<Evaluation>, Vec<EpochMetrics>) {
    let (train, test) = (TrainingSet::from(textures(5, 0)), textures(5, 1));
    let (student, normalization) = (StudentKind::CONVNET, CIFAR100);
    let trial = Trial { student, protocol, train: &train, test: &test, normalization, seed, device: &Device::Cpu };
    let origin = Origin { dataset: "textures".into(), on: "real".into(), split: "test".into(), labelled_by: None };
    let finished = FinishedRuns::open(folder, &trial).unwrap();
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

/// The file of a student, in the one folder of students below `folder`.
fn student(folder: &Path, run: u32) -> PathBuf {
    let mut folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let only = folders.next().unwrap();
    assert!(folders.next().is_none(), "students of one recipe lie in one folder");
    only.join(format!("run-{run:02}.json"))
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
    let first = fs::read(student(parts.path(), 0)).unwrap();
    assert!(!student(parts.path(), 1).exists());
    let (resumed, again) = call(parts.path(), 3, 0, ALL);
    assert_eq!((timeless(resumed), again), (unbroken.clone(), epochs.clone()));
    // It holds the seconds that training took, so another training would have left other bytes.
    assert_eq!(fs::read(student(parts.path(), 0)).unwrap(), first);

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
fn students_without_their_mistakes_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let whole = timeless(call(folder.path(), 1, 0, ALL).0);
    let file = student(folder.path(), 0);
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    kept["result"].as_object_mut().unwrap().shift_remove("mistakes").unwrap();
    let parts = ["protocol", "protocol_sha256", "run", "settings", "result"];
    kept["sha256"] = sha256(&serde_json::to_vec(&parts.map(|part| &kept[part])).unwrap()).into();
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
    let file = student(own.path(), 1);
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

#[test]
fn protocols_with_one_recipe_share_their_students() {
    let folder = tempfile::tempdir().unwrap();
    let challenge = small_protocol(3, 2);
    let three = Protocol { name: "dc".into(), runs: 3, ..challenge.clone() };
    let first = timeless(call_under(folder.path(), &challenge, 0, ALL).0);
    let bytes = fs::read(student(folder.path(), 1)).unwrap();
    let shared = timeless(call_under(folder.path(), &three, 0, ALL).0);
    assert_eq!(shared.runs[..2], first.runs);
    assert_eq!((shared.runs.len(), shared.protocol.as_str()), (3, "dc"));
    assert_eq!(fs::read(student(folder.path(), 1)).unwrap(), bytes, "it was trained again");
    assert_ne!(shared.protocol_sha256, first.protocol_sha256);
    assert_eq!(shared.train_sha256, textures(5, 0).sha256());

    let other = Protocol { lr: 0.02, ..challenge };
    call_under(folder.path(), &other, 0, ALL).0.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "another recipe has students of its own");
}

#[test]
fn students_name_all_that_decided_them() {
    let folder = tempfile::tempdir().unwrap();
    let result = call(folder.path(), 1, 7, ALL).0.unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(student(folder.path(), 0)).unwrap()).unwrap();
    assert_eq!(kept["protocol"], result.protocol);
    assert_eq!(kept["protocol_sha256"], result.protocol_sha256);
    assert_eq!((&kept["run"], &kept["settings"]["seed"]), (&0.into(), &7.into()));
    assert_eq!(kept["settings"]["student"], "convnet");
    assert_eq!(kept["settings"]["train_sha256"], textures(5, 0).sha256());
    assert_eq!(kept["settings"]["test_sha256"], textures(5, 1).sha256());
    assert!(kept["settings"]["environment"]["processor"].is_string() && kept["result"]["seconds"].is_f64(), "{kept}");
    assert_eq!(kept["result"]["per_class"].as_array().unwrap().len(), 4);
}

#[test]
fn students_in_training_are_locked() {
    let folder = tempfile::tempdir().unwrap();
    let (protocol, train, test) = (small_protocol(1, 1), TrainingSet::from(textures(1, 0)), textures(1, 1));
    let (student, normalization) = (StudentKind::CONVNET, CIFAR100);
    let trial = Trial {
        student,
        protocol: &protocol,
        train: &train,
        test: &test,
        normalization,
        seed: 0,
        device: &Device::Cpu,
    };
    let held = FinishedRuns::open(folder.path(), &trial).unwrap();
    let error = FinishedRuns::open(folder.path(), &trial).err().unwrap().to_string();
    assert!(error.contains("is training these students"), "{error}");
    FinishedRuns::open(folder.path(), &Trial { seed: 1, ..trial }).unwrap();
    drop(held);
    FinishedRuns::open(folder.path(), &trial).unwrap();
}
