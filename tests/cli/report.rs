//! `distill report` and `--tensorboard`. scripts/check_report.py and scripts/check_tensorboard.py look closer.

use std::fs;

use serde_json::{Value, json};

use crate::{Place, folder, tiny};

/// Fails where an element is not closed in its order, or something is loaded.
fn check(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("<{tag} does not end"));
        let name = tag.split_whitespace().next().unwrap();
        assert!(!["script", "link", "iframe", "object"].contains(&name), "<{tag}>");
        for address in tag.split("src=\"").skip(1).chain(tag.split("href=\"").skip(1)) {
            assert!(address.starts_with("data:image/") || address.starts_with('#'), "<{tag}>");
        }
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "</{name}>"),
            None if ["!DOCTYPE", "meta", "img"].contains(&name) || tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

fn report(place: &Place, run: &str) -> (String, Value) {
    let told = place.json(&format!("report {run}"));
    let page = fs::read_to_string(place.path(told["report"].as_str().unwrap())).unwrap();
    check(&page);
    (page, told["problems"].clone())
}

#[test]
fn the_page_has_all_of_a_run_and_equal_bytes() {
    let place = Place::new();
    place.ok(&format!("run --dataset shapes {} --name tiny --ipc 2 --epochs 1 -q --tensorboard", tiny()));
    place.ok("eval --dataset shapes --on random-real --ipc 3 --epochs 1 --split heldout -q");
    let (page, problems) = report(&place, "runs/tiny");
    assert_eq!(problems, json!([]));
    for part in ["curves", "samples", "reconstructions", "accuracy", "classes", "reproduce", "configuration"]
        .map(|id| format!("id=\"{id}\""))
    {
        assert!(page.contains(&part), "{part}");
    }
    assert!(!page.contains("id=\"quality\""));
    assert_eq!(page.matches("<polyline").count(), 9, "loss, norm, rate, two and one validations of two networks");
    assert_eq!(page.matches("<img").count(), 10 * 2 + 1);
    assert!(page.contains("distill run --dataset shapes --config") && page.contains("<span class=\"badge\">heldout"));
    assert!(page.contains("Most often mistaken") && page.contains(env!("CARGO_PKG_VERSION")));
    let result: Value = place.json("eval --run runs/tiny --epochs 1");
    assert!(page.contains(&format!("{:.2} %", result["accuracy_mean"].as_f64().unwrap())));

    // A result beside the run may be of anyone's set: it stands in the table, and is not the run's best.
    let foreign = json!({ "on": "images.pt", "accuracy_mean": 98.76, "accuracy_std": null });
    let foreign: serde_json::Map<_, _> =
        result.as_object().unwrap().clone().into_iter().chain(foreign.as_object().unwrap().clone()).collect();
    fs::create_dir_all(place.path("runs/eval/foreign")).unwrap();
    fs::write(place.path("runs/eval/foreign/eval.json"), serde_json::to_vec(&foreign).unwrap()).unwrap();

    let (first, _) = report(&place, "runs/tiny");
    assert_eq!(first.matches("98.76 %").count(), 1);
    place.ok("report runs/tiny --out-file other.html");
    assert!(fs::read_to_string(place.path("other.html")).unwrap() == first);
    // From inside the run's folder, what stands beside it is found too.
    let inside = place.command("report . --out-file ../../inside.html").current_dir(place.path("runs/tiny")).output();
    assert!(inside.unwrap().status.success());
    assert!(fs::read_to_string(place.path("inside.html")).unwrap() == first);

    fs::create_dir_all(place.path("runs/tiny/eval/set-quality")).unwrap();
    fs::copy(place.path("runs/tiny/samples/vae-0000020.png"), place.path("runs/tiny/eval/set-quality/nearest.png"))
        .unwrap();
    fs::write(place.path("runs/tiny/eval/set-quality/quality.json"), r#"{"frechet": 12.5, "label_agreement": 0.75}"#)
        .unwrap();
    let (page, _) = report(&place, "runs/tiny");
    assert!(page.contains("id=\"quality\"") && page.contains("12.5") && page.contains("label agreement"));
    assert_eq!(page.matches("<img").count(), 10 * 2 + 2);

    for stage in ["vae", "unet"] {
        let files: Vec<_> = fs::read_dir(place.path("runs/tiny/tensorboard").join(stage)).unwrap().collect();
        let bytes = fs::read(files[0].as_ref().unwrap().path()).unwrap();
        assert!(files.len() == 1 && bytes.windows(13).any(|part| part == b"brain.Event:2"));
        let picture = fs::read(place.path(&format!("runs/tiny/samples/{stage}-0000020.png"))).unwrap();
        assert!(bytes.windows(picture.len()).any(|part| part == picture), "{stage}: the picture is not there");
    }
    place.ok(&format!("train --dataset shapes {} --name tiny --overwrite --stage vae -q", tiny()));
    assert!(!place.path("runs/tiny/tensorboard/vae").exists(), "events of weights that are gone");
    assert!(place.path("runs/tiny/old-1/report.html").is_file());
}

#[test]
fn names_that_look_like_html_are_text() {
    let names = ["<b>", "a & \"b\" 'c'", "<!-- x", "{{ config }}"];
    let place = folder::place(&names);
    place.ok("run --config tiny.toml --name one --ipc 1 --epochs 1 -q");
    let (page, problems) = report(&place, "runs/one");
    assert_eq!(problems, json!([]));
    for text in ["<b></", "<b>\"", "<!--", "a & "] {
        assert!(!page.contains(&format!("<span>{text}")) && !page.contains(&format!("<td>{text}")), "{text}");
    }
    let samples = &page[page.find("id=\"samples\"").unwrap()..];
    for text in
        ["<span>&lt;b&gt;</span>", "<span>a &amp; &quot;b&quot; &#x27;c&#x27;</span>", "<span>{{ config }}</span>"]
    {
        assert!(samples.contains(text), "{text}");
    }
}

#[test]
fn runs_in_training_and_damaged_ones_have_a_page() {
    let place = Place::new();
    place.ok(&format!("train --dataset shapes {} --name half --stage vae -q", tiny()));
    let (page, problems) = report(&place, "runs/half");
    assert!(page.contains("UNet in training, step 0") && !page.contains("id=\"samples\""));
    assert_eq!(problems, json!([]));

    place.ok(&format!("run --dataset shapes {} --name whole --ipc 1 --epochs 1 -q", tiny()));
    let (whole, _) = report(&place, "runs/whole");
    let set = place.json("inspect runs/whole")["distilled"][0].as_str().unwrap().to_string();
    let result = place.json("inspect runs/whole")["evaluations"][0].as_str().unwrap().to_string();
    let files = [
        "runs/whole/config.toml",
        "runs/whole/meta.json",
        "runs/whole/vae/metrics.jsonl",
        "runs/whole/unet/summary.json",
        "runs/whole/unet/final.safetensors",
        "runs/whole/samples/vae-0000020.png",
        &format!("{set}/distilled.safetensors"),
        &format!("{result}/eval.json"),
    ];
    for file in files {
        let bytes = fs::read(place.path(file)).unwrap();
        let mut damaged = vec![bytes[..bytes.len() / 3].to_vec(), Vec::new(), b"\n[\xff{<".to_vec()];
        if file.ends_with("json") {
            damaged.extend([b"[]".to_vec(), b"{\"environment\": 3}".to_vec()]);
        }
        for damaged in damaged {
            fs::write(place.path(file), damaged).unwrap();
            report(&place, "runs/whole");
        }
        let (page, problems) = report(&place, "runs/whole");
        if !["config.toml", "meta.json", "metrics.jsonl", "summary.json"].iter().any(|name| file.ends_with(name)) {
            assert!(problems[0].as_str().unwrap().contains(file), "{file}: {problems}");
            assert!(page.contains("could not be read"));
        }
        fs::remove_file(place.path(file)).unwrap();
        report(&place, "runs/whole");
        fs::write(place.path(file), bytes).unwrap();
    }
    assert!(report(&place, "runs/whole").0 == whole);

    assert!(place.fails(1, "report runs").contains("expected a run's folder"));
    assert!(place.fails(2, "report runs/half --out-file runs").contains("is a folder"));
    assert!(place.fails(1, "report runs/half --out-file no/where.html").contains("no/where.html"));
}
