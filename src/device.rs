//! The device that everything runs on, chosen in this one place.

use std::str::FromStr;

use candle_core::Device;

use crate::error::{Error, Result};
use crate::ops::cpu::isa::{self, Precision};
use crate::usage;

/// What `--device` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => match number(text) {
                Some(ordinal) => Ok(DeviceChoice::Cuda(ordinal)),
                None => usage!("expected auto, cpu or cuda:N"),
            },
        }
    }
}

impl DeviceChoice {
    /// Opens the device. `auto` is the first GPU where there is one that works.
    pub fn open(self) -> Result<Device> {
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto => Ok(gpu::open(0).unwrap_or(Device::Cpu)),
            DeviceChoice::Cuda(ordinal) => {
                gpu::open(ordinal).map_err(|problem| Error::Usage(format!("--device cuda:{ordinal}: {problem}")))
            }
        }
    }

    /// Whether it names a GPU or finds one.
    pub fn is_gpu(self) -> bool {
        match self {
            DeviceChoice::Cuda(_) => true,
            DeviceChoice::Cpu => false,
            DeviceChoice::Auto => gpu::open(0).is_ok(),
        }
    }
}

/// "cpu (2 threads)", for reports.
pub fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => format!("cpu ({} threads)", rayon::current_num_threads()),
        other => gpu::describe(other),
    }
}

/// What networks on this device compute in.
pub fn precision(device: &Device) -> Precision {
    if device.is_cpu() { isa::current().precision() } else { gpu::precision() }
}

pub use gpu::set_precision as set_gpu_precision;

/// GPUs, in a program that was built for them. What goes wrong is a sentence.
#[cfg(feature = "cuda")]
mod gpu {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    use candle_core::Device;
    use candle_core::cuda::cudarc::driver::CudaContext;

    pub use crate::ops::cuda::gpu::{precision, set_precision};

    /// Opened once: tensors of two openings cannot meet.
    static OPENED: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());

    pub fn open(ordinal: usize) -> Result<Device, String> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = opened.get(&ordinal) {
            return Ok(device.clone());
        }
        check_libraries()?;
        let failed = |error: &dyn std::fmt::Display| format!("the GPU cannot be used ({error}); use --device cpu");
        let count = CudaContext::device_count().map_err(|e| failed(&e))?;
        if ordinal as i64 >= i64::from(count) {
            let last = count - 1;
            return Err(match count {
                0 => "this machine has a driver but no GPU; use --device cpu".into(),
                1 => "this machine has one GPU; use --device cuda:0".into(),
                _ => format!("this machine has {count} GPUs; use cuda:0 to cuda:{last}"),
            });
        }
        let device = Device::new_cuda_with_stream(ordinal).map_err(|e| failed(&e))?;
        if let Device::Cuda(cuda) = &device {
            crate::ops::cuda::gpu::prepare(cuda).map_err(|e| {
                format!(
                    "the GPU does not take this program's kernels ({e}): its driver is older than the CUDA that the \
                     program was built with, or the card is; update the driver, or use --device cpu"
                )
            })?;
        }
        opened.insert(ordinal, device.clone());
        Ok(device)
    }

    /// Looks for CUDA's libraries, whose absence would otherwise end the program at their first use.
    #[cfg(feature = "dynamic-loading")]
    fn check_libraries() -> Result<(), String> {
        use candle_core::cuda::cudarc::{cublas, cudnn, curand, driver};
        // SAFETY: these load the system's libraries, whose initializers are trusted as those of any linked library.
        let found = unsafe {
            [
                ("NVIDIA driver (libcuda)", driver::sys::is_culib_present()),
                ("cuBLAS library (libcublas)", cublas::sys::is_culib_present()),
                ("cuRAND library (libcurand)", curand::sys::is_culib_present()),
                ("cuDNN library (libcudnn)", cudnn::sys::is_culib_present()),
            ]
        };
        match found.iter().find(|(_, here)| !here) {
            None => Ok(()),
            Some((library, _)) => Err(format!(
                "expected the {library}, found none; install it, name its folder in LD_LIBRARY_PATH, or use --device cpu"
            )),
        }
    }

    /// A program that is linked with the libraries would not have started without them.
    #[cfg(not(feature = "dynamic-loading"))]
    fn check_libraries() -> Result<(), String> {
        Ok(())
    }

    /// "cuda:0 (NVIDIA H100 80GB HBM3)".
    pub fn describe(device: &Device) -> String {
        let Device::Cuda(cuda) = device else { return format!("{:?}", device.location()) };
        let stream = cuda.cuda_stream();
        let context = stream.context();
        let name = context.name().unwrap_or_else(|_| "an unknown card".into());
        format!("cuda:{} ({name})", context.ordinal())
    }
}

/// A program without GPUs.
#[cfg(not(feature = "cuda"))]
mod gpu {
    use candle_core::Device;

    use crate::ops::cpu::isa::Precision;

    pub fn open(_: usize) -> Result<Device, String> {
        Err("this program was built without CUDA (docs/cuda.md); use --device cpu".into())
    }

    pub fn describe(device: &Device) -> String {
        format!("{:?}", device.location())
    }

    pub fn precision() -> Precision {
        Precision::F32
    }

    pub fn set_precision(_: Precision) {}
}
