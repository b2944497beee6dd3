//! The built-in set, and the hash of a set.

use distill::data::{Dataset, ImageSet, Split, load, verify};
use distill::rng::Rng;

#[test]
fn is_balanced_and_the_same_every_time() {
    for (split, per_class) in [(Split::Train, 500), (Split::Test, 100)] {
        let set = load(&Dataset::Shapes, split, 32, None).unwrap();
        assert_eq!((set.size, set.classes.len(), set.pixels.len()), (32, 10, per_class * 10 * 3072));
        assert!(set.by_class().iter().all(|indices| indices.len() == per_class));
        assert_eq!(set.pixels, load(&Dataset::Shapes, split, 32, None).unwrap().pixels);
    }
    // The bytes are part of every published number: a change of the generator must be meant.
    let hash = load(&Dataset::Shapes, Split::Train, 32, None).unwrap().sha256();
    assert_eq!(hash, "5525263d835ae6eee2aff6a7d0c88bbfe2cfad8163a51a2c2a6112df30be8ba0");
}

#[test]
fn splits_share_no_image_and_the_normalization_is_what_train_measures() {
    let found = verify(&Dataset::Shapes, 32, None).unwrap();
    assert!(found.reports.iter().all(|r| r.duplicates == 0 && r.also_in_train == 0));
    let (measured, stated) = (&found.reports[0], found.info.normalization);
    for c in 0..3 {
        assert!((measured.mean[c] - f64::from(stated.mean[c])).abs() < 1e-4, "{measured:?}");
        assert!((measured.std[c] - f64::from(stated.std[c])).abs() < 1e-4, "{measured:?}");
    }
    assert!(found.info.notes.is_empty());
}

/// Softmax regression on pixels, plain stochastic gradient descent.
#[test]
fn a_linear_classifier_stays_under_40_percent() {
    let train = load(&Dataset::Shapes, Split::Train, 32, None).unwrap();
    let test = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
    let inputs = |image: &[u8]| image.iter().map(|v| f32::from(*v) / 127.5 - 1.0).collect::<Vec<f32>>();
    let mut weights = vec![[0f32; 10]; train.image_len()];
    let scores = |weights: &[[f32; 10]], x: &[f32]| {
        let mut scores = [0f32; 10];
        for (row, x) in weights.iter().zip(x) {
            scores.iter_mut().zip(row).for_each(|(s, w)| *s += w * x);
        }
        scores
    };
    for epoch in 0..5 {
        for i in Rng::stream(0, "test-order", epoch, 0).permutation(train.len()) {
            let x = inputs(train.image(i as usize));
            let mut residual = scores(&weights, &x).map(f32::exp);
            let sum: f32 = residual.iter().sum();
            residual.iter_mut().for_each(|p| *p /= sum);
            residual[usize::from(train.labels[i as usize])] -= 1.0;
            for (row, x) in weights.iter_mut().zip(&x) {
                row.iter_mut().zip(&residual).for_each(|(w, r)| *w -= 1e-4 * r * x);
            }
        }
    }
    let right = (0..test.len()).filter(|&i| {
        let scores = scores(&weights, &inputs(test.image(i)));
        (0..10).all(|c| scores[c] <= scores[usize::from(test.labels[i])])
    });
    let percent = right.count() as f64 * 100.0 / test.len() as f64;
    assert!((12.0..40.0).contains(&percent), "{percent} %");
}

#[test]
fn the_hash_sees_every_part_of_a_set() {
    let set = load(&Dataset::Shapes, Split::Test, 32, None).unwrap();
    let other = |change: fn(&mut ImageSet)| {
        let mut changed = set.clone();
        change(&mut changed);
        changed.sha256()
    };
    let hash = set.sha256();
    assert_eq!(hash.len(), 64);
    assert_eq!(hash, set.clone().sha256());
    assert_ne!(hash, other(|s| s.pixels[5] ^= 1));
    assert_ne!(hash, other(|s| s.labels.swap(0, 1)));
    assert_ne!(hash, other(|s| std::sync::Arc::make_mut(&mut s.classes).swap(0, 1)));
    assert_ne!(hash, other(|s| std::sync::Arc::make_mut(&mut s.classes)[0].id.push('x')));
}
