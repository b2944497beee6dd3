//! CUDA: the same ops on tensors of a GPU. Products go to cuDNN and cuBLAS (`gpu`), all else to the kernels in `kernels`,
//! which the build script compiles. Nothing here waits for the GPU.
//!
//! With `--cfg cuda_emulated` tensors of the CPU take this way too, through scripts/cuda_emulator.cpp.

pub mod activate;
pub mod attention;
pub mod augment;
pub mod conv;
#[cfg(not(cuda_emulated))]
mod cudnn;
pub mod elementwise;
pub mod input;
pub mod losses;
pub mod noise;
pub mod optimizer;

#[cfg(cuda_emulated)]
#[path = "emulated.rs"]
pub mod gpu;
#[cfg(not(cuda_emulated))]
pub mod gpu;

use candle_core::{DType, Tensor};

pub use self::gpu::Gpu;
use crate::error::Result;
use crate::fail;

/// Threads of a block, as in kernels/common.cuh.
const THREADS: usize = 256;
/// Columns that a block of some kernels reads side by side.
const COLUMNS: usize = 32;
/// Most blocks that a sum over elements is split into.
const PARTS: usize = 1024;

/// Which of a convolution's three tensors is made of the two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    Forward,
    Input,
    Weight,
}

/// A matrix as cuBLAS sees it: `stride` rows, stored column by column; or its transpose.
pub struct Matrix<'a> {
    tensor: &'a Tensor,
    stride: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// A tensor of rows of `stride` elements.
    pub fn new(tensor: &'a Tensor, stride: usize) -> Self {
        Matrix { tensor, stride, transposed: false }
    }

    pub fn transposed(self) -> Self {
        Matrix { transposed: !self.transposed, ..self }
    }
}

/// The argument of every kernel, as in kernels/common.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Args {
    addresses: [u64; 12],
    sizes: [i64; 12],
    numbers: [f32; 8],
}

impl Args {
    /// Of tensors, whose addresses they are, sizes and numbers, in the kernel's order. The tensors must live until the
    /// kernel is launched; what is freed later waits for it.
    fn new(tensors: &[Option<&Tensor>], sizes: &[usize], numbers: &[f32]) -> Result<Self> {
        let mut args = Args::default();
        for (address, tensor) in args.addresses.iter_mut().zip(tensors) {
            *address = tensor.map_or(Ok(0), gpu::address)?;
        }
        for (to, &size) in args.sizes.iter_mut().zip(sizes) {
            *to = size as i64;
        }
        for (to, &number) in args.numbers.iter_mut().zip(numbers) {
            *to = number;
        }
        Ok(args)
    }
}

/// "name_f32" or "name_bf16".
fn of_type(name: &str, dtype: DType) -> String {
    format!("{name}_{}", dtype.as_str())
}

impl Gpu {
    /// Launches a kernel with a thread an element.
    fn each(
        &self,
        name: &str,
        elements: usize,
        tensors: &[Option<&Tensor>],
        sizes: &[usize],
        numbers: &[f32],
    ) -> Result<()> {
        if elements > i32::MAX as usize {
            fail!("a tensor of {elements} values is too large for a kernel of the GPU; use a smaller batch");
        }
        let args = Args::new(tensors, sizes, numbers)?;
        self.launch(name, [elements.div_ceil(THREADS), 1, 1], THREADS, &args)
    }
}

/// A tensor of this type: itself, if it is one.
pub fn cast(gpu: &Gpu, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.dtype() == dtype {
        return Ok(tensor.clone());
    }
    let out = gpu.empty(tensor.dims(), dtype)?;
    let (name, n) = (of_type(&of_type("cast", tensor.dtype()), dtype), tensor.elem_count());
    gpu.each(&name, n, &[Some(tensor), Some(&out)], &[n], &[])?;
    Ok(out)
}

/// `target += addend`, in place. An error if they share their storage, as on the CPU.
pub fn add_assign(gpu: &Gpu, target: &Tensor, addend: &Tensor) -> Result<()> {
    let n = target.elem_count();
    let shared = gpu::address(target)? == gpu::address(addend)?;
    if shared || addend.elem_count() != n || addend.dtype() != target.dtype() {
        fail!("an in-place sum needs two separate tensors of one size and type");
    }
    gpu.each(&of_type("add_to", target.dtype()), n, &[Some(target), Some(addend)], &[n], &[])
}

/// The sums of the columns of (rows, columns) in f32, always in the same order.
fn column_sums(gpu: &Gpu, x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    summed_columns(gpu, x, None, rows, columns)
}

/// The sums of the squares of the distances from each column's mean.
fn column_squares(gpu: &Gpu, x: &Tensor, means: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    summed_columns(gpu, x, Some(means), rows, columns)
}

fn summed_columns(gpu: &Gpu, x: &Tensor, means: Option<&Tensor>, rows: usize, columns: usize) -> Result<Tensor> {
    // Parts of some hundred rows keep many blocks busy.
    let each = rows.div_ceil(rows.div_ceil(256).min(PARTS)).max(1);
    let parts = rows.div_ceil(each);
    let sums = gpu.empty(&[parts, columns], DType::F32)?;
    let args = Args::new(&[Some(x), Some(&sums), means], &[rows, columns, each], &[])?;
    gpu.launch(&of_type("column_sums", x.dtype()), [columns.div_ceil(COLUMNS), parts, 1], THREADS, &args)?;
    if parts == 1 {
        return Ok(sums.reshape(columns)?);
    }
    let out = gpu.empty(&[columns], DType::F32)?;
    let args = Args::new(&[Some(&sums), Some(&out)], &[parts, columns, parts], &[])?;
    gpu.launch("column_sums_f32", [columns.div_ceil(COLUMNS), 1, 1], THREADS, &args)?;
    Ok(out)
}

/// `factor` times the sum of all values: a scalar.
fn sum(gpu: &Gpu, values: &Tensor, factor: f32) -> Result<Tensor> {
    let out = gpu.empty(&[], DType::F32)?;
    let args = Args::new(&[Some(values), Some(&out)], &[values.elem_count()], &[factor])?;
    gpu.launch("sum", [1, 1, 1], THREADS, &args)?;
    Ok(out)
}
