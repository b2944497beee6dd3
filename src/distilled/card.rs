//! The data-set card, `README.md`: Hugging Face front matter, then what the images are and how to load them.

use std::fmt::Write;

use super::{Listing, Provenance};
use crate::data::Dataset;

/// The whole card.
pub fn card(set: &Listing) -> String {
    format!("{}{}{}{}", front_matter(set), what_it_is(set), HOW_TO_LOAD, classes(set))
}

fn front_matter(set: &Listing) -> String {
    let size = match set.len() {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        _ => "100K<n<1M",
    };
    format!(
        "---\nlicense: other\nlicense_name: see-source\npretty_name: {title}\ntask_categories:\n\
         - image-classification\nsize_categories:\n- {size}\ntags:\n- dataset-distillation\nconfigs:\n\
         - config_name: default\n  data_files:\n  - split: train\n    path: train/**\n---\n\n",
        // A JSON string is a YAML one: a folder may have any name.
        title = serde_json::Value::from(format!("{}, distilled", set.provenance.dataset.title())),
    )
}

fn what_it_is(set: &Listing) -> String {
    let Provenance { dataset, method, seed, .. } = &set.provenance;
    let counts = set.images_per_class();
    let present = counts.iter().filter(|&&n| n > 0).count();
    let normalization = dataset.normalization();
    let details = serde_json::to_string_pretty(&set.provenance.details).unwrap_or_default();
    format!(
        "# {title}, distilled\n\n{n} images of {size}x{size} pixels that stand for {title}: up to {ipc} for each of \
         {present} of its {all} classes. Made by distill {version}: {method}, seed {seed}.\n\n\
         {source}\n\n\
         - `train/<label>_<class>/<number>.png`: the images.\n\
         - `distilled.safetensors`: the same as `images` u8 (N, 3, H, W), 0 to 255, neither normalized nor whitened, and \
         `labels` i64 (N); classes, normalization and provenance in its metadata.\n\
         - `manifest.jsonl`: for each image its file, label, class name and id, seed and index.\n\n\
         For training: divide by 255, subtract the mean {mean:?}, divide by the standard deviation {std:?}{whose}.\n\n\
         ```json\n{details}\n```\n",
        title = dataset.title(),
        n = set.len(),
        size = set.size,
        ipc = set.ipc(),
        all = counts.len(),
        version = env!("CARGO_PKG_VERSION"),
        source = source(dataset),
        whose = if dataset.own_size().is_none() { " (those of ImageNet)" } else { "" },
        mean = normalization.mean,
        std = normalization.std,
    )
}

fn source(dataset: &Dataset) -> String {
    match (dataset, dataset.page()) {
        (Dataset::Folder(_), _) => format!(
            "The source is a folder of images called {}. What was learned from them may be bound by their terms: ask those \
             who hold their rights before publishing this set.",
            dataset.title()
        ),
        (_, None) => "The source is drawn by code and free of rights of others.".into(),
        (Dataset::Hub(_), Some(page)) => format!(
            "The source is {} ({page}), whose page states its licence; what was learned from it may be bound by the same \
             terms.",
            dataset.title()
        ),
        (_, Some(page)) => format!(
            "The source, {} ({page}), has no licence that grants redistribution; what was learned from it may be bound by \
             the same terms. Ask its authors before publishing this set.",
            dataset.title()
        ),
    }
}

const HOW_TO_LOAD: &str = r#"
## Loading

```python
from datasets import load_dataset
data = load_dataset("FOLDER", split="train")

from torchvision.datasets import ImageFolder
data = ImageFolder("FOLDER/train")

from safetensors import safe_open
with safe_open("FOLDER/distilled.safetensors", "pt") as file:
    images, labels = file.get_tensor("images"), file.get_tensor("labels")
```

`ImageFolder` and `load_dataset` number the folders that they find. That gives the labels below if every class has images;
otherwise take the label from the folder's leading number.
"#;

fn classes(set: &Listing) -> String {
    let mut text = String::from("\n## Classes\n\n| label | class | id | images |\n| --- | --- | --- | --- |\n");
    for (label, (class, count)) in set.classes.iter().zip(set.images_per_class()).enumerate() {
        let _ = writeln!(text, "| {label} | {} | {} | {count} |", class.name, class.id); // a String never refuses
    }
    text
}
