//! CPU kernels: plain functions over slices, NHWC, parallel over images or rows with a fixed split, so that the
//! same machine gives the same bits on every run.

pub mod activate;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod element;
pub mod elementwise;
pub mod input;
pub mod isa;
mod micro;
pub mod norm;
mod pack;
pub mod pool;
pub mod window;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, InplaceOp2, Layout, Shape, Storage, StorageRef, Tensor};
use half::bf16;
use rayon::prelude::*;

use self::element::Element;
use crate::error::Result;
use crate::fail;

/// Elements per task of an elementwise loop: large enough to hide the hand-over, small enough to stay in L2.
pub const CHUNK: usize = 1 << 16;

/// Read access to the elements of a contiguous CPU tensor.
pub struct Values<'a, E> {
    storage: StorageRef<'a>,
    range: Range<usize>,
    element: PhantomData<E>,
}

/// That of an f32 tensor.
pub type Floats<'a> = Values<'a, f32>;

impl<'a, E: Element> Values<'a, E> {
    pub fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else {
            fail!("a CPU kernel needs a contiguous tensor, found strides {:?}", layout.stride());
        };
        match &*storage {
            Storage::Cpu(values) if E::cpu_storage_as_slice(values).is_ok() => {
                Ok(Values { storage, range: start..end, element: PhantomData })
            }
            _ => fail!(
                "a CPU kernel needs a tensor of {:?} on the CPU, found {:?} on {:?}",
                E::DTYPE,
                tensor.dtype(),
                tensor.device()
            ),
        }
    }
}

impl<E: Element> Deref for Values<'_, E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        match &*self.storage {
            Storage::Cpu(values) => E::cpu_storage_as_slice(values).map_or(&[], |values| &values[self.range.clone()]),
            _ => &[], // `of` admits nothing else
        }
    }
}

/// A tensor that takes `values` over without a copy.
pub fn tensor<E: Element>(values: Vec<E>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// A contiguous tensor with elements of type `E`: itself, if it is one.
pub fn cast<E: Element>(tensor: &Tensor) -> Result<Tensor> {
    fn round<A: Element, B: Element>(values: &[A]) -> Vec<B> {
        let run = |out: &mut [MaybeUninit<B>]| {
            out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(o, v)| elementwise::round_to(v, o));
        };
        // SAFETY: the chunks cover both.
        unsafe { overwritten(values.len(), run) }
    }
    match tensor.dtype() {
        dtype if dtype == E::DTYPE => Ok(tensor.clone()),
        DType::F32 => self::tensor(round::<f32, E>(&Values::of(tensor)?), tensor.dims()),
        DType::BF16 => self::tensor(round::<bf16, E>(&Values::of(tensor)?), tensor.dims()),
        other => fail!("a CPU kernel needs a tensor of f32 or bf16, found {other:?}"),
    }
}

/// A vector of `len` elements that `write` fills: zeros written before would cost a pass over memory.
///
/// # Safety
/// `write` initializes every element.
pub unsafe fn overwritten<E>(len: usize, write: impl FnOnce(&mut [MaybeUninit<E>])) -> Vec<E> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the caller's promise.
    unsafe { values.set_len(len) };
    values
}

/// Copies `source` to where nothing was before.
fn copy_to<E: Copy>(target: &mut [MaybeUninit<E>], source: &[E]) {
    for (t, &s) in target.iter_mut().zip(source) {
        t.write(s);
    }
}

/// Changes the elements of a contiguous f32 CPU tensor in place, which every tensor of the same storage sees, and
/// returns what `change` does.
pub fn update<T>(tensor: &Tensor, mut change: impl FnMut(&mut [f32]) -> T) -> Result<T> {
    let mut found = None;
    try_update(tensor, |values| {
        found = Some(change(values));
        Ok(())
    })?;
    match found {
        Some(found) => Ok(found),
        None => fail!("an in-place update was not run"),
    }
}

/// [`update`] of four tensors, of separate storages, at once.
pub fn update4([a, b, c, d]: [&Tensor; 4], mut change: impl FnMut([&mut [f32]; 4])) -> Result<()> {
    try_update(a, |a| try_update(b, |b| try_update(c, |c| update(d, |d| change([&mut *a, &mut *b, &mut *c, d])))))
}

fn try_update(tensor: &Tensor, change: impl FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
    Ok(tensor.inplace_op1(&Update(RefCell::new(change)))?)
}

/// `target += addend`, in place. An error if they share their storage, which would otherwise lock itself out.
pub fn add_assign(target: &Tensor, addend: &Tensor) -> Result<()> {
    Ok(target.inplace_op2(addend, &AddAssign)?)
}

struct AddAssign;

impl InplaceOp2 for AddAssign {
    fn name(&self) -> &'static str {
        "add_assign"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        tl: &Layout,
        addend: &CpuStorage,
        al: &Layout,
    ) -> candle_core::Result<()> {
        fn add<E: Element>(target: &mut [E], addend: &[E]) {
            let chunks = target.par_chunks_mut(CHUNK).zip(addend.par_chunks(CHUNK));
            chunks.for_each(|(target, addend)| elementwise::add_to(target, addend));
        }
        match (target, tl.contiguous_offsets(), addend, al.contiguous_offsets()) {
            (CpuStorage::F32(target), Some((t0, t1)), CpuStorage::F32(addend), Some((a0, a1)))
                if t1 - t0 == a1 - a0 =>
            {
                add(&mut target[t0..t1], &addend[a0..a1]);
                Ok(())
            }
            (CpuStorage::BF16(target), Some((t0, t1)), CpuStorage::BF16(addend), Some((a0, a1)))
                if t1 - t0 == a1 - a0 =>
            {
                add(&mut target[t0..t1], &addend[a0..a1]);
                Ok(())
            }
            _ => candle_core::bail!("an in-place sum needs two contiguous tensors of one size and type"),
        }
    }
}

/// In a `RefCell` because candle hands the operation over by shared reference.
struct Update<F>(RefCell<F>);

impl<F: FnMut(&mut [f32]) -> Result<()>> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => {
                (self.0.borrow_mut())(&mut values[start..end]).map_err(candle_core::Error::wrap)
            }
            _ => candle_core::bail!("an in-place update needs a contiguous f32 tensor"),
        }
    }
}
