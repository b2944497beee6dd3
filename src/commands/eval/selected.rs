//! Real images that are chosen in a teacher's features, as baselines.

use std::path::Path;

use candle_core::Device;

use crate::data::ImageSet;
use crate::error::Result;
use crate::eval::{Teacher, select};
use crate::progress::Console;

/// How images are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The images that cover the others best (Sener and Savarese 2018).
    KCenter,
    /// The images whose mean follows the class's (Welling 2009).
    Herding,
}

impl Selection {
    pub fn as_str(self) -> &'static str {
        match self {
            Selection::KCenter => "k-center",
            Selection::Herding => "herding",
        }
    }
}

/// The indices of `ipc` images of each class of `real`, chosen in the features of the teacher in a folder.
pub fn selected(
    selection: Selection,
    ipc: usize,
    teacher: &Path,
    device: &Device,
    real: &ImageSet,
    console: &Console,
) -> Result<Vec<usize>> {
    let features = Teacher::open(teacher, device)?.cached_features(real, console)?;
    let choose = match selection {
        Selection::KCenter => select::k_center,
        Selection::Herding => select::herding,
    };
    choose(&features, &real.by_class(), ipc)
}
