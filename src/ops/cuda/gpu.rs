//! The GPU itself: memory, launches of kernels, products by cuBLAS and convolutions by cuDNN, all on one stream, so that
//! everything happens in the order in which it was asked for.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::cuda::cudarc::cublas::{result as cublas, sys as cublas_sys};
use candle_core::cuda::cudarc::driver::{self, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda::{CudaDType, CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Storage, Tensor};
use half::bf16;

use super::{Args, Matrix, Pass, cudnn};
use crate::error::{Error, LESS_MEMORY, Result};
use crate::fail;
use crate::ops::cpu::conv::ConvShape;
use crate::ops::cpu::isa::Precision;

/// The kernels, by the file that they stand in (build.rs).
const MODULES: [(&str, &str); 7] = [
    ("activate", include_str!(concat!(env!("OUT_DIR"), "/activate.ptx"))),
    ("attention", include_str!(concat!(env!("OUT_DIR"), "/attention.ptx"))),
    ("augment", include_str!(concat!(env!("OUT_DIR"), "/augment.ptx"))),
    ("elementwise", include_str!(concat!(env!("OUT_DIR"), "/elementwise.ptx"))),
    ("input", include_str!(concat!(env!("OUT_DIR"), "/input.ptx"))),
    ("noise", include_str!(concat!(env!("OUT_DIR"), "/noise.ptx"))),
    ("optimizer", include_str!(concat!(env!("OUT_DIR"), "/optimizer.ptx"))),
];

// SAFETY: numbers only, laid out as in C.
unsafe impl DeviceRepr for Args {}

static F32: AtomicBool = AtomicBool::new(false);

/// What the networks compute in on a GPU.
pub fn precision() -> Precision {
    if F32.load(Ordering::Relaxed) { Precision::F32 } else { Precision::Bf16 }
}

/// Chooses for all work from now on.
pub fn set_precision(precision: Precision) {
    F32.store(precision == Precision::F32, Ordering::Relaxed);
}

/// The GPU that a tensor lies on.
#[derive(Clone, Debug)]
pub struct Gpu(CudaDevice);

/// Makes a device that was just opened ready: it has one stream, so nothing needs events; freed memory is kept for the next
/// tensors; and a kernel is loaded, to see that the driver takes it.
pub fn prepare(device: &CudaDevice) -> Result<()> {
    // SAFETY: all work is in one stream.
    unsafe { device.disable_event_tracking() };
    let stream = device.cuda_stream();
    let mut all = u64::MAX;
    // SAFETY: the pool is the device's own, and the attribute is a number of 64 bits.
    unsafe {
        if let Ok(pool) = driver::result::device::get_default_mem_pool(stream.context().cu_device()) {
            let attribute = driver::sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            driver::sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut all).cast());
        }
    }
    let (file, ptx) = module("sum")?;
    device.get_or_load_custom_func("sum", file, ptx)?;
    Ok(())
}

/// The file of a kernel, and its code.
fn module(name: &str) -> Result<(&'static str, &'static str)> {
    let starts = |with: &[&str]| with.iter().any(|start| name.starts_with(start));
    let file = match name {
        "sum_of_squares" | "adamw" | "sgd" => "optimizer",
        _ if starts(&["attention"]) => "attention",
        _ if starts(&["augment"]) => "augment",
        "normal" | "diffuse" => "noise",
        _ if starts(&["statistics", "prepare", "norm", "input"]) => "input",
        _ if starts(&["activate", "max_pool", "mean_pixels", "batch", "channel", "follow"]) => "activate",
        _ => "elementwise",
    };
    match MODULES.iter().find(|(module, _)| *module == file) {
        Some(found) => Ok(*found),
        None => fail!("kernel {name} is not part of the program"),
    }
}

impl Matrix<'_> {
    fn operation(&self) -> cublas_sys::cublasOperation_t {
        match self.transposed {
            true => cublas_sys::cublasOperation_t::CUBLAS_OP_T,
            false => cublas_sys::cublasOperation_t::CUBLAS_OP_N,
        }
    }

    fn dtype(&self) -> cublas_sys::cudaDataType {
        match self.tensor.dtype() {
            DType::BF16 => cublas_sys::cudaDataType_t::CUDA_R_16BF,
            _ => cublas_sys::cudaDataType_t::CUDA_R_32F,
        }
    }
}

/// Where the elements of a contiguous tensor begin.
pub fn address(tensor: &Tensor) -> Result<u64> {
    fn start<T: CudaDType + DeviceRepr>(storage: &CudaStorage) -> Result<u64> {
        let slice = storage.as_cuda_slice::<T>()?;
        let stream = storage.device.cuda_stream();
        let (address, _) = slice.device_ptr(&stream);
        Ok(address)
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        fail!("a kernel of the GPU needs a tensor there, found one on {:?}", tensor.device().location());
    };
    let Some((first, _)) = layout.contiguous_offsets() else {
        fail!("a kernel of the GPU needs a contiguous tensor, found strides {:?}", layout.stride());
    };
    let start = match tensor.dtype() {
        DType::F32 => start::<f32>(storage)?,
        DType::BF16 => start::<bf16>(storage)?,
        DType::U8 => start::<u8>(storage)?,
        DType::U32 => start::<u32>(storage)?,
        DType::I64 => start::<i64>(storage)?,
        other => fail!("a kernel of the GPU needs a tensor of f32, bf16, u8, u32 or i64, found {other:?}"),
    };
    Ok(start + (first * tensor.dtype().size_in_bytes()) as u64)
}

impl Gpu {
    pub fn of(tensor: &Tensor) -> Option<Self> {
        match tensor.device() {
            Device::Cuda(device) => Some(Gpu(device.clone())),
            _ => None,
        }
    }

    /// A tensor whose elements are still to be written.
    pub fn empty(&self, dims: &[usize], dtype: DType) -> Result<Tensor> {
        let n = dims.iter().product();
        let out_of_memory = |error: candle_core::Error| {
            let size = (n * dtype.size_in_bytes()) >> 20;
            Error::Failed(format!("the GPU has no room for a tensor of {size} MiB ({error}); {LESS_MEMORY}"))
        };
        // SAFETY: every kernel writes all elements of its outputs.
        let storage = unsafe {
            match dtype {
                DType::BF16 => {
                    CudaStorage::wrap_cuda_slice(self.0.alloc::<bf16>(n).map_err(out_of_memory)?, self.0.clone())
                }
                _ => CudaStorage::wrap_cuda_slice(self.0.alloc::<f32>(n).map_err(out_of_memory)?, self.0.clone()),
            }
        };
        Ok(Tensor::from_storage(Storage::Cuda(storage), dims, BackpropOp::none(), false))
    }

    /// Launches a kernel of MODULES.
    pub fn launch(&self, name: &str, blocks: [usize; 3], threads: usize, args: &Args) -> Result<()> {
        if blocks[1] > 65_535 || blocks[0] > i32::MAX as usize {
            fail!("kernel {name}: {blocks:?} blocks are too many for a GPU; use a smaller batch");
        }
        if blocks.contains(&0) {
            return Ok(());
        }
        let (file, ptx) = module(name)?;
        let function = self.0.get_or_load_custom_func(name, file, ptx)?;
        let config = LaunchConfig {
            grid_dim: (blocks[0] as u32, blocks[1] as u32, blocks[2] as u32),
            block_dim: (threads as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut builder = function.builder();
        builder.arg(args);
        // SAFETY: the kernels take just this argument, and its maker has checked sizes against the tensors.
        unsafe { builder.launch(config) }.map_err(|e| failed(name, &e))?;
        Ok(())
    }

    /// c = a b, of sizes m x n and m x k, k x n, f32 sums.
    pub fn multiply(&self, [m, n, k]: [usize; 3], a: Matrix, b: Matrix, c: Matrix) -> Result<()> {
        let (one, zero) = (1f32, 0f32);
        let compute = match a.tensor.dtype() {
            DType::BF16 => cublas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            _ => cublas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        };
        // SAFETY: the sizes are those of the tensors, which live until their work is in the stream.
        unsafe {
            cublas::gemm_ex(
                *self.0.cublas_handle().handle(),
                a.operation(),
                b.operation(),
                m as i32,
                n as i32,
                k as i32,
                (&raw const one).cast(),
                address(a.tensor)? as *const _,
                a.dtype(),
                a.stride as i32,
                address(b.tensor)? as *const _,
                b.dtype(),
                b.stride as i32,
                (&raw const zero).cast(),
                address(c.tensor)? as *mut _,
                c.dtype(),
                c.stride as i32,
                compute,
                cublas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|e| failed("cuBLAS", &e))
    }

    /// A convolution or one of its gradients, all NHWC and of one type.
    pub fn convolve(&self, pass: Pass, shape: &ConvShape, x: &Tensor, weight: &Tensor, y: &Tensor) -> Result<()> {
        let tensors = [address(x)?, address(weight)?, address(y)?];
        cudnn::convolve(&self.0, pass, shape, x.dtype(), tensors)
    }
}

pub(super) fn failed(name: &str, error: &dyn std::fmt::Debug) -> Error {
    Error::Failed(format!("{name} failed on the GPU: {error:?}; --device cpu works without it"))
}
