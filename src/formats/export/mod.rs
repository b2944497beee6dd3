//! Writing. Each writer streams: it holds one image beside the set that it is given. The same set gives the same bytes,
//! whenever and wherever it is written.

mod challenge;
mod npz;
mod pt;
mod zip;

use std::fs;
use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use super::Format;
use crate::distilled::DistilledSet;
use crate::error::{AtPath, Result};
use crate::fs::{folder_of, write_atomic_with};
use crate::usage;

/// Writes `set` to `path`, which appears complete or not at all. A path that exists is refused without `overwrite`.
pub fn export(set: &DistilledSet, format: Format, path: &Path, overwrite: bool) -> Result<()> {
    if path.exists() && !overwrite {
        usage!("{} exists; replace it with --overwrite, or choose another place with --to", path.display());
    }
    if format == Format::Challenge {
        challenge::check(set)?;
    }
    let parent = folder_of(path);
    fs::create_dir_all(parent).at(parent)?;
    match format {
        Format::Pt => write_file(path, |out| pt::write(set, out)),
        Format::Npz => write_file(path, |out| npz::write(set, out)),
        Format::Challenge => write_file(path, |out| challenge::write(set, out)),
    }
}

/// A file's content, streamed.
trait Sink: Write + Seek {}
impl<T: Write + Seek> Sink for T {}

fn write_file(path: &Path, content: impl FnOnce(&mut dyn Sink) -> std::io::Result<()>) -> Result<()> {
    write_atomic_with(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        content(&mut out)?;
        out.flush()
    })
}

/// Image `i` of a set as (3, H, W), put into `planes`.
fn planes_of(set: &DistilledSet, i: usize, planes: &mut Vec<u8>) {
    let image = set.images.image(i);
    planes.clear();
    planes.extend((0..3).flat_map(|c| image.iter().skip(c).step_by(3)));
}

/// The f64 nearest to the shortest decimal of an f32: 0.5071, not 0.507099986.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
