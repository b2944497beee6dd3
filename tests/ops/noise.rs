//! Noise as rng.rs draws it, and its mixtures with latents by their formula.

use candle_core::{Device, Tensor};
use distill::ops::{diffuse, normal};
use distill::rng::Rng;
use rand::RngCore;

use crate::check::doubles;

#[test]
fn noise_goes_on_where_each_stream_stands() {
    // Streams of two keys, at every place within a block of four draws, and beyond 2^32 draws.
    let mut streams: Vec<Rng> = (0..6).map(|i| Rng::stream(u64::from(i % 2), "noise", i, 7)).collect();
    for (i, rng) in streams.iter_mut().enumerate() {
        (0..i).for_each(|_| _ = rng.next_u32());
    }
    streams[5].skip(1 << 34);
    for len in [1, 2, 5, 64] {
        let found = doubles(&normal(&streams, len, &Device::Cpu).unwrap());
        let expected: Vec<f32> = streams.iter().flat_map(|rng| rng.clone().normal(len)).collect();
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - f64::from(b)).abs() < 1e-6, "{a} and {b}, {len} values a stream");
        }
    }
}

#[test]
fn mixtures_are_those_of_the_formula() {
    let latents = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let noise = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.0], [1.0, 1.0]], &Device::Cpu).unwrap();
    let factors = [[2.0, 3.0, 1.0, -1.0], [1.0, 0.0, 0.0, 1.0], [-1.0, 0.5, 2.0, 4.0]];
    let latents = Tensor::from_slice(&latents, (3, 2), &Device::Cpu).unwrap();
    let (noisy, target) = diffuse(&latents, &[2, 0, 2], &noise, &factors).unwrap();
    assert_eq!(doubles(&noisy), [11.5, 9.0, 1.0, 2.0, -4.5, -5.5]);
    assert_eq!(doubles(&target), [4.5, 7.0, 2.0, 0.0, 14.0, 16.0]);
    assert!(diffuse(&latents, &[3, 0, 2], &noise, &factors).is_err());
}
