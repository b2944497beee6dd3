//! What data sets are called.

use distill::data::Dataset;

#[test]
fn every_name_reads_back_and_serializes_as_itself() {
    let names = ["shapes", "cifar10", "cifar100", "tinyimagenet", "folder:/a b/\u{e9}", "hf:uoft-cs/cifar10"];
    for name in names {
        let dataset: Dataset = name.parse().unwrap();
        assert_eq!(dataset.to_string(), name);
        assert_eq!(serde_json::to_value(&dataset).unwrap(), serde_json::json!(name));
        assert_eq!(serde_json::from_value::<Dataset>(serde_json::json!(name)).unwrap(), dataset);
    }
    for named in Dataset::NAMED {
        assert!(names.contains(&named.to_string().as_str()), "{named}");
    }
}

#[test]
fn a_folder_is_named_by_its_absolute_path() {
    let here = std::env::current_dir().unwrap();
    for (name, path) in [("folder:x", "x"), ("folder:./x/", "x"), ("folder:x//y/.", "x/y"), ("folder:../x", "../x")] {
        assert_eq!(name.parse::<Dataset>().unwrap(), Dataset::Folder(here.join(path)), "{name}");
    }
}

#[test]
fn an_unknown_name_is_a_usage_error_with_the_nearest_known_one() {
    let error = "cifar-100".parse::<Dataset>().unwrap_err();
    assert_eq!(error.exit_code(), 2);
    for word in ["\"cifar-100\"", "shapes, cifar10, cifar100, tinyimagenet", "did you mean cifar100?"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    for (name, words) in [
        ("mnist", "folder:PATH"),
        ("foldr:x", "did you mean folder:PATH?"),
        ("./flowers", "did you mean folder:./flowers?"),
        ("folder:", "folder of images"),
        ("hf:cifar10", "hf:OWNER/NAME"),
        ("hf:a/b/c", "hf:OWNER/NAME"),
        ("hf:../x", "hf:OWNER/NAME"),
    ] {
        let error = name.parse::<Dataset>().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn file_stems_are_one_word_and_differ_between_folders_and_sizes() {
    assert_eq!(Dataset::Cifar100.file_stem(32), "cifar100");
    let stem = |name: &str, size| name.parse::<Dataset>().unwrap().file_stem(size);
    let stems = [
        stem("folder:/a/my flowers", 32),
        stem("folder:/a/my flowers", 64),
        stem("folder:/b/my flowers", 32),
        stem("hf:me/my-flowers", 32),
    ];
    assert!(stems[0].starts_with("my_flowers-32px-"), "{stems:?}");
    for (i, stem) in stems.iter().enumerate() {
        assert!(!stem.contains('/') && !stems[..i].contains(stem), "{stems:?}");
    }
}
