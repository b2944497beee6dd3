//! The instruction set that the kernels use, one setting for the whole process, and with it the precision of tensors
//! inside the networks.
//!
//! In bf16, activations and the operands of products are rounded to bf16; sums, weights, statistics and losses stay f32.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use candle_core::DType;

use super::micro;

/// The sets that there are kernels for, the slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// f32 on any processor, by AVX2 and FMA where they are.
    Portable,
    /// f32 by AVX-512.
    Avx512,
    /// bf16 by AVX-512's dot products of pairs.
    Avx512Bf16,
    /// bf16 by the matrix unit (AMX).
    Amx,
}

/// Of the tensors inside the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    Bf16,
}

impl Isa {
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    pub fn as_str(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512-bf16",
            Isa::Amx => "amx",
        }
    }

    /// Whether this processor and system have it.
    pub fn available(self) -> bool {
        micro::available(self)
    }

    pub fn precision(self) -> Precision {
        if self >= Isa::Avx512Bf16 { Precision::Bf16 } else { Precision::F32 }
    }

    /// The fastest available one of a precision; f32 is always there.
    pub fn best(precision: Precision) -> Option<Isa> {
        Isa::ALL.into_iter().rev().find(|isa| isa.precision() == precision && isa.available())
    }
}

impl FromStr for Isa {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Isa::ALL.into_iter().find(|isa| isa.as_str() == name).ok_or(())
    }
}

impl Precision {
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dtype().as_str())
    }
}

/// Index into [`Isa::ALL`], or that number of sets before anything is chosen.
static CURRENT: AtomicU8 = AtomicU8::new(Isa::ALL.len() as u8);

thread_local! {
    static HERE: Cell<Option<Isa>> = const { Cell::new(None) };
}

/// Chooses for all work from now on; false, with nothing changed, if the processor does not have it.
pub fn set(isa: Isa) -> bool {
    let here = isa.available();
    if here {
        CURRENT.store(isa as u8, Ordering::Relaxed);
    }
    here
}

/// Chooses for the work that `f` starts on this thread.
///
/// # Panics
/// If the processor does not have it.
pub fn with<T>(isa: Isa, f: impl FnOnce() -> T) -> T {
    assert!(isa.available(), "this processor has no {}", isa.as_str());
    let before = HERE.replace(Some(isa));
    let out = f();
    HERE.set(before);
    out
}

/// What was set last; before that, the fastest one in f32.
pub fn current() -> Isa {
    let set = || Isa::ALL.get(usize::from(CURRENT.load(Ordering::Relaxed))).copied();
    HERE.get().or_else(set).or_else(|| Isa::best(Precision::F32)).unwrap_or(Isa::Portable)
}
