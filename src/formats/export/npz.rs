//! NumPy's `.npz`: a zip archive of `.npy` arrays, none of which needs pickle.

use std::io::{self, Write};

use super::zip::StoredZip;
use super::{Images, Sink, planes, shortest};
use crate::distilled::Listing;

/// Writes `images` u8 (N, 3, H, W), `labels` i64 (N), `soft_labels` f32 (N, views, classes) where there are any, `class_names` and `class_ids` (text), `mean` and `std` f64 (3) of
/// pixels in [0, 1], and `dataset` (one text).
pub fn write(set: &Listing, images: Images, out: &mut dyn Sink) -> io::Result<()> {
    let (n, size) = (set.len(), set.size);
    let mut zip = StoredZip::new(out);
    let entry = array(&mut zip, "images", "|u1", &[n, 3, size, size], 1)?;
    for image in images {
        entry.write_all(&planes(&image?))?;
    }
    let entry = array(&mut zip, "labels", "<i8", &[n], 8)?;
    for &label in &set.labels {
        entry.write_all(&i64::from(label).to_le_bytes())?;
    }
    if let Some(soft) = &set.soft_labels {
        let entry = array(&mut zip, "soft_labels", "<f4", &[n, soft.views, set.classes.len()], 4)?;
        soft.values.iter().try_for_each(|value| entry.write_all(&value.to_le_bytes()))?;
    }
    let names: Vec<&str> = set.classes.iter().map(|class| class.name.as_str()).collect();
    let ids: Vec<&str> = set.classes.iter().map(|class| class.id.as_str()).collect();
    texts(&mut zip, "class_names", &[names.len()], &names)?;
    texts(&mut zip, "class_ids", &[ids.len()], &ids)?;
    let normalization = set.provenance.dataset.normalization();
    for (name, values) in [("mean", normalization.mean), ("std", normalization.std)] {
        let bytes: Vec<u8> = values.into_iter().flat_map(|value| shortest(value).to_le_bytes()).collect();
        array(&mut zip, name, "<f8", &[3], 8)?.write_all(&bytes)?;
    }
    texts(&mut zip, "dataset", &[], &[&set.provenance.dataset.to_string()])?;
    zip.finish()
}

/// Begins an array; its values, `width` bytes each, are to be written to what is returned.
fn array<'a>(
    zip: &'a mut StoredZip<'_>,
    name: &str,
    dtype: &str,
    shape: &[usize],
    width: usize,
) -> io::Result<&'a mut dyn Write> {
    let shape_text: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape_text}), }}");
    let unpadded = 10 + header.len() + 1; // magic, version and length before it, a newline after
    header += &" ".repeat(unpadded.next_multiple_of(64) - unpadded);
    header.push('\n');
    let len = 10 + header.len() + shape.iter().product::<usize>() * width;
    let entry = zip.entry(&format!("{name}.npy"), len as u64)?;
    entry.write_all(b"\x93NUMPY\x01\x00")?;
    entry.write_all(&(header.len() as u16).to_le_bytes())?;
    entry.write_all(header.as_bytes())?;
    Ok(entry)
}

/// An array of text: UTF-32, each filled up with zeros to the longest.
fn texts(zip: &mut StoredZip, name: &str, shape: &[usize], values: &[&str]) -> io::Result<()> {
    let longest = values.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
    let entry = array(zip, name, &format!("<U{longest}"), shape, longest * 4)?;
    for text in values {
        let padded = text.chars().map(u32::from).chain(std::iter::repeat(0)).take(longest);
        entry.write_all(&padded.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())?;
    }
    Ok(())
}
