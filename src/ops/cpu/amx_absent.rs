//! Stands in for `amx` where there is no such unit. `products` never selects it, so nothing here runs.

use super::conv::ConvShape;

pub fn available() -> bool {
    false
}

pub fn forward(_: &ConvShape, _: &[f32], _: &[f32], _: Option<&[f32]>, _: Option<&[f32]>) -> Vec<f32> {
    unreachable!("products in bf16 were selected without AMX")
}

pub fn input_gradient(_: &ConvShape, _: &[f32], _: &[f32]) -> Vec<f32> {
    unreachable!("products in bf16 were selected without AMX")
}

pub fn weight_gradient(_: &ConvShape, _: &[f32], _: &[f32]) -> Vec<f32> {
    unreachable!("products in bf16 were selected without AMX")
}
