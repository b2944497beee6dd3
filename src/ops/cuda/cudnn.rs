//! Convolutions by cuDNN: NHWC, with the algorithm chosen once a shape and one workspace for all.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::DType;
use candle_core::cuda::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError,
    FilterDescriptor, TensorDescriptor, sys,
};
use candle_core::cuda::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop, sys::CUdeviceptr,
};
use candle_core::cuda::{CudaDevice, DeviceId};
use half::bf16;

use super::Pass;
use super::gpu::failed;
use crate::error::Error;
use crate::ops::cpu::conv::ConvShape;

thread_local! {
    /// cuDNN's handles belong to a thread.
    static CUDNN: RefCell<HashMap<DeviceId, Library>> = RefCell::default();
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pass: Pass,
    shape: ConvShape,
    dtype: DType,
}

/// cuDNN with what it has chosen for each convolution so far, and the memory that it works in: one buffer, never cleared,
/// for the stream runs one convolution after the other.
struct Library {
    handle: Arc<Cudnn>,
    stream: Arc<CudaStream>,
    chosen: HashMap<Key, Algorithm>,
    workspace: Option<CudaSlice<u8>>,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Input(sys::cudnnConvolutionBwdDataAlgo_t),
    Weight(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// Makes tensor `pass` of the others; `tensors` are the addresses of (x, weight, y), all of `dtype`.
pub fn convolve(
    device: &CudaDevice,
    pass: Pass,
    shape: &ConvShape,
    dtype: DType,
    tensors: [u64; 3],
) -> Result<(), Error> {
    let key = Key { pass, shape: *shape, dtype };
    CUDNN.with_borrow_mut(|libraries| {
        if !libraries.contains_key(&device.id()) {
            libraries.insert(device.id(), Library::open(device).map_err(|e| failed("cuDNN", &e))?);
        }
        let Some(library) = libraries.get_mut(&device.id()) else { return Ok(()) };
        match dtype {
            DType::BF16 => library.convolve(&key, tensors, bf16::ONE, bf16::ZERO),
            _ => library.convolve(&key, tensors, 1f32, 0f32),
        }
        .map_err(|e| failed(&format!("cuDNN, {key:?}"), &e))
    })
}

impl Library {
    fn open(device: &CudaDevice) -> std::result::Result<Self, CudnnError> {
        let stream = device.cuda_stream();
        let handle = Cudnn::new(stream.clone())?;
        Ok(Library { handle, stream, chosen: HashMap::new(), workspace: None })
    }

    fn convolve<T: CudnnDataType>(
        &mut self,
        key: &Key,
        addresses: [u64; 3],
        one: T,
        zero: T,
    ) -> Result<(), CudnnError> {
        let s = &key.shape;
        let d = Descriptions::<T>::new(&self.handle, s)?;
        let (out_pixels, filter) = (s.out_height() * s.out_width(), s.out_channels * s.patch_len());
        let lens = [s.batch * s.height * s.width * s.in_channels, filter, s.batch * out_pixels * s.out_channels];
        let [mut x, mut weight, mut y] = std::array::from_fn(|i| Span(addresses[i], lens[i], self.stream.clone()));
        let algorithm = match self.chosen.get(key) {
            Some(&found) => found,
            None => *self.chosen.entry(key.clone()).or_insert(d.choose(key.pass)?),
        };
        let bytes = d.workspace(algorithm)?;
        if self.workspace.as_ref().is_none_or(|w| w.len() < bytes) {
            self.workspace = None; // freed after the work before
            // SAFETY: cuDNN expects nothing of its contents.
            self.workspace = unsafe { self.stream.alloc::<u8>(bytes) }.ok();
        }
        let (workspace, factors) = (self.workspace.as_mut(), (one, zero));
        // SAFETY: the descriptions are of these tensors, which live until their work is in the stream.
        unsafe {
            match algorithm {
                Algorithm::Forward(a) => d.forward().launch(a, workspace, factors, &x, &weight, &mut y),
                Algorithm::Input(a) => d.input().launch(a, workspace, factors, &mut x, &weight, &y),
                Algorithm::Weight(a) => d.weight().launch(a, workspace, factors, &x, &mut weight, &y),
            }
        }
    }
}

/// cuDNN's descriptions of a convolution, with f32 sums.
struct Descriptions<T: CudnnDataType> {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    filter: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
}

impl<T: CudnnDataType> Descriptions<T> {
    fn new(handle: &Arc<Cudnn>, s: &ConvShape) -> Result<Self, CudnnError> {
        use sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC as NHWC;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut conv = handle.create_conv2d::<f32>([s.padding as i32; 2], [s.stride as i32; 2], [1, 1], mode)?;
        conv.set_math_type(sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH)?; // of f32: TF32
        // Sizes are named in the order (N, C, H, W) whatever the layout is.
        let dims = |c: usize, h: usize, w: usize| [s.batch, c, h, w].map(|v| v as i32);
        let filter = [s.out_channels, s.in_channels, s.kernel, s.kernel].map(|v| v as i32);
        Ok(Descriptions {
            conv,
            x: handle.create_4d_tensor(NHWC, dims(s.in_channels, s.height, s.width))?,
            filter: handle.create_4d_filter(NHWC, filter)?,
            y: handle.create_4d_tensor(NHWC, dims(s.out_channels, s.out_height(), s.out_width()))?,
        })
    }

    fn forward(&self) -> ConvForward<'_, T, f32, T> {
        ConvForward { conv: &self.conv, x: &self.x, w: &self.filter, y: &self.y }
    }

    fn input(&self) -> ConvBackwardData<'_, T, f32, T> {
        ConvBackwardData { conv: &self.conv, dx: &self.x, w: &self.filter, dy: &self.y }
    }

    fn weight(&self) -> ConvBackwardFilter<'_, T, f32, T> {
        ConvBackwardFilter { conv: &self.conv, x: &self.x, dw: &self.filter, dy: &self.y }
    }

    /// What cuDNN's heuristics put first.
    fn choose(&self, pass: Pass) -> Result<Algorithm, CudnnError> {
        Ok(match pass {
            Pass::Forward => Algorithm::Forward(self.forward().pick_algorithm()?),
            Pass::Input => Algorithm::Input(self.input().pick_algorithm()?),
            Pass::Weight => Algorithm::Weight(self.weight().pick_algorithm()?),
        })
    }

    /// Bytes of workspace that an algorithm needs.
    fn workspace(&self, algorithm: Algorithm) -> Result<usize, CudnnError> {
        match algorithm {
            Algorithm::Forward(a) => self.forward().get_workspace_size(a),
            Algorithm::Input(a) => self.input().get_workspace_size(a),
            Algorithm::Weight(a) => self.weight().get_workspace_size(a),
        }
    }
}

/// Elements on the GPU that belong to a tensor: address, number, stream.
struct Span(CUdeviceptr, usize, Arc<CudaStream>);

impl<T> DeviceSlice<T> for Span {
    fn len(&self) -> usize {
        self.1
    }

    fn stream(&self) -> &Arc<CudaStream> {
        &self.2
    }
}

impl<T> DevicePtr<T> for Span {
    fn device_ptr<'a>(&'a self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.0, SyncOnDrop::Record(None))
    }
}

impl<T> DevicePtrMut<T> for Span {
    fn device_ptr_mut<'a>(&'a mut self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.0, SyncOnDrop::Record(None))
    }
}
