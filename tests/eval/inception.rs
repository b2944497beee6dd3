//! Inception's features are those of torchvision's network with the distance's poolings (fixture from
//! scripts/make_inception_fixture.py), and files that are none are refused.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use distill::models::inception::{FEATURES, Inception};
use distill::train::save_weights;

use super::architectures::hashed;
use super::floats;
use super::pytorch::{assert_close, bytes, fixture};

/// The weights of the script, by PyTorch's names.
fn weights(fixture: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let names = fixture.keys().filter(|name| !["images", "features"].contains(&name.as_str()));
    let mut out = BTreeMap::new();
    for (i, name) in names.enumerate() {
        let shape: Vec<usize> = fixture[name].to_vec1::<i64>().unwrap().into_iter().map(|n| n as usize).collect();
        let mut add = |part: &str, shape: &[usize], k: u64, centre: f32, scale: f32| {
            let values = hashed(shape.iter().product(), 5 * i as u64 + k).into_iter().map(|v| centre + scale * v);
            let tensor = Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap();
            out.insert(format!("{name}.{part}"), tensor);
        };
        add("conv.weight", &shape, 0, 0.0, (6.0 / shape[1..].iter().product::<usize>() as f32).sqrt());
        for (k, (part, centre)) in
            [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)].into_iter().enumerate()
        {
            add(&format!("bn.{part}"), &shape[..1], k as u64 + 1, centre, 0.2);
        }
    }
    out
}

fn save(weights: &BTreeMap<String, Tensor>, path: &Path) {
    let named: Vec<(String, Tensor)> = weights.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    save_weights(path, &named, &"weights of a test").unwrap();
}

#[test]
fn features_are_pytorchs() {
    let fixture = fixture("inception").into_iter().collect();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut weights = weights(&fixture);
    save(&weights, &file("whole.safetensors"));
    let network = Inception::open(&file("whole.safetensors")).unwrap();
    let found = network.features(&bytes(&fixture["images"]), 32).unwrap();
    let expected = floats(&fixture["features"]);
    assert_eq!(found.len(), 2 * FEATURES);
    let largest = expected.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
    assert_close("features", &found, &expected, 1e-4 * largest);

    let refused = |path: &Path| Inception::open(path).err().unwrap().to_string();
    weights.remove("Mixed_7c.branch1x1.bn.bias");
    save(&weights, &file("part.safetensors"));
    assert!(refused(&file("part.safetensors")).contains("Mixed_7c.branch1x1.bn.bias is missing"));
    weights.retain(|name, _| name.starts_with("Conv2d"));
    save(&weights, &file("stem.safetensors"));
    assert!(refused(&file("stem.safetensors")).contains("Mixed_5b.branch1x1 is missing"));
    std::fs::write(file("none.safetensors"), "no tensors").unwrap();
    assert!(refused(&file("none.safetensors")).contains("expected Inception-v3"));
    assert!(refused(&file("absent.safetensors")).contains("absent.safetensors"));
}
