//! `distilled.safetensors`: `labels` i64 (N), `soft_labels` f32 (N, views, classes) where there are any, and `images` u8
//! (N, 3, H, W), everything else as one JSON in its metadata.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::{Listing, Provenance, SoftLabels, TENSOR_FILE};
use crate::data::{Class, Normalization};
use crate::error::{AtPath, Error, Result};
use crate::fail;

/// The metadata's only key: with several, the file's bytes would follow a hash map's order.
const KEY: &str = "distill";
const FORMAT: u32 = 1;
const SOFT_LABELS: &str = "soft_labels";
const SOFT_SHAPE: &str = "(N, views, classes)";
const PIXELS: &str =
    "RGB, 0 to 255, neither normalized nor whitened: divide by 255, subtract the mean, divide by the std";
/// The safetensors library's own bound on a header, in bytes.
const LARGEST_HEADER: u64 = 100_000_000;

/// What stands under [`KEY`].
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    pixels: String,
    normalization: Normalization,
    images_per_class: Vec<usize>,
    provenance: Provenance,
    /// By label.
    classes: Vec<Class>,
    /// By image.
    indices: Vec<u32>,
}

/// Only the version, which says whether the rest can be read.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// A tensor file that is being written: the header and the labels first, then image after image.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    size: usize,
}

impl Writer {
    /// Begins the file: its bytes are the same for the same set, and those that the safetensors library writes.
    pub fn create(path: &Path, listing: &Listing) -> Result<Self> {
        let text = header(listing)?;
        let mut writer =
            Writer { path: path.into(), file: BufWriter::new(File::create(path).at(path)?), size: listing.size };
        writer.put(&(text.len() as u64).to_le_bytes())?;
        writer.put(text.as_bytes())?;
        for &label in &listing.labels {
            writer.put(&i64::from(label).to_le_bytes())?;
        }
        for value in listing.soft_labels.iter().flat_map(|soft| soft.values.iter()) {
            writer.put(&value.to_le_bytes())?;
        }
        Ok(writer)
    }

    /// Appends images, each (H, W, 3).
    pub fn images(&mut self, pixels: &[u8]) -> Result<()> {
        self.put(&transposed(pixels, self.size * self.size, 3))
    }

    pub fn finish(mut self) -> Result<()> {
        self.file.flush().at(&self.path)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at(&self.path)
    }
}

/// The safetensors header of a set: JSON, filled up with spaces to a multiple of eight bytes.
fn header(listing: &Listing) -> Result<String> {
    let (n, size) = (listing.len(), listing.size);
    let header = Header {
        format: FORMAT,
        pixels: PIXELS.into(),
        normalization: listing.provenance.dataset.normalization(),
        images_per_class: listing.images_per_class(),
        provenance: listing.provenance.clone(),
        classes: listing.classes.to_vec(),
        indices: listing.indices.clone(),
    };
    let json = serde_json::to_string(&header).map_err(|e| Error::Failed(format!("provenance: {e}")))?;
    let tensor = |dtype, shape: Vec<usize>, from: usize, bytes: usize| TensorInfo {
        dtype,
        shape,
        data_offsets: (from, from + bytes),
    };
    let mut tensors = vec![("labels".to_string(), tensor(Dtype::I64, vec![n], 0, 8 * n))];
    let mut done = 8 * n;
    if let Some(soft) = &listing.soft_labels {
        let shape = vec![n, soft.views, listing.classes.len()];
        tensors.push((SOFT_LABELS.to_string(), tensor(Dtype::F32, shape, done, 4 * soft.values.len())));
        done += 4 * soft.values.len();
    }
    tensors.push(("images".to_string(), tensor(Dtype::U8, vec![n, 3, size, size], done, n * listing.image_len())));
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("{TENSOR_FILE}: {e}"));
    let metadata = Metadata::new(Some(HashMap::from([(KEY.to_string(), json)])), tensors).map_err(|e| failed(&e))?;
    let mut text = serde_json::to_string(&metadata).map_err(|e| failed(&e))?;
    text += &" ".repeat(text.len().next_multiple_of(8) - text.len());
    if text.len() as u64 > LARGEST_HEADER {
        fail!("{TENSOR_FILE}: its header would be {} bytes, more than readers take; make several sets", text.len());
    }
    Ok(text)
}

/// A tensor file that is being read: its listing at once, the pixels when they are asked for.
pub struct Reader {
    pub listing: Listing,
    path: PathBuf,
    /// Stands at the next image.
    file: BufReader<File>,
}

impl Reader {
    /// Reads all but the pixels and checks that shapes, labels, classes and counts agree, and the file's length with them.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(File::open(path).at(path)?);
        let length = file.get_ref().metadata().at(path)?.len();
        let refuse =
            |what: String| Error::Failed(format!("{}: {what}; make it again with distill sample", path.display()));
        let (metadata, start) = safetensors_header(&mut file, length)
            .map_err(|what| refuse(format!("not a whole safetensors file ({what})")))?;
        let header = read_header(&metadata, path, &refuse)?;
        let tensor = |name: &str, dtype| match metadata.info(name) {
            Some(tensor) if tensor.dtype == dtype => Ok(tensor),
            Some(tensor) => Err(refuse(format!("\"{name}\" is {:?}, expected {dtype:?}", tensor.dtype))),
            None => Err(refuse(format!("it has no tensor \"{name}\""))),
        };
        let (images, labels) = (tensor("images", Dtype::U8)?, tensor("labels", Dtype::I64)?);
        let &[n, 3, size, width] = images.shape.as_slice() else {
            return Err(refuse(format!("\"images\" has shape {:?}, expected (N, 3, H, W)", images.shape)));
        };
        if n == 0 || size == 0 || size != width || labels.shape != [n] || header.indices.len() != n {
            return Err(refuse(format!(
                "{n} images of {size}x{width}, labels of shape {:?} and {} indices: expected square images, a label and \
                 an index for each",
                labels.shape,
                header.indices.len()
            )));
        }
        let mut bytes = vec![0; 8 * n];
        file.seek(SeekFrom::Start(start + labels.data_offsets.0 as u64)).at(path)?;
        file.read_exact(&mut bytes).at(path)?;
        let labels = read_labels(&bytes, header.classes.len()).map_err(refuse)?;
        let soft_labels = match metadata.info(SOFT_LABELS) {
            Some(_) => {
                let info = tensor(SOFT_LABELS, Dtype::F32)?;
                let &[rows, views, classes] = info.shape.as_slice() else {
                    return Err(refuse(format!("\"{SOFT_LABELS}\" has shape {:?}, expected {SOFT_SHAPE}", info.shape)));
                };
                if (rows, classes) != (n, header.classes.len()) {
                    return Err(refuse(format!(
                        "\"{SOFT_LABELS}\" has shape {:?}, expected {SOFT_SHAPE} for {n} images and {} classes",
                        info.shape,
                        header.classes.len()
                    )));
                }
                let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
                file.seek(SeekFrom::Start(start + info.data_offsets.0 as u64)).at(path)?;
                file.read_exact(&mut bytes).at(path)?;
                let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                let soft = SoftLabels { values: Arc::new(values), views };
                soft.check(n, classes).map_err(refuse)?;
                Some(soft)
            }
            None => None,
        };
        file.seek(SeekFrom::Start(start + images.data_offsets.0 as u64)).at(path)?;
        let (indices, classes) = (header.indices, Arc::new(header.classes));
        let listing = Listing { labels, indices, size, classes, soft_labels, provenance: header.provenance };
        if listing.images_per_class() != header.images_per_class {
            return Err(refuse("the counts per class in its metadata are not those of its labels".into()));
        }
        Ok(Reader { listing, path: path.into(), file })
    }

    /// The next image: (H, W, 3).
    pub fn image(&mut self) -> Result<Vec<u8>> {
        let mut planes = vec![0; self.listing.image_len()];
        self.file.read_exact(&mut planes).at(&self.path)?;
        Ok(transposed(&planes, 3, self.listing.size * self.listing.size))
    }

    /// The pixels of all images, if none was read before: (N, H, W, 3).
    pub fn pixels(mut self) -> Result<(Listing, Vec<u8>)> {
        // No more than the file holds: `open` has compared its length with the shapes.
        let mut pixels = Vec::with_capacity(self.listing.len() * self.listing.image_len());
        for _ in 0..self.listing.len() {
            pixels.extend(self.image()?);
        }
        Ok((self.listing, pixels))
    }
}

/// Whether the file at `path` is a whole safetensors file, but of another program.
pub fn is_foreign(path: &Path) -> bool {
    let header = || {
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        safetensors_header(&mut file, length).ok()
    };
    header().is_some_and(|(header, _)| header.metadata().as_ref().is_none_or(|texts| !texts.contains_key(KEY)))
}

/// The safetensors header of a file of `length` bytes, and where the tensors begin. It is checked: each tensor has the bytes
/// of its shape, and all of them fill the file. Errors are sentences.
pub fn safetensors_header(file: &mut impl Read, length: u64) -> std::result::Result<(Metadata, u64), String> {
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| format!("it has {length} bytes"))?;
    let size = u64::from_le_bytes(size);
    if size > LARGEST_HEADER || size + 8 > length {
        return Err(format!("its header claims {size} bytes, the file has {length}"));
    }
    let mut text = vec![0; size as usize];
    file.read_exact(&mut text).map_err(|e| e.to_string())?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let expected = (metadata.data_len() as u64).saturating_add(size + 8);
    if expected != length {
        return Err(format!("{expected} bytes expected, {length} found"));
    }
    Ok((metadata, size + 8))
}

fn read_header(metadata: &Metadata, path: &Path, refuse: &dyn Fn(String) -> Error) -> Result<Header> {
    let Some(json) = metadata.metadata().as_ref().and_then(|m| m.get(KEY)) else {
        return Err(refuse(format!("no \"{KEY}\" in its metadata, so it is no distilled set")));
    };
    let bad_json = |e| refuse(format!("its \"{KEY}\" metadata cannot be read ({e})"));
    let Version { format } = serde_json::from_str(json).map_err(bad_json)?;
    if format != FORMAT {
        fail!("{}: format {format}, but this version reads {FORMAT}; use the version that wrote it", path.display());
    }
    serde_json::from_str(json).map_err(bad_json)
}

/// Little-endian i64 labels, each below `classes`.
fn read_labels(bytes: &[u8], classes: usize) -> std::result::Result<Vec<u16>, String> {
    let label = |(i, bytes): (usize, &[u8])| {
        let label = bytes.iter().rev().fold(0i64, |value, &byte| value << 8 | i64::from(byte));
        match u16::try_from(label) {
            Ok(label) if usize::from(label) < classes => Ok(label),
            _ => Err(format!("image {i} has label {label}, but there are {classes} classes")),
        }
    };
    bytes.chunks_exact(8).enumerate().map(label).collect()
}

/// Transposes the (rows, columns) matrix of each image: (H x W, 3) to (3, H x W), or back.
fn transposed(pixels: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let images = pixels.chunks_exact(rows * columns);
    images.flat_map(|image| (0..columns).flat_map(move |c| (0..rows).map(move |r| image[r * columns + c]))).collect()
}
