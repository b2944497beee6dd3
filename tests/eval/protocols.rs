//! The compiled-in protocols hold the published recipe, and a changed one says so.

use distill::eval::{Length, Plan, Protocol, StudentKind};

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
    let steps = Protocol { name: "steps".into(), length: Length::Updates(20_000), drop_after: 10_000, ..challenge };
    assert_eq!(Protocol::named("steps").unwrap(), steps);
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
