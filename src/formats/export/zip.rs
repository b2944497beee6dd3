//! Zip archives as PyTorch and NumPy write them: entries stored as they are, without times or the host's name.

use std::io::{self, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::Sink;

/// Bytes: PyTorch maps tensors into memory where they begin at a multiple of this.
const ALIGNMENT: u16 = 64;

/// A zip archive in the making.
pub struct StoredZip<'a>(ZipWriter<&'a mut dyn Sink>);

impl<'a> StoredZip<'a> {
    pub fn new(out: &'a mut dyn Sink) -> Self {
        StoredZip(ZipWriter::new(out))
    }

    /// Begins an entry of `len` bytes; write them to what is returned.
    pub fn entry(&mut self, name: &str, len: u64) -> io::Result<&mut dyn Write> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(len >= u64::from(u32::MAX))
            .with_alignment(ALIGNMENT);
        self.0.start_file(name, options)?;
        Ok(&mut self.0)
    }

    pub fn finish(self) -> io::Result<()> {
        self.0.finish()?;
        Ok(())
    }
}
