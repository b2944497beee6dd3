//! The types of a tensor's elements, and buffers of them that start at a cache line.

use candle_core::WithDType;
use half::bf16;

use super::elementwise::{exp, exp_to_bf16};
use super::micro::DEPTH;

/// An element of an activation: f32, or bf16 with arithmetic in f32.
pub trait Element: Plain + WithDType {
    /// Elements that one unit of 4 bytes holds.
    const PER_UNIT: usize;

    fn widen(self) -> f32;
    /// To nearest, ties to even.
    fn round(value: f32) -> Self;
    /// e^x, as exactly as the type can tell.
    fn exp(x: f32) -> f32;
}

impl Element for f32 {
    const PER_UNIT: usize = 1;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn exp(x: f32) -> f32 {
        exp(x)
    }
}

impl Element for bf16 {
    const PER_UNIT: usize = 2;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Without a branch, so that loops become vector code. The NaN that arithmetic makes stays one.
    #[inline(always)]
    fn round(value: f32) -> Self {
        let bits = value.to_bits();
        bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }

    #[inline(always)]
    fn exp(x: f32) -> f32 {
        exp_to_bf16(x)
    }
}

/// The same slice, if both types are one.
pub fn same<A: Element, B: Element>(values: &[A]) -> Option<&[B]> {
    // SAFETY: elements of one data type are of one type.
    (A::DTYPE == B::DTYPE).then(|| unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) })
}

/// Elements of depth of a tile.
pub const fn depth<E: Element>() -> usize {
    DEPTH * E::PER_UNIT
}

/// What a [`Buffer`] can hold: any pattern of bits is a value.
///
/// # Safety
/// Just that.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: numbers.
unsafe impl Plain for f32 {}
// SAFETY: numbers.
unsafe impl Plain for bf16 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// A buffer that is kept from task to task and starts at a cache line, which tile loads reward.
#[derive(Default)]
pub struct Buffer(Vec<Line>);

impl Buffer {
    /// `len` elements that hold whatever was there before.
    pub fn take<E: Plain>(&mut self, len: usize) -> &mut [E] {
        let lines = (len * size_of::<E>()).div_ceil(64);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 64]));
        }
        // SAFETY: the lines hold as many bytes, all of them initialized, and every pattern of bits is an element.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    pub fn as_ptr<E: Plain>(&self) -> *const E {
        self.0.as_ptr().cast()
    }

    /// `len` zeros.
    pub fn zeroed<E: Plain>(&mut self, len: usize) -> &mut [E] {
        let values = self.take(len);
        values.fill(E::default());
        values
    }
}
