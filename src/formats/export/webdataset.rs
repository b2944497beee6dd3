//! WebDataset: tar archives whose entries come in samples, `000000.png`, `000000.cls` and `000000.json`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::{Images, png};
use crate::distilled::{Contents, Listing, card};

/// Bytes after which an archive is full.
const SHARD: u64 = 256 << 20;

const CONTENTS: Contents = Contents {
    data_files: "train-*.tar",
    files: "- `train-<shard>.tar`: samples of `<number>.png`, `<number>.cls` (the label) and `<number>.json` (label, class \
            name and id, seed, index).\n",
    loading: "import webdataset\n\
              data = webdataset.WebDataset(\"FOLDER/train-000000.tar\").decode(\"pil\").to_tuple(\"png\", \"cls\")\n\n\
              from datasets import load_dataset\n\
              data = load_dataset(\"FOLDER\", split=\"train\")\n",
};

pub fn write(set: &Listing, images: Images, folder: &Path) -> io::Result<()> {
    write_shards(set, images, folder, SHARD)?;
    std::fs::write(folder.join("README.md"), card(set, &CONTENTS))
}

fn write_shards(set: &Listing, images: Images, folder: &Path, full: u64) -> io::Result<()> {
    let mut shard = Shard::create(folder, 0)?;
    let mut number = 0;
    for (i, (&label, image)) in set.labels.iter().zip(images).enumerate() {
        if shard.bytes >= full {
            shard.finish()?;
            number += 1;
            shard = Shard::create(folder, number)?;
        }
        let class = &set.classes[usize::from(label)];
        let about = json!({ "label": label, "class_name": class.name, "class_id": class.id, "seed": set.provenance.seed,
                            "index": set.indices[i] });
        shard.put(&format!("{i:06}.png"), &png(&image?, set.size)?)?;
        shard.put(&format!("{i:06}.cls"), label.to_string().as_bytes())?;
        shard.put(&format!("{i:06}.json"), about.to_string().as_bytes())?;
    }
    shard.finish()
}

/// An archive in the making.
struct Shard {
    tar: Builder<BufWriter<File>>,
    bytes: u64,
}

impl Shard {
    fn create(folder: &Path, number: usize) -> io::Result<Self> {
        let file = File::create(folder.join(format!("train-{number:06}.tar")))?;
        Ok(Shard { tar: Builder::new(BufWriter::new(file)), bytes: 0 })
    }

    /// Adds a file without a time or an owner.
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        self.bytes += bytes.len() as u64;
        self.tar.append_data(&mut header, name, bytes)
    }

    fn finish(self) -> io::Result<()> {
        self.tar.into_inner()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Map;

    use super::*;
    use crate::data::{Class, Dataset};
    use crate::distilled::Provenance;

    #[test]
    fn full_archives_are_followed_by_others() {
        let provenance = Provenance { dataset: Dataset::Shapes, method: String::new(), seed: 0, details: Map::new() };
        let classes = Arc::new(vec![Class { name: "a".into(), id: "0".into() }]);
        let set = Listing { labels: vec![0; 5], indices: vec![0; 5], size: 1, classes, soft_labels: None, provenance };
        let folder = tempfile::tempdir().unwrap();
        let one = 1 + png(&[1, 2, 3], 1).unwrap().len() as u64; // more than this is full
        write_shards(&set, &mut (0..5).map(|i| Ok(vec![i; 3])), folder.path(), 2 * one).unwrap();
        let mut names = Vec::new();
        for number in 0..3 {
            let mut tar = tar::Archive::new(File::open(folder.path().join(format!("train-{number:06}.tar"))).unwrap());
            names.push(
                tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect::<Vec<_>>(),
            );
        }
        assert_eq!(names.concat().len(), 15);
        assert!(names.iter().all(|n| n.len() % 3 == 0 && !n.is_empty()), "no sample is split: {names:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
