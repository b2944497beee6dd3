//! What the evaluator of the ECCV 2024 dataset distillation challenge loads: a PyTorch file that holds one float tensor
//! (N, 3, H, W), already normalized, in order of class, with ten images of each.

use std::io;

use super::pt::{Archive, Pickle, Storage};
use super::{Images, Sink, planes};
use crate::distilled::Listing;
use crate::error::Result;
use crate::usage;

/// Images of each class.
pub const IPC: usize = 10;

/// Refuses a set that does not have ten images of every class.
pub fn check(set: &Listing) -> Result<()> {
    match set.images_per_class().into_iter().enumerate().find(|&(_, count)| count != IPC) {
        None if !set.labels.is_sorted() => {
            usage!("--format challenge: the set is not in order of class; import it first")
        }
        None => Ok(()),
        Some((label, count)) => usage!(
            "--format challenge: the challenge takes {IPC} images of every class, but the set has {count} of class {label} \
             ({}); make such a set with `distill sample --ipc {IPC}`",
            set.classes[label].name
        ),
    }
}

pub fn write(set: &Listing, images: Images, out: &mut dyn Sink) -> io::Result<()> {
    let (n, size) = (set.len(), set.size);
    let normalization = set.provenance.dataset.normalization();
    let mut pickle = Pickle::new();
    pickle.tensor("0", Storage::Float, &[n, 3, size, size]);
    let mut archive = Archive::new(out, &pickle.finish())?;
    let entry = archive.tensor("0", n * 3 * size * size * 4)?;
    let mut floats = Vec::new();
    for image in images {
        let planes = planes(&image?);
        floats.clear();
        for ((plane, mean), std) in planes.chunks_exact(size * size).zip(normalization.mean).zip(normalization.std) {
            floats.extend(plane.iter().flat_map(|&p| ((f32::from(p) / 255.0 - mean) / std).to_le_bytes()));
        }
        entry.write_all(&floats)?;
    }
    archive.finish()
}
