//! What the evaluator of the ECCV 2024 dataset distillation challenge loads: a PyTorch file that holds one float tensor
//! (N, 3, H, W), already normalized, in order of class, with ten images of each.

use std::io;

use super::pt::{Archive, Pickle, Storage};
use super::{Sink, planes_of};
use crate::distilled::DistilledSet;
use crate::error::Result;
use crate::usage;

/// Images of each class.
pub const IPC: usize = 10;

/// Refuses a set that does not have ten images of every class.
pub fn check(set: &DistilledSet) -> Result<()> {
    match set.listing().images_per_class().into_iter().enumerate().find(|&(_, count)| count != IPC) {
        None => Ok(()),
        Some((label, count)) => usage!(
            "--format challenge: the challenge takes {IPC} images of every class, but the set has {count} of class {label} \
             ({}); make such a set with `distill sample --ipc {IPC}`",
            set.images.classes[label].name
        ),
    }
}

pub fn write(set: &DistilledSet, out: &mut dyn Sink) -> io::Result<()> {
    let (n, size) = (set.images.len(), set.images.size);
    let normalization = set.provenance.dataset.normalization();
    let mut pickle = Pickle::new();
    pickle.tensor("0", Storage::Float, &[n, 3, size, size]);
    let mut archive = Archive::new(out, &pickle.finish())?;
    let entry = archive.tensor("0", n * 3 * size * size * 4)?;
    let (mut planes, mut floats) = (Vec::new(), Vec::new());
    for i in 0..n {
        planes_of(set, i, &mut planes);
        floats.clear();
        for ((plane, mean), std) in planes.chunks_exact(size * size).zip(normalization.mean).zip(normalization.std) {
            floats.extend(plane.iter().flat_map(|&p| ((f32::from(p) / 255.0 - mean) / std).to_le_bytes()));
        }
        entry.write_all(&floats)?;
    }
    archive.finish()
}
