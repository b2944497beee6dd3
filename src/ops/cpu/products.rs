//! What matrix products of convolutions and linear layers are computed in, one setting for the whole process.
//!
//! Tensors are f32 either way. With [`Products::Bf16`] both operands of each product are rounded to bf16 and the sums
//! stay in f32, as in PyTorch's autocast.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::amx;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// Operands and sums in f32.
    F32,
    /// Operands rounded to bf16, sums in f32, on the CPU's matrix unit (AMX).
    Bf16,
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Products::Bf16 { "bf16" } else { "f32" })
    }
}

static BF16: AtomicBool = AtomicBool::new(false);

/// Whether this CPU and system can compute [`Products::Bf16`].
pub fn available() -> bool {
    amx::available()
}

/// Chooses for all products from now on. Where bf16 is not [`available`], products stay in f32; returns what holds.
pub fn set(products: Products) -> Products {
    BF16.store(products == Products::Bf16 && available(), Ordering::Relaxed);
    current()
}

pub fn current() -> Products {
    if BF16.load(Ordering::Relaxed) { Products::Bf16 } else { Products::F32 }
}
