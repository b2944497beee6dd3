//! Every parser of the program as a function of a file's bytes, with files that it must accept. The property tests beside
//! this file and the fuzz targets in tests/fuzz share them.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use distill::checksums::{Checksums, sha256};
use distill::config::{Layers, Override};
use distill::data::fetch::{Limits, unpack};
use distill::data::{Class, Dataset, ImageSet, Split, load};
use distill::distilled::{DistilledSet, Provenance, SoftLabels};
use distill::error::Result;
use distill::eval::Protocol;
use distill::formats::{Format, Pixels, Reading, export, import};
use distill::progress::{Console, Verbosity};
use distill::train::{Checkpoint, load_weights, read_metadata, save_weights};
use image::{DynamicImage, ImageFormat};
use tempfile::tempdir;

/// A parser by name, and files that it must accept.
pub struct Reader {
    pub name: &'static str,
    /// Reads `bytes`, in `place`, an existing folder. An error is an answer; a panic is not.
    pub read: fn(&[u8], &Path) -> Result<()>,
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const CONFIG: Reader = Reader { name: "config", read: config, seeds: configs };
pub const CIFAR: Reader = Reader { name: "cifar", read: cifar, seeds: records };
pub const CIFAR_ARCHIVE: Reader = Reader { name: "cifar_archive", read: cifar_archive, seeds: cifar_archives };
pub const IMAGE: Reader = Reader { name: "image", read: image, seeds: images };
pub const WEIGHTS: Reader = Reader { name: "weights", read: weights, seeds: weight_files };
pub const CHECKPOINT: Reader = Reader { name: "checkpoint", read: checkpoint, seeds: checkpoints };
pub const DISTILLED: Reader = Reader { name: "distilled", read: distilled, seeds: tensor_files };
pub const PT: Reader = Reader { name: "pt", read: pt, seeds: pt_files };
pub const NPZ: Reader = Reader { name: "npz", read: npz, seeds: npz_files };
pub const WEBDATASET: Reader = Reader { name: "webdataset", read: webdataset, seeds: webdataset_files };
pub const PARQUET: Reader = Reader { name: "parquet", read: parquet, seeds: parquet_files };
pub const SAFETENSORS: Reader = Reader { name: "safetensors", read: safetensors, seeds: safetensors_files };
pub const PROTOCOL: Reader = Reader { name: "protocol", read: protocol, seeds: protocols };
pub const ARCHIVE: Reader = Reader { name: "archive", read: archive, seeds: archives };

/// A user's configuration file; each line is a `--set` too.
fn config(bytes: &[u8], place: &Path) -> Result<()> {
    let path = place.join("my.toml");
    fs::write(&path, bytes).unwrap();
    let mut layers = Layers::preset("shapes")?;
    for line in String::from_utf8_lossy(bytes).lines() {
        let _ = Override::parse(line).and_then(|key| layers.set(&key)).and_then(|()| layers.resolve());
    }
    let mut layers = Layers::preset("shapes")?;
    layers.file(&path)?;
    let config = layers.resolve()?;
    assert!(config.to_toml().parse::<toml::Table>().is_ok());
    Ok(())
}

fn configs() -> Vec<Vec<u8>> {
    ["[unet]\nchannels = 64\nattention_at = [8]\n", "unet.groups = 8\n[train.vae]\nsteps = 10\n"].map(Vec::from).into()
}

fn cifar(bytes: &[u8], place: &Path) -> Result<()> {
    fs::write(place.join("test.bin"), bytes).unwrap();
    fs::write(place.join("fine_label_names.txt"), "apple\nbear\n").unwrap();
    consistent(&load(&Dataset::Cifar100, Split::Test, 32, Some(place))?);
    Ok(())
}

fn records() -> Vec<Vec<u8>> {
    vec![vec![1; 3074], vec![0; 2 * 3074]]
}

fn cifar_archive(bytes: &[u8], place: &Path) -> Result<()> {
    fs::write(place.join("cifar-10-binary.tar.gz"), bytes).unwrap();
    consistent(&load(&Dataset::Cifar10, Split::Test, 32, Some(place))?);
    Ok(())
}

fn cifar_archives() -> Vec<Vec<u8>> {
    let entries = [("cifar-10-batches-bin/batches.meta.txt", b"a\nb\n".as_slice()), ("x/test_batch.bin", &[1; 3073])];
    vec![tar_gz(&entries)]
}

/// The only image of a folder.
fn image(bytes: &[u8], place: &Path) -> Result<()> {
    for split in ["train", "test"] {
        let class = place.join(split).join("apple");
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("0.png"), bytes).unwrap();
    }
    consistent(&load(&Dataset::Folder(place.to_path_buf()), Split::Train, 8, None)?);
    Ok(())
}

fn images() -> Vec<Vec<u8>> {
    let encode = |image: DynamicImage, format| {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    };
    vec![
        encode(DynamicImage::new_rgb8(9, 10), ImageFormat::Jpeg),
        encode(DynamicImage::new_rgb8(9, 10), ImageFormat::Png),
        encode(DynamicImage::new_luma_a16(3, 2), ImageFormat::Png),
    ]
}

fn weights(bytes: &[u8], place: &Path) -> Result<()> {
    let path = place.join("final.safetensors");
    fs::write(&path, bytes).unwrap();
    let metadata = read_metadata::<serde_json::Value>(&path);
    load_weights(&path, &Device::Cpu)?;
    metadata.map(drop)
}

fn weight_files() -> Vec<Vec<u8>> {
    let (root, tensor) = (tempdir().unwrap(), Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap());
    let path = root.path().join("final.safetensors");
    let tensors = [("a.weight".to_string(), tensor.reshape((2, 3)).unwrap()), ("b".to_string(), tensor)];
    save_weights(&path, &tensors, &"metadata").unwrap();
    vec![fs::read(path).unwrap()]
}

/// A checkpoint's `state.json`, with the sums that a stranger would make for it.
fn checkpoint(bytes: &[u8], place: &Path) -> Result<()> {
    let folder = place.join("step-0000001");
    fs::create_dir_all(&folder).unwrap();
    let mut sums = Checksums::default();
    let others = ["model.safetensors", "ema.safetensors", "optim.safetensors", "metrics.jsonl"];
    for (name, content) in others.map(|name| (name, b"".as_slice())).into_iter().chain([("state.json", bytes)]) {
        fs::write(folder.join(name), content).unwrap();
        sums.add(name, sha256(content));
    }
    sums.write(&folder.join("SHA256SUMS"))?;
    Checkpoint::newest(place, &Console::new(Verbosity::Quiet)).map(drop)
}

fn checkpoints() -> Vec<Vec<u8>> {
    vec![serde_json::to_vec(&Checkpoint::default()).unwrap()]
}

fn distilled(bytes: &[u8], place: &Path) -> Result<()> {
    let path = place.join("distilled.safetensors");
    fs::write(&path, bytes).unwrap();
    let set = DistilledSet::read(&path)?;
    consistent(&set.images);
    assert_eq!(set.indices.len(), set.images.len());
    Ok(())
}

/// Two images of 4 x 4.
fn small_set() -> DistilledSet {
    let class = |name: &str| Class { name: name.into(), id: "0".into() };
    let classes = Arc::new(vec![class("apple"), class("bear")]);
    let images = ImageSet { pixels: (0..96).collect(), labels: vec![0, 1], size: 4, classes };
    let provenance = Provenance {
        dataset: Dataset::Shapes,
        method: "made by a test".into(),
        seed: 0,
        details: serde_json::Map::new(),
    };
    DistilledSet::new(images, vec![0, 0], provenance).unwrap()
}

fn tensor_files() -> Vec<Vec<u8>> {
    let root = tempdir().unwrap();
    let folder = root.path().join("set");
    small_set().write(&folder, false).unwrap();
    let hard = fs::read(folder.join("distilled.safetensors")).unwrap();
    let soft_labels = Some(SoftLabels { values: Arc::new(vec![0.75, 0.25, 0.5, 0.5]), views: 1 });
    DistilledSet { soft_labels, ..small_set() }.write(&folder, true).unwrap();
    vec![hard, fs::read(folder.join("distilled.safetensors")).unwrap()]
}

/// Tensors by name without a set's metadata: the same files, read as another program's.
fn safetensors(bytes: &[u8], place: &Path) -> Result<()> {
    let path = place.join("set.safetensors");
    fs::write(&path, bytes).unwrap();
    let dataset: Dataset = "folder:/birds".parse().unwrap();
    let reading =
        Reading { dataset, format: Format::Safetensors, pixels: None, normalization: None, labels: None, exact: true };
    let set = import(&path, &reading, |_| Ok(Some(small_set().images.classes.to_vec())))?.set;
    consistent(&set.images);
    if let Some(soft) = set.soft_labels {
        soft.check(set.images.len(), 2).unwrap();
    }
    Ok(())
}

fn safetensors_files() -> Vec<Vec<u8>> {
    tensor_files()
}

/// A user's own protocol; what is accepted can be carried out and is written as it was read.
fn protocol(bytes: &[u8], place: &Path) -> Result<()> {
    let path = place.join("mine.toml");
    fs::write(&path, bytes).unwrap();
    let protocol = Protocol::read(&path)?;
    let text = toml::to_string(&protocol).unwrap();
    assert_eq!(toml::from_str::<Protocol>(&text).unwrap(), protocol);
    for images in [1, 1000, 100_000_000] {
        let plan = protocol.plan(images);
        assert!(plan.updates > 0 && plan.updates_per_epoch > 0);
    }
    let _ = protocol.at(32);
    Ok(())
}

fn protocols() -> Vec<Vec<u8>> {
    let own = |name: &str, change: (&str, &str)| {
        let text = toml::to_string(&Protocol::named(name).unwrap()).unwrap();
        text.replacen(name, "mine", 1).replace(change.0, change.1).into_bytes()
    };
    vec![own("dc", ("runs = 5", "runs = 2")), own("soft", ("temperature = 20.0", "temperature = 4.0"))]
}

fn pt(bytes: &[u8], place: &Path) -> Result<()> {
    imported(bytes, &place.join("set.pt"), Format::Pt)
}

fn pt_files() -> Vec<Vec<u8>> {
    vec![exported(Format::Pt)]
}

fn npz(bytes: &[u8], place: &Path) -> Result<()> {
    imported(bytes, &place.join("set.npz"), Format::Npz)
}

fn npz_files() -> Vec<Vec<u8>> {
    vec![exported(Format::Npz)]
}

fn webdataset(bytes: &[u8], place: &Path) -> Result<()> {
    imported(bytes, &place.join("set.tar"), Format::Webdataset)
}

fn webdataset_files() -> Vec<Vec<u8>> {
    let root = tempdir().unwrap();
    let folder = root.path().join("set");
    export_to(&folder, Format::Webdataset);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "tar"));
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Imports a file of whole or of floating-point pixels of any size.
fn imported(bytes: &[u8], path: &Path, format: Format) -> Result<()> {
    fs::write(path, bytes).unwrap();
    let dataset: Dataset = "folder:/birds".parse().unwrap();
    let reading =
        |pixels| Reading { dataset: dataset.clone(), format, pixels, normalization: None, labels: None, exact: true };
    let read = |pixels| import(path, &reading(pixels), |_| Ok(None));
    let set = read(None).or_else(|_| read(Some(Pixels::Unit)))?.set;
    consistent(&set.images);
    if let Some(soft) = set.soft_labels {
        soft.check(set.images.len(), set.images.classes.len()).unwrap();
    }
    Ok(())
}

fn exported(format: Format) -> Vec<u8> {
    let root = tempdir().unwrap();
    let path = root.path().join("set");
    export_to(&path, format);
    fs::read(path).unwrap()
}

fn export_to(path: &Path, format: Format) {
    let soft_labels = Some(SoftLabels { values: Arc::new(vec![0.75, 0.25, 0.5, 0.5]), views: 1 });
    let set = DistilledSet { soft_labels, ..small_set() };
    let mut images = (0..set.images.len()).map(|i| Ok(set.images.image(i).to_vec()));
    export(&set.listing(), &mut images, format, path, false).unwrap();
}

fn parquet(bytes: &[u8], place: &Path) -> Result<()> {
    imported(bytes, &place.join("set.parquet"), Format::Parquet)
}

fn parquet_files() -> Vec<Vec<u8>> {
    vec![exported(Format::Parquet)]
}

/// An archive that was fetched.
fn archive(bytes: &[u8], place: &Path) -> Result<()> {
    let path = place.join("archive");
    fs::write(&path, bytes).unwrap();
    let _ = fs::remove_dir_all(place.join("small"));
    unpack(&path, place, "small", &Limits { bytes: 1 << 20, entries: 100 })
}

fn archives() -> Vec<Vec<u8>> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("small/x", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut zip, b"content").unwrap();
    vec![tar_gz(&[("small/x", b"content")]), zip.finish().unwrap().into_inner()]
}

fn tar_gz(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// What all code relies on in a set that was read.
fn consistent(set: &ImageSet) {
    assert_eq!(set.pixels.len(), set.len() * set.image_len());
    assert!(set.labels.iter().all(|&label| usize::from(label) < set.classes.len()));
}
