//! The data-set card, `README.md`: Hugging Face front matter, then what the images are and how to load them.

use std::fmt::Write;

use super::{Listing, Provenance};
use crate::data::Dataset;

/// What a card says about the files beside it.
pub struct Contents<'a> {
    /// A pattern for the train split's files.
    pub data_files: &'a str,
    /// A list, an item a kind of file.
    pub files: &'a str,
    /// Python that loads them from FOLDER.
    pub loading: &'a str,
}

/// A distilled folder's.
pub const DISTILLED: Contents = Contents {
    data_files: "train/**",
    files: "- `train/<label>_<class>/<number>.png`: the images.\n\
            - `distilled.safetensors`: the same as `images` u8 (N, 3, H, W), 0 to 255, neither normalized nor whitened, and \
            `labels` i64 (N); classes, normalization and provenance in its metadata.\n\
            - `manifest.jsonl`: for each image its file, label, class name and id, seed and index.\n",
    loading: "from datasets import load_dataset\n\
              data = load_dataset(\"FOLDER\", split=\"train\")\n\n\
              from torchvision.datasets import ImageFolder\n\
              data = ImageFolder(\"FOLDER/train\")\n\n\
              from safetensors import safe_open\n\
              with safe_open(\"FOLDER/distilled.safetensors\", \"pt\") as file:\n    \
              images, labels = file.get_tensor(\"images\"), file.get_tensor(\"labels\")\n",
};

/// The whole card.
pub fn card(set: &Listing, contents: &Contents) -> String {
    let loading = format!("\n## Loading\n\n```python\n{}```\n\n{NUMBERS}", contents.loading);
    format!("{}{}{loading}{}", front_matter(set, contents), what_it_is(set, contents), classes(set))
}

fn front_matter(set: &Listing, contents: &Contents) -> String {
    let size = match set.len() {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        _ => "100K<n<1M",
    };
    let license = match set.provenance.dataset {
        Dataset::Shapes => "license: mit",
        _ => "license: other\nlicense_name: see-source",
    };
    format!(
        "---\n{license}\npretty_name: {title}\ntask_categories:\n- image-classification\nsize_categories:\n- {size}\n\
         tags:\n- dataset-distillation\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {files}\n\
         ---\n\n",
        title = serde_json::Value::from(format!("{}, distilled", set.provenance.dataset.title())), // YAML reads JSON
        files = serde_json::Value::from(contents.data_files),
    )
}

fn what_it_is(set: &Listing, contents: &Contents) -> String {
    let Provenance { dataset, method, seed, .. } = &set.provenance;
    let counts = set.images_per_class();
    let present = counts.iter().filter(|&&n| n > 0).count();
    let normalization = dataset.normalization();
    let details = serde_json::to_string_pretty(&set.provenance.details).unwrap_or_default();
    format!(
        "# {title}, distilled\n\n{n} images of {size}x{size} pixels that stand for {title}: up to {ipc} for each of \
         {present} of its {all} classes. Made by distill {version}: {method}, seed {seed}.\n\n\
         ## License and source\n\n{rights}\n\n## Files\n\n{files}\n\
         For training: divide by 255, subtract the mean {mean:?}, divide by the standard deviation {std:?}{whose}.\n\n\
         ## How it was made\n\n```json\n{details}\n```\n",
        title = dataset.title(),
        n = set.len(),
        size = set.size,
        ipc = set.ipc(),
        all = counts.len(),
        version = env!("CARGO_PKG_VERSION"),
        rights = rights(dataset),
        files = contents.files,
        whose = if dataset.own_size().is_none() { " (those of ImageNet)" } else { "" },
        mean = normalization.mean,
        std = normalization.std,
    )
}

/// What is known of the rights in a data set, and so in what was learned from it.
pub fn rights(dataset: &Dataset) -> String {
    match (dataset, dataset.page()) {
        (Dataset::Folder(_), _) => format!(
            "The source is a folder of images called {}. What was learned from them may be bound by their terms: ask those \
             who hold their rights before publishing it.",
            dataset.title()
        ),
        (_, None) => "The source is drawn by code and free of rights of others; MIT license.".into(),
        (Dataset::Hub(_), Some(page)) => format!(
            "The source is {} ({page}), whose page states its licence; what was learned from it may be bound by the same \
             terms.",
            dataset.title()
        ),
        (_, Some(page)) => format!(
            "The source, {} ({page}), has no licence that grants redistribution; what was learned from it may be bound by \
             the same terms. Ask its authors before publishing it.",
            dataset.title()
        ),
    }
}

/// Where labels come from folders.
const NUMBERS: &str = "Readers of folders number those that they find. That gives the labels below if every class has images; \
                       otherwise take the label from the folder's leading number.\n";

fn classes(set: &Listing) -> String {
    let mut text = String::from("\n## Classes\n\n| label | class | id | images |\n| --- | --- | --- | --- |\n");
    for (label, (class, count)) in set.classes.iter().zip(set.images_per_class()).enumerate() {
        let _ = writeln!(text, "| {label} | {} | {} | {count} |", cell(&class.name), cell(&class.id)); // a String never refuses
    }
    text
}

/// A name as a table can hold it.
fn cell(name: &str) -> String {
    name.replace('|', "\\|").replace(['\n', '\r'], " ")
}
