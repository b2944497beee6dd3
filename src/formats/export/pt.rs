//! PyTorch files: a zip archive with a pickle of protocol 2, the newest that `torch.load(weights_only=True)` takes, and
//! an entry for the bytes of each tensor.

use std::io::{self, Write};

use super::zip::StoredZip;
use super::{Images, Sink, planes};
use crate::distilled::Listing;

/// Writes a dict: `images` u8 (N, 3, H, W), `labels` i64 (N), `soft_labels` f32 (N, views, classes) where there are any, `classes` and `class_ids` (lists of str), `mean`, `std`
/// (lists of float, of pixels in [0, 1]), `dataset` (str).
pub fn write(set: &Listing, images: Images, out: &mut dyn Sink) -> io::Result<()> {
    let (n, size) = (set.len(), set.size);
    let normalization = set.provenance.dataset.normalization();
    let mut pickle = Pickle::new();
    pickle.dict(|pickle| {
        pickle.text("images");
        pickle.tensor("0", Storage::Byte, &[n, 3, size, size]);
        pickle.text("labels");
        pickle.tensor("1", Storage::Long, &[n]);
        if let Some(soft) = &set.soft_labels {
            pickle.text("soft_labels");
            pickle.tensor("2", Storage::Float, &[n, soft.views, set.classes.len()]);
        }
        pickle.text("classes");
        pickle.list(set.classes.iter(), |pickle, class| pickle.text(&class.name));
        pickle.text("class_ids");
        pickle.list(set.classes.iter(), |pickle, class| pickle.text(&class.id));
        for (name, values) in [("mean", normalization.mean), ("std", normalization.std)] {
            pickle.text(name);
            pickle.list(values.iter(), |pickle, value| pickle.float(*value));
        }
        pickle.text("dataset");
        pickle.text(&set.provenance.dataset.to_string());
    });
    let mut archive = Archive::new(out, &pickle.finish())?;
    let entry = archive.tensor("0", n * set.image_len())?;
    for image in images {
        entry.write_all(&planes(&image?))?;
    }
    let entry = archive.tensor("1", n * 8)?;
    for &label in &set.labels {
        entry.write_all(&i64::from(label).to_le_bytes())?;
    }
    if let Some(soft) = &set.soft_labels {
        let entry = archive.tensor("2", 4 * soft.values.len())?;
        soft.values.iter().try_for_each(|value| entry.write_all(&value.to_le_bytes()))?;
    }
    archive.finish()
}

/// A PyTorch archive in the making.
pub struct Archive<'a>(StoredZip<'a>);

impl<'a> Archive<'a> {
    pub fn new(out: &'a mut dyn Sink, pickle: &[u8]) -> io::Result<Self> {
        let mut zip = StoredZip::new(out);
        for (name, bytes) in [("archive/data.pkl", pickle), ("archive/byteorder", b"little")] {
            zip.entry(name, bytes.len() as u64)?.write_all(bytes)?;
        }
        Ok(Archive(zip))
    }

    /// Begins the `len` little-endian bytes of the tensor that the pickle calls `key`.
    pub fn tensor(&mut self, key: &str, len: usize) -> io::Result<&mut dyn Write> {
        self.0.entry(&format!("archive/data/{key}"), len as u64)
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.0.entry("archive/version", 2)?.write_all(b"3\n")?;
        self.0.finish()
    }
}

/// What a tensor's bytes are, in PyTorch's words.
pub enum Storage {
    Byte,
    Long,
    Float,
}

/// A pickle in the making.
pub struct Pickle(Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Pickle(b"\x80\x02".to_vec())
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }

    /// A contiguous tensor on the CPU, as a call of `torch._utils._rebuild_tensor_v2`.
    pub fn tensor(&mut self, key: &str, storage: Storage, shape: &[usize]) {
        let storage = match storage {
            Storage::Byte => "ByteStorage",
            Storage::Long => "LongStorage",
            Storage::Float => "FloatStorage",
        };
        let strides: Vec<usize> = (1..=shape.len()).map(|d| shape[d..].iter().product()).collect();
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.0.extend(b"((");
        self.text("storage");
        self.global("torch", storage);
        self.text(key);
        self.text("cpu");
        self.integer(shape.iter().product());
        self.0.extend(b"tQ"); // the tuple is the storage's persistent id
        self.integer(0); // where in the storage the tensor begins
        for numbers in [shape, &strides] {
            self.0.push(b'(');
            numbers.iter().for_each(|&n| self.integer(n));
            self.0.push(b't');
        }
        self.0.push(0x89); // requires_grad: False
        self.global("collections", "OrderedDict"); // no hooks
        self.0.extend(b")RtR");
    }

    /// The keys and values that `entries` writes in turn.
    fn dict(&mut self, entries: impl FnOnce(&mut Self)) {
        self.0.extend(b"}(");
        entries(self);
        self.0.push(b'u');
    }

    fn list<T>(&mut self, items: impl Iterator<Item = T>, item: impl Fn(&mut Self, T)) {
        self.0.extend(b"](");
        items.for_each(|value| item(self, value));
        self.0.push(b'e');
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    /// The shortest decimal that gives the f32, as a Python float.
    fn float(&mut self, value: f32) {
        self.0.push(b'G');
        self.0.extend(super::shortest(value).to_be_bytes());
    }

    fn integer(&mut self, value: usize) {
        match i32::try_from(value) {
            Ok(value) => {
                self.0.push(b'J');
                self.0.extend(value.to_le_bytes());
            }
            Err(_) => {
                self.0.extend([0x8a, 9]); // nine bytes: the last one keeps the sign positive
                self.0.extend((value as u64).to_le_bytes());
                self.0.push(0);
            }
        }
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }
}
