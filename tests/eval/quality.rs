//! Distances between sets of features, and choices by them, are numpy's and scipy's (scripts/make_quality_fixtures.py), and
//! those of formulas.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use distill::eval::Features;
use distill::eval::quality::{Gaussian, frechet_distance, nearest, overlap};
use distill::eval::select::{herding, k_center};
use distill::rng::Rng;

fn fixture() -> HashMap<String, Tensor> {
    let path = format!("{}/tests/fixtures/eval_quality.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn features(tensor: &Tensor) -> Features {
    Features { values: tensor.flatten_all().unwrap().to_vec1().unwrap(), dims: tensor.dims2().unwrap().1 }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn indices(tensor: &Tensor) -> Vec<usize> {
    tensor.to_vec1::<i64>().unwrap().into_iter().map(|i| i as usize).collect()
}

fn distance(a: &Features, b: &Features) -> f64 {
    frechet_distance(&Gaussian::fit(a).unwrap(), &Gaussian::fit(b).unwrap()).unwrap()
}

/// `n` points of independent normal features with these means and deviations.
fn normal(n: usize, means: &[f32], deviations: &[f32], stream: u32) -> Features {
    let dims = means.len();
    let mut values = Rng::stream(3, "test", stream, 0).normal(n * dims);
    for row in values.chunks_mut(dims) {
        for ((v, m), s) in row.iter_mut().zip(means).zip(deviations) {
            *v = m + s * *v;
        }
    }
    Features { values, dims }
}

/// "few" has fewer samples than dimensions: both covariances are singular.
#[test]
fn the_frechet_distance_is_scipys() {
    let fixture = fixture();
    for name in ["wide", "few"] {
        let of = |part: &str| &fixture[&format!("{name}.{part}")];
        let [expected, traces] = numbers(of("frechet"))[..] else { panic!() };
        let found = distance(&features(of("real")), &features(of("generated")));
        assert!((found - expected).abs() <= 1e-6 * traces, "{name}: {found}, scipy {expected}, traces {traces}");
    }
}

/// |m1 - m2|^2 + sum (s1 - s2)^2 for independent features; the estimate from 200,000 points is off by less than 1 %.
#[test]
fn the_frechet_distance_of_known_gaussians_is_the_formulas() {
    let (m1, s1): ([f32; 4], [f32; 4]) = ([0.0, 1.0, -2.0, 5.0], [1.0, 0.5, 2.0, 1.0]);
    let (m2, s2) = ([0.5, 1.0, -1.0, 5.0], [1.5, 0.5, 1.0, 3.0]);
    let expected: f32 = (0..4).map(|i: usize| (m1[i] - m2[i]).powi(2) + (s1[i] - s2[i]).powi(2)).sum();
    let found = distance(&normal(200_000, &m1, &s1, 0), &normal(200_000, &m2, &s2, 1));
    assert!((found / f64::from(expected) - 1.0).abs() < 0.01, "{found}, expected {expected}");
}

#[test]
fn shares_of_overlap_are_counted_as_numpy_counts_them() {
    let fixture = fixture();
    for name in ["wide", "few", "copies", "twins"] {
        let of = |part: &str| &fixture[&format!("{name}.{part}")];
        let (real, generated) = (features(of("real")), features(of("generated")));
        for (row, k) in numbers(of("overlap")).chunks(4).zip([1, 3, 5]) {
            let found = overlap(&real, &generated, k).unwrap();
            let found = [found.precision, found.recall, found.density, found.coverage];
            for (found, expected) in found.iter().zip(row) {
                // A count over a number of images: equal counts, and a quotient's rounding.
                assert!((found - expected).abs() < 1e-12, "{name}, k = {k}: {found:?}, numpy {row:?}");
            }
        }
    }
}

#[test]
fn nearest_images_are_numpys() {
    let fixture = fixture();
    for name in ["wide", "few"] {
        let of = |part: &str| &fixture[&format!("{name}.{part}")];
        let found = nearest(&features(of("generated")), &features(of("real")));
        assert_eq!(found.iter().map(|(i, _)| *i).collect::<Vec<_>>(), indices(of("nearest")));
        for ((_, found), expected) in found.iter().zip(numbers(of("distance"))) {
            assert!((found - expected).abs() < 1e-9 * (1.0 + expected), "{found}, numpy {expected}");
        }
    }
}

#[test]
fn equal_sets_overlap_wholly_and_distant_ones_not_at_all() {
    let real = normal(300, &[0.0; 8], &[1.0; 8], 2);
    assert!(distance(&real, &real).abs() < 1e-9);
    let same = overlap(&real, &real, 5).unwrap();
    assert_eq!((same.precision, same.recall, same.coverage), (1.0, 1.0, 1.0));
    assert_eq!(same.density, 1.0); // each lies in its own ball and in k - 1 others on average: those at less than the k-th
    let far = overlap(&real, &normal(300, &[100.0; 8], &[1.0; 8], 3), 5).unwrap();
    assert_eq!((far.precision, far.recall, far.density, far.coverage), (0.0, 0.0, 0.0, 0.0));
}

#[test]
fn too_few_images_are_refused() {
    let few = normal(5, &[0.0; 3], &[1.0; 3], 4);
    assert!(overlap(&few, &normal(50, &[0.0; 3], &[1.0; 3], 5), 5).unwrap_err().to_string().contains("more than 5"));
    let mut strange = normal(50, &[0.0; 3], &[1.0; 3], 5);
    strange.values[100] = f32::NAN;
    assert!(overlap(&strange, &strange, 5).unwrap_err().to_string().contains("real image 33"));
    assert!(Gaussian::fit(&normal(1, &[0.0], &[1.0], 6)).unwrap_err().to_string().contains("at least 2"));
}

/// Features that never differ have a covariance of 0, and all their distances are 0.
#[test]
fn constant_features_are_no_trouble() {
    let constant = Features { values: vec![2.0; 40], dims: 4 };
    let other = normal(50, &[2.0, 2.0, 2.0, 3.0], &[1.0; 4], 7);
    let trace = Gaussian::fit(&other).unwrap().trace();
    let found = distance(&constant, &other);
    assert!(found > trace && found < trace + 3.0, "{found}, trace {trace}");
    assert_eq!(overlap(&constant, &constant, 3).unwrap().precision, 0.0); // no ball has a size
}

#[test]
fn baselines_choose_what_numpy_chooses() {
    let fixture = fixture();
    let mut of_class = vec![Vec::new(); 3];
    for (i, label) in indices(&fixture["labels"]).into_iter().enumerate() {
        of_class[label].push(i);
    }
    let real = features(&fixture["wide.real"]);
    assert_eq!(k_center(&real, &of_class, 7).unwrap(), indices(&fixture["k_center"]));
    assert_eq!(herding(&real, &of_class, 7).unwrap(), indices(&fixture["herding"]));
    assert!(herding(&real, &of_class, 100).unwrap_err().to_string().contains("--ipc 100"));
    // All of a class: every image once, twins included.
    let mut all = k_center(&real, &of_class[..1], of_class[0].len()).unwrap();
    all.sort_unstable();
    assert_eq!(all, of_class[0]);
}
