//! `distill check` on the CPU, and what it refuses.

use crate::Place;

#[test]
fn the_cpu_computes_what_it_should() {
    let place = Place::new();
    for (only, least) in [("silu", 3), ("linear", 5), ("adamw", 1), ("vae", 1), ("noise", 1)] {
        let report = place.json(&format!("check --device cpu --only {only} --dtype f32"));
        assert!(report["passed"].as_u64().unwrap() >= least, "{only}: {report}");
        assert_eq!(report["failed"], 0, "{only}");
        for line in report["checks"].as_array().unwrap() {
            assert!(line["name"].as_str().unwrap().contains(only), "{line}");
            assert!(line["error"].as_f64().unwrap() <= line["allowed"].as_f64().unwrap(), "{line}");
        }
    }
}

#[test]
fn the_table_is_aligned() {
    let place = Place::new();
    let table = place.ok("check --device cpu --only concat --dtype f32");
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("concat")).collect();
    let column = |line: &&str| line.find(" f32 ");
    assert!(lines.len() >= 3 && lines.iter().all(|line| line.ends_with("  ok")), "{table}");
    assert!(lines.iter().all(|line| column(line).is_some() && column(line) == column(&lines[0])), "{table}");
    assert!(table.trim_end().ends_with("0 failed"), "{table}");
}

#[test]
fn a_card_that_is_not_there_is_refused() {
    let place = Place::new();
    let error = place.fails(2, "check --device cuda:0");
    assert!(error.contains("--device cuda:0: ") && error.contains("use --device cpu"), "{error}");
    assert!(error.contains("found none") || error.contains("without CUDA") || error.contains("no GPU"), "{error}");
    assert!(place.fails(2, "check --only unets").contains("unet, 10 training steps"));
}

#[test]
fn a_dry_run_names_the_checks() {
    let names = Place::new().ok("check --device cpu --dry-run");
    for name in ["conv2d", "attention", "norm", "cross_entropy", "sgd", "unet", "batch order"] {
        assert!(names.lines().any(|line| line.contains(name)), "{name}: {names}");
    }
}
