//! The compiled-in protocols hold the published recipe, and a changed one says so.

use distill::eval::{Depth, Length, OptimizerKind, Plan, Protocol, Schedule, StudentKind};

#[test]
fn protocols_are_what_they_promise() {
    let plan = |name: &str, images| Protocol::named(name).unwrap().plan(images);
    let facts = [
        ("challenge", 100, Plan { updates_per_epoch: 1, updates: 1001, drop_at: 502 }),
        ("challenge", 1000, Plan { updates_per_epoch: 4, updates: 4004, drop_at: 2008 }),
        ("challenge", 5000, Plan { updates_per_epoch: 20, updates: 20_020, drop_at: 10_040 }),
        ("steps", 50_000, Plan { updates_per_epoch: 196, updates: 20_000, drop_at: 10_000 }),
        ("quick", 100, Plan { updates_per_epoch: 1, updates: 200, drop_at: 100 }),
    ];
    for (name, images, expected) in facts {
        assert_eq!(plan(name, images), expected, "{name} on {images} images");
    }
    let quick = Protocol::named("quick").unwrap();
    let challenge = Protocol::named("challenge").unwrap();
    let same =
        Protocol { name: "quick".into(), length: Length::Epochs(200), drop_after: 100, runs: 1, ..challenge.clone() };
    assert_eq!(quick, same, "quick differs from challenge in its length and its runs alone");
    let dc = Protocol::named("dc").unwrap();
    let depth = |size| dc.at(size).unwrap().convnet.depth;
    assert_eq!((depth(32), depth(48), depth(64), depth(224)), (3.into(), 3.into(), 4.into(), 4.into()));
    assert!(dc.at(16).unwrap_err().to_string().contains("at least 32 x 32"));
    let same = Protocol { name: "dc".into(), runs: 5, ..challenge.clone() };
    assert_eq!(dc.at(32).unwrap(), same, "dc differs from challenge at 32x32 in its runs alone");
    let steps = Protocol { name: "steps".into(), length: Length::Updates(20_000), drop_after: 10_000, ..challenge };
    assert_eq!(Protocol::named("steps").unwrap(), steps);
    for name in Protocol::names() {
        let protocol = Protocol::named(name).unwrap();
        assert_eq!((protocol.check(), protocol.name.as_str()), (Ok(()), name));
    }
}

#[test]
fn a_changed_protocol_says_so() {
    let named = |name: &str| Protocol::named(name).unwrap();
    let five = named("quick").with_epochs(5).unwrap().with_runs(2).unwrap();
    assert_eq!(
        (five.name.as_str(), five.length, five.drop_after, five.runs),
        ("quick (changed: epochs=5, runs=2)", Length::Epochs(5), 3, 2)
    );
    assert_eq!(named("challenge").with_epochs(2002).unwrap().drop_after, 1004);
    assert_eq!(named("steps").with_epochs(10).unwrap().drop_after, 5);
    assert_eq!(named("quick").with_epochs(200).unwrap(), named("quick"));
    assert_eq!(named("quick").with_runs(3).unwrap().name, "quick (changed: runs=3)");
    assert_eq!(named("challenge").with_runs(3).unwrap(), named("challenge"));
    for error in [
        Protocol::named("fast").unwrap_err(),
        named("quick").with_epochs(0).unwrap_err(),
        named("quick").with_runs(0).unwrap_err(),
        "resnet".parse::<StudentKind>().unwrap_err(),
    ] {
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains("expected"), "{error}");
    }
}

/// Results of earlier versions name the recipe by these keys.
#[test]
fn a_recipe_with_hard_labels_is_written_as_ever() {
    let protocol = Protocol::named("challenge").unwrap().at(32).unwrap();
    let found = serde_json::to_string(&protocol).unwrap();
    let expected = concat!(
        r#"{"name":"challenge","length":{"epochs":1001},"drop_after":502,"drop_factor":0.1,"batch_size":256,"lr":0.01,"#,
        r#""momentum":0.9,"weight_decay":0.0005,"augment":true,"runs":3,"convnet":{"depth":3,"width":128}}"#
    );
    assert_eq!(found, expected);
    assert_eq!(protocol.sha256().unwrap(), distill::checksums::sha256(expected.as_bytes()));
}

const OWN: &str = r#"
name = "mine"
length = { epochs = 5 }
drop_after = 3
drop_factor = 0.1
batch_size = 64
lr = 0.05
weight_decay = 0.0
augment = false
runs = 2
[convnet]
depth = { 16 = 2, 64 = 4 }
width = 32
"#;

#[test]
fn a_file_of_ones_own_is_a_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, OWN).unwrap();
    let mine = Protocol::of(path.to_str().unwrap()).unwrap();
    assert_eq!((mine.name.as_str(), mine.length, mine.momentum), ("mine", Length::Epochs(5), 0.0));
    assert_eq!((mine.schedule, mine.optimizer), (Schedule::Drop, OptimizerKind::Sgd));
    assert_eq!(mine.at(32).unwrap().convnet.depth, Depth::Fixed(2));

    let refusal = |from: &str, to: &str| {
        assert!(OWN.contains(from), "{from}");
        std::fs::write(&path, OWN.replace(from, to)).unwrap();
        let error = Protocol::read(&path).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    };
    for (from, to, words) in [
        ("runs = 2", "runs = 2\nepochs = 3", "unknown field `epochs`"),
        ("runs = 2", "runs = 0", "runs is 0, expected 1 to 1000"),
        ("runs = 2", "", "missing field `runs`"),
        ("lr = 0.05", "lr = -1.0", "lr is -1, expected a number above 0"),
        ("lr = 0.05", "lr = nan", "lr is NaN, expected a number above 0"),
        ("lr = 0.05", "lr = 0.05\nmomentum = 1.0", "momentum is 1, expected from 0 to below 1"),
        ("lr = 0.05", "lr = 0.05\nmomentum = 0.9\noptimizer = \"adamw\"", "momentum is SGD's"),
        ("lr = 0.05", "lr = 0.05\noptimizer = \"adam\"", "unknown variant `adam`, expected `sgd` or `adamw`"),
        ("batch_size = 64", "batch_size = 0", "batch_size is 0, expected 1 to"),
        ("drop_after = 3", "drop_after = 6", "drop_after is 6, expected 1 to 5"),
        ("drop_after = 3", "drop_after = 3\nschedule = \"cosine\"", "drop_after and drop_factor are of schedule"),
        ("{ epochs = 5 }", "{ epochs = 0 }", "length is 0"),
        ("{ epochs = 5 }", "{ epoch = 5 }", "unknown variant `epoch`"),
        ("{ 16 = 2, 64 = 4 }", "{ wide = 2 }", "a key \"wide\", expected an image size"),
        ("{ 16 = 2, 64 = 4 }", "{}", "lists no size"),
        ("{ 16 = 2, 64 = 4 }", "[2]", "as { 32 = 3, 64 = 4 }"),
        ("{ 16 = 2, 64 = 4 }", "99", "convnet.depth is 99, expected 1 to 16"),
        ("width = 32", "width = 32\n[soft_labels]\ntemperature = 0.0", "soft_labels.temperature is 0"),
        ("\"mine\"", "\"../mine\"", "letters, digits"),
        ("\"mine\"", "\"challenge\"", "is that of another protocol"),
    ] {
        let message = refusal(from, to);
        assert!(message.contains("mine.toml") && message.contains(words), "{words:?} is not in: {message}");
    }
    assert!(Protocol::of("no/such.toml").unwrap_err().to_string().contains("no/such.toml"));
}

#[test]
fn a_cosine_goes_from_the_learning_rate_to_nothing() {
    let soft = Protocol::named("soft").unwrap();
    assert_eq!(soft.lr_at(0, 8), Some(soft.lr));
    assert!((soft.lr_at(4, 8).unwrap() - 0.5 * soft.lr).abs() < 1e-9);
    assert!(soft.lr_at(7, 8).unwrap() < 0.05 * soft.lr);
    assert_eq!(Protocol::named("quick").unwrap().lr_at(7, 8), None);
    assert_eq!(soft.clone().with_epochs(7).unwrap().drop_after, 0);
}
