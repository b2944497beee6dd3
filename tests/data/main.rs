//! Loading each data set: from small files made here, from damaged ones, and from the real sets where they are at hand.

mod cifar;
mod image_folder;
mod names;
mod parquet;
mod real;
mod shapes;
mod tiny_imagenet;

use std::path::Path;

use distill::data::{Dataset, Split, load};

/// Asserts that loading fails with a message that holds each of `words`, as a failure (exit code 1).
fn assert_fails(dataset: &Dataset, split: Split, folder: &Path, words: &[&str]) {
    let size = dataset.own_size().unwrap();
    let error = load(dataset, split, size, Some(folder)).expect_err("a bad input must be refused");
    let message = error.to_string();
    assert_eq!(error.exit_code(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}
