//! Real images that are chosen in a teacher's features, as baselines.

use std::path::Path;

use candle_core::Device;

use crate::data::ImageSet;
use crate::error::Result;
use crate::eval::{PoolSelection, Teacher, select};
use crate::progress::Console;

/// How images are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The images that cover the others best (Sener and Savarese 2018).
    KCenter,
    /// The images whose mean follows the class's (Welling 2009).
    Herding,
    /// As `distill sample --pool` chooses generated ones: what its selection alone does.
    Mix,
}

impl Selection {
    pub fn as_str(self) -> &'static str {
        match self {
            Selection::KCenter => "k-center",
            Selection::Herding => "herding",
            Selection::Mix => PoolSelection::Mix.as_str(),
        }
    }
}

/// The indices of `ipc` images of each class of `real`, as the teacher in a folder sees them. `seed` is that of
/// clusters.
pub fn selected(
    selection: Selection,
    ipc: usize,
    teacher: &Path,
    device: &Device,
    real: &ImageSet,
    seed: u64,
    console: &Console,
) -> Result<Vec<usize>> {
    let teacher = Teacher::open(teacher, device)?;
    let classes = real.by_class();
    let features = || teacher.cached_features(real, console);
    match selection {
        Selection::KCenter => select::k_center(&features()?, &classes, ipc),
        Selection::Herding => select::herding(&features()?, &classes, ipc),
        Selection::Mix => {
            select::suffice(&classes, ipc)?;
            PoolSelection::Mix.choose(&teacher, features, real, (ipc, seed), console)
        }
    }
}
