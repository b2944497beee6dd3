//! An image folder, `train/<000_name>/0000.png`, as Hugging Face's `imagefolder` and torchvision's `ImageFolder` open it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;

use super::{Images, png};
use crate::distilled::{Contents, FileNames, Listing, card};

const CONTENTS: Contents = Contents {
    data_files: "train/**",
    files: "- `train/<label>_<class>/<number>.png`: the images.\n\
            - `manifest.jsonl`: for each image its file, label, class name and id, seed and index.\n",
    loading: "from datasets import load_dataset\n\
              data = load_dataset(\"FOLDER\", split=\"train\")\n\n\
              from torchvision.datasets import ImageFolder\n\
              data = ImageFolder(\"FOLDER/train\")\n",
};

pub fn write(set: &Listing, images: Images, folder: &Path) -> io::Result<()> {
    let names = FileNames::new(&set.classes, set.ipc());
    let mut places = vec![0; set.classes.len()];
    let mut manifest = BufWriter::new(File::create(folder.join("manifest.jsonl"))?);
    for (i, (&label, image)) in set.labels.iter().zip(images).enumerate() {
        let place = &mut places[usize::from(label)];
        if *place == 0 {
            fs::create_dir_all(folder.join(names.folder(label)))?;
        }
        let file = names.file(label, *place);
        *place += 1;
        fs::write(folder.join(&file), png(&image?, set.size)?)?;
        let class = &set.classes[usize::from(label)];
        let line = json!({ "file": file, "label": label, "class_name": class.name, "class_id": class.id,
                           "seed": set.provenance.seed, "index": set.indices[i] });
        writeln!(manifest, "{line}")?;
    }
    manifest.flush()?;
    fs::write(folder.join("README.md"), card(set, &CONTENTS))
}
