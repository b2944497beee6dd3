//! Reading the zip archives of strangers: stored and deflated entries, whose sizes and checksums must be true.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use crate::error::{AtPath, Error, Result};
use crate::fail;

/// An entry that claims to unpack to more than so many times its size is refused: images don't.
const MOST_EXPANSION: u64 = 200;

/// An archive on disk.
pub struct ZipIn {
    archive: ZipArchive<BufReader<File>>,
    path: PathBuf,
    bytes: u64,
}

impl ZipIn {
    /// Opens the archive; `remedy` says what to do about a file that is none.
    pub fn open(path: &Path, remedy: &str) -> Result<Self> {
        let file = File::open(path).at(path)?;
        let bytes = file.metadata().at(path)?.len();
        match ZipArchive::new(BufReader::new(file)) {
            Ok(archive) => Ok(ZipIn { archive, path: path.into(), bytes }),
            Err(e) => fail!("{}: expected a whole zip archive ({e}); {remedy}", path.display()),
        }
    }

    /// The entries' names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.archive.file_names().flatten().map(String::from).collect();
        names.sort();
        names
    }

    /// Opens an entry by its name.
    pub fn entry(&mut self, name: &str) -> Result<Entry<'_>> {
        let refuse =
            |path: &Path, what: String| Error::Failed(format!("{}: {what}; get the file again", path.display()));
        let (path, bytes) = (&self.path, self.bytes);
        let Some(index) = self.archive.index_for_name(name) else {
            return Err(refuse(path, format!("the archive has no entry {name}")));
        };
        let file = self.archive.by_index_raw(index).map_err(|e| refuse(path, format!("entry {name}: {e}")))?;
        let (len, packed, crc, method) = (file.size(), file.compressed_size(), file.crc32(), file.compression());
        if file.encrypted() {
            return Err(refuse(path, format!("entry {name} is encrypted")));
        }
        let deflated = method == CompressionMethod::DEFLATE;
        if !deflated && method != CompressionMethod::Stored {
            return Err(refuse(path, format!("entry {name} is packed with {method}, expected stored or deflated")));
        }
        if packed > bytes || if deflated { len / MOST_EXPANSION > packed } else { len != packed } {
            let claim = format!("entry {name} claims {len} bytes, packed into {packed}, in a file of {bytes}");
            return Err(refuse(path, claim));
        }
        let data: Box<dyn Read + '_> =
            if deflated { Box::new(DeflateDecoder::new(BufReader::new(file))) } else { Box::new(file) };
        Ok(Entry { data, len, read: 0, crc: Crc::new(), expected: crc })
    }
}

/// The bytes of an entry; the read that meets its end checks that they are those which the archive promised.
pub struct Entry<'a> {
    data: Box<dyn Read + 'a>,
    /// Bytes in all.
    pub len: u64,
    read: u64,
    crc: Crc,
    expected: u32,
}

impl Read for Entry<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.data.read(buffer)?;
        self.read += n as u64;
        self.crc.update(&buffer[..n]);
        let ended = n == 0 && !buffer.is_empty();
        if self.read > self.len || ended && (self.read < self.len || self.crc.sum() != self.expected) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive is damaged; get the file again"));
        }
        Ok(n)
    }
}
