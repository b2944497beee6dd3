//! Updates of all parameters of a network in two launches: the gradients' norm, then the step.

use candle_core::{DType, Device, Tensor};

use super::{Args, Gpu, THREADS, gpu, sum};
use crate::error::Result;
use crate::fail;

/// Elements of a tensor that one block updates.
const CHUNK: usize = 1 << 14;

/// A table with a line a chunk: the addresses of the chunk in each of a parameter's tensors (all f32 and of one size), and
/// its number of elements. The tensors must outlive the launches.
pub struct Chunks {
    table: Tensor,
    lines: usize,
    columns: usize,
}

impl Chunks {
    /// `params`: for each parameter its gradient, itself and its state.
    pub fn new<const N: usize>(params: &[[&Tensor; N]], device: &Device) -> Result<Self> {
        let mut table: Vec<i64> = Vec::new();
        for tensors in params {
            let n = tensors[0].elem_count();
            if tensors.iter().any(|t| t.elem_count() != n || t.dtype() != DType::F32) {
                fail!("a parameter of shape {:?}, its gradient and its state are not of one size", tensors[1].dims());
            }
            let addresses: Vec<u64> = tensors.iter().map(|t| gpu::address(t)).collect::<Result<_>>()?;
            for first in (0..n).step_by(CHUNK) {
                table.extend(addresses.iter().map(|address| (address + 4 * first as u64) as i64));
                table.push(CHUNK.min(n - first) as i64);
            }
        }
        let (columns, lines) = (N + 1, table.len() / (N + 1));
        Ok(Chunks { table: Tensor::from_vec(table, (lines, columns), device)?, lines, columns })
    }

    /// The squared norm of all gradients: a scalar.
    pub fn squared_norm(&self, gpu: &Gpu) -> Result<Tensor> {
        let parts = gpu.empty(&[self.lines], DType::F32)?;
        let args = Args::new(&[Some(&self.table), Some(&parts)], &[self.columns], &[])?;
        gpu.launch("sum_of_squares", [self.lines, 1, 1], THREADS, &args)?;
        sum(gpu, &parts, 1.0)
    }

    /// Lines of (gradient, parameter, average, first moment, second moment). `numbers`: beta1, beta2, 1 - rate times weight
    /// decay, rate over the first moment's bias, root of the second one's, eps, the average's decay, the norm to clip to.
    /// Nothing changes where `squared_norm` or `loss` is not finite.
    pub fn adamw(&self, gpu: &Gpu, squared_norm: &Tensor, loss: &Tensor, numbers: [f32; 8]) -> Result<()> {
        let args = Args::new(&[Some(&self.table), Some(squared_norm), Some(loss)], &[], &numbers)?;
        gpu.launch("adamw", [self.lines, 1, 1], THREADS, &args)
    }

    /// Lines of (gradient, parameter, velocity).
    pub fn sgd(&self, gpu: &Gpu, lr: f32, momentum: f32, weight_decay: f32) -> Result<()> {
        let args = Args::new(&[Some(&self.table)], &[], &[lr, momentum, weight_decay])?;
        gpu.launch("sgd", [self.lines, 1, 1], THREADS, &args)
    }
}
