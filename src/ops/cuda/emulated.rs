//! A stand-in for a GPU: memory is the CPU's, kernels run in scripts/cuda_emulator.cpp, and products are plain loops there.

use std::ffi::{CString, c_char};

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::bf16;

use super::{Args, Matrix, Pass};
use crate::error::Result;
use crate::fail;
use crate::ops::cpu::conv::ConvShape;
use crate::ops::cpu::isa::{self, Precision};

unsafe extern "C" {
    fn emulate(name: *const c_char, blocks: *const u32, threads: u32, args: *const Args) -> i32;
    fn emulate_product(sizes: *const i64, transposed: *const i32, types: *const i32, addresses: *const u64);
    fn emulate_convolution(pass: i32, sizes: *const i64, is_bf16: i32, addresses: *const u64);
}

/// That of the CPU, so that tests can choose it.
pub fn precision() -> Precision {
    isa::current().precision()
}

pub fn set_precision(_: Precision) {}

#[derive(Clone, Debug)]
pub struct Gpu(());

pub fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((first, _)) = layout.contiguous_offsets() else {
        fail!("a kernel of the GPU needs a contiguous tensor, found strides {:?}", layout.stride());
    };
    let start = match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => values.as_ptr() as u64,
        Storage::Cpu(CpuStorage::BF16(values)) => values.as_ptr() as u64,
        Storage::Cpu(CpuStorage::U8(values)) => values.as_ptr() as u64,
        Storage::Cpu(CpuStorage::U32(values)) => values.as_ptr() as u64,
        Storage::Cpu(CpuStorage::I64(values)) => values.as_ptr() as u64,
        _ => fail!("a kernel of the GPU needs a tensor of f32, bf16, u8, u32 or i64, found {:?}", tensor.dtype()),
    };
    Ok(start + (first * tensor.dtype().size_in_bytes()) as u64)
}

impl Gpu {
    pub fn of(_: &Tensor) -> Option<Self> {
        Some(Gpu(()))
    }

    /// Filled with NaN, which whatever reads it before it is written shows.
    pub fn empty(&self, dims: &[usize], dtype: DType) -> Result<Tensor> {
        let n = dims.iter().product();
        Ok(match dtype {
            DType::BF16 => Tensor::from_vec(vec![bf16::NAN; n], dims, &Device::Cpu)?,
            _ => Tensor::from_vec(vec![f32::NAN; n], dims, &Device::Cpu)?,
        })
    }

    pub fn launch(&self, name: &str, blocks: [usize; 3], threads: usize, args: &Args) -> Result<()> {
        let Ok(symbol) = CString::new(name) else { fail!("kernel {name:?} has no such name") };
        let blocks = blocks.map(|v| v as u32);
        // SAFETY: the kernels take just this argument, and its maker has checked sizes against the tensors.
        match unsafe { emulate(symbol.as_ptr(), blocks.as_ptr(), threads as u32, args) } {
            0 => Ok(()),
            _ => fail!("kernel {name} failed in the emulator; the reason is above"),
        }
    }

    pub fn multiply(&self, [m, n, k]: [usize; 3], a: Matrix, b: Matrix, c: Matrix) -> Result<()> {
        let sizes = [m, n, k, a.stride, b.stride, c.stride].map(|v| v as i64);
        let addresses = [address(a.tensor)?, address(b.tensor)?, address(c.tensor)?];
        let transposed = [i32::from(a.transposed), i32::from(b.transposed)];
        let types = [&a, &c].map(|matrix| i32::from(matrix.tensor.dtype() == DType::BF16));
        // SAFETY: the sizes are those of the tensors.
        unsafe { emulate_product(sizes.as_ptr(), transposed.as_ptr(), types.as_ptr(), addresses.as_ptr()) };
        Ok(())
    }

    pub fn convolve(&self, pass: Pass, s: &ConvShape, x: &Tensor, weight: &Tensor, y: &Tensor) -> Result<()> {
        let sizes = [s.batch, s.height, s.width, s.in_channels, s.out_channels, s.kernel, s.stride, s.padding];
        let sizes = sizes.map(|v| v as i64);
        let addresses = [address(x)?, address(weight)?, address(y)?];
        let is_bf16 = i32::from(x.dtype() == DType::BF16);
        // SAFETY: the sizes are those of the tensors.
        unsafe { emulate_convolution(pass as i32, sizes.as_ptr(), is_bf16, addresses.as_ptr()) };
        Ok(())
    }
}
