//! The judge against PyTorch, and against what its protocols promise.

mod architectures;
mod draws;
mod inception;
mod protocols;
mod pytorch;
mod quality;
mod resume;
mod students;

use std::sync::Arc;

use candle_core::{DType, Tensor};
use distill::data::{Class, Normalization};

const CIFAR100: Normalization = Normalization { mean: [0.5071, 0.4866, 0.4409], std: [0.2673, 0.2564, 0.2762] };

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn classes(n: usize) -> Arc<Vec<Class>> {
    Arc::new((0..n).map(|i| Class { name: format!("class {i}"), id: i.to_string() }).collect())
}
