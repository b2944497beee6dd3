//! Files made by strangers: each parser gets random bytes and damaged good files. It answers with a value or an error, in
//! bounded memory, and never panics.

mod readers;

use std::fs;
use std::path::Path;

use cap::Cap;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use readers::Reader;
use tempfile::tempdir;

/// A parser that believes a size in a header ends the process here.
#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, 512 << 20);

/// Inputs for each parser.
const INPUTS: u32 = 512;

/// One way to damage a file.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    /// A number of 1, 2, 4 or 8 bytes, of those that break arithmetic.
    Number(Index, u64, usize),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let numbers = vec![0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, u64::MAX >> 1, u64::MAX];
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (any::<Index>(), select(numbers), select(vec![1, 2, 4, 8])).prop_map(|(at, n, w)| Damage::Number(at, n, w)),
        1 => (any::<Index>(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<Index>(), 1..64usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        1 => (any::<Index>(), 1..64usize).prop_map(|(at, len)| Damage::Repeat(at, len)),
        1 => any::<Index>().prop_map(Damage::Cut),
    ]
}

fn apply(damage: &Damage, file: &mut Vec<u8>) {
    if file.is_empty() {
        return;
    }
    let len = file.len();
    match damage {
        Damage::Set(at, byte) => file[at.index(len)] = *byte,
        Damage::Number(at, number, width) => {
            let at = at.index(len);
            file.iter_mut().skip(at).take(*width).zip(number.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        }
        Damage::Insert(at, bytes) => drop(file.splice(at.index(len)..at.index(len), bytes.iter().copied())),
        Damage::Remove(at, count) => drop(file.drain(at.index(len)..len.min(at.index(len) + count))),
        Damage::Repeat(at, count) => {
            let part = file[at.index(len)..len.min(at.index(len) + count)].to_vec();
            file.splice(at.index(len)..at.index(len), part);
        }
        Damage::Cut(at) => file.truncate(at.index(len)),
    }
}

/// Gives [`INPUTS`] damaged and random files to a parser: the same ones every time.
fn withstands(reader: &Reader) {
    let place = tempdir().unwrap();
    let damaged = (select((reader.seeds)()), vec(damage(), 1..6)).prop_map(|(mut file, damages)| {
        damages.iter().for_each(|damage| apply(damage, &mut file));
        file
    });
    let files = prop_oneof![9 => damaged, 1 => vec(any::<u8>(), 0..200)];
    let config = ProptestConfig { cases: INPUTS, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&files, |bytes| {
        let _ = (reader.read)(&bytes, place.path());
        Ok(())
    });
    outcome.unwrap_or_else(|problem| panic!("{}: {problem}", reader.name));
}

/// Good files are read, so what the damage above breaks was whole before. With `FUZZ_CORPUS` set they are written to that
/// folder, where fuzzing starts from them.
fn accepts(reader: &Reader) {
    for (i, seed) in (reader.seeds)().iter().enumerate() {
        (reader.read)(seed, tempdir().unwrap().path()).unwrap_or_else(|error| panic!("{}: {error}", reader.name));
        if let Some(corpus) = std::env::var_os("FUZZ_CORPUS") {
            let folder = Path::new(&corpus).join(reader.name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("seed{i}")), seed).unwrap();
        }
    }
}

#[test]
fn good_files_are_accepted() {
    for reader in [
        readers::CONFIG,
        readers::CIFAR,
        readers::CIFAR_ARCHIVE,
        readers::IMAGE,
        readers::WEIGHTS,
        readers::CHECKPOINT,
        readers::DISTILLED,
        readers::PT,
        readers::NPZ,
        readers::WEBDATASET,
        readers::PARQUET,
        readers::ARCHIVE,
        readers::SAFETENSORS,
        readers::PROTOCOL,
    ] {
        accepts(&reader);
    }
}

#[test]
fn protocols() {
    withstands(&readers::PROTOCOL);
}

#[test]
fn tensors_by_name() {
    withstands(&readers::SAFETENSORS);
}

#[test]
fn configurations() {
    withstands(&readers::CONFIG);
}

#[test]
fn cifar_records() {
    withstands(&readers::CIFAR);
}

#[test]
fn cifar_archives() {
    withstands(&readers::CIFAR_ARCHIVE);
}

#[test]
fn images() {
    withstands(&readers::IMAGE);
}

#[test]
fn weights() {
    withstands(&readers::WEIGHTS);
}

#[test]
fn checkpoints() {
    withstands(&readers::CHECKPOINT);
}

#[test]
fn distilled_sets() {
    withstands(&readers::DISTILLED);
}

#[test]
fn pt_files() {
    withstands(&readers::PT);
}

#[test]
fn npz_files() {
    withstands(&readers::NPZ);
}

#[test]
fn webdataset_files() {
    withstands(&readers::WEBDATASET);
}

#[test]
fn parquet_files() {
    withstands(&readers::PARQUET);
}

#[test]
fn archives() {
    withstands(&readers::ARCHIVE);
}
