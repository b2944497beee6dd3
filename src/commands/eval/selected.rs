//! Real images that are chosen in a teacher's features, as baselines.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::EvalArgs;
use crate::data::ImageSet;
use crate::error::Result;
use crate::{fail, usage};

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

/// The teacher that `--teacher` names, or the newest under OUT/teachers.
pub fn teacher(args: &EvalArgs) -> Result<PathBuf> {
    if let Some(named) = &args.teacher {
        if !named.is_dir() {
            usage!("--teacher {}: there is no such folder; train one with `distill teacher`", named.display());
        }
        return Ok(named.clone());
    }
    let all = args.common.out.join("teachers");
    let dated = |path: PathBuf| Some((path.metadata().ok().filter(|m| m.is_dir())?.modified().ok()?, path));
    let entries = fs::read_dir(&all).into_iter().flatten().flatten();
    match entries.filter_map(|entry| dated(entry.path())).max() {
        Some((_, newest)) => Ok(newest),
        None => usage!(
            "{}: no teacher is there, in whose features images are chosen; train one with `distill teacher`, or name one \
             with --teacher DIR",
            all.display()
        ),
    }
}

/// The indices of `ipc` images of each class of `real`, chosen in the features of the teacher in a folder.
// MERGE: the one place that needs `crate::eval::Teacher`:
//     let features = Teacher::open(teacher)?.features(real, console)?;
//     let choose = match selection { KCenter => select::k_center, Herding => select::herding };
//     choose(&features, &real.by_class(), ipc)
pub fn selected(selection: Selection, ipc: usize, teacher: &Path, real: &ImageSet) -> Result<Vec<usize>> {
    let _ = (ipc, real);
    fail!("{}: this build cannot read teachers, which {} needs", teacher.display(), selection.as_str())
}
