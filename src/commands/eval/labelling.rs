//! Who gives real images soft labels, where a protocol asks for them.

use std::path::PathBuf;

use candle_core::Device;

use super::subject::{Source, Subject};
use crate::cli::{Common, VIEWS};
use crate::config::Config;
use crate::data::ImageSet;
use crate::distilled::{self, Listing, Provenance};
use crate::error::Result;
use crate::eval::{Labeller, Protocol, Teacher, TrainingSet};
use crate::progress::Console;
use crate::usage;

pub struct Labelling<'a> {
    /// None is the data set's newest.
    pub teacher: Option<PathBuf>,
    /// None is [`VIEWS`].
    pub views: Option<u32>,
    pub common: &'a Common,
    pub device: Device,
}

impl Labelling<'_> {
    /// From now on labels as `subject` is labelled, where it is no baseline: by the same teacher, and as many views unless it
    /// is said otherwise.
    ///
    /// # Errors
    /// The subject has no soft labels, nothing says whose they are, or they are another's than the teacher that was named.
    pub fn follow(&mut self, subject: &Subject, protocol: &Protocol) -> Result<()> {
        let theirs = match &subject.source {
            Source::Distilled(path) => {
                let Listing { soft_labels, provenance, .. } = distilled::open(path)?.listing;
                let Some(soft) = soft_labels else {
                    usage!(
                        "{}: has no soft labels, which protocol {} needs; add a teacher's with `distill label`",
                        subject.name(),
                        protocol.name
                    );
                };
                self.views = self.views.or(Some(soft.views as u32));
                labeller(&provenance)
            }
            Source::File(..) => None,
            _ => return Ok(()),
        };
        match theirs {
            Some(theirs) => self.teacher = Some(self.same_teacher(subject, &theirs)?),
            None if self.teacher.is_some() => {}
            None => usage!(
                "{}: nothing in it says which teacher gave its soft labels, and real images beside it must have the same \
                 one's; name it with --teacher, and its views of an image with --views, or label the set with `distill label`",
                subject.name()
            ),
        }
        Ok(())
    }

    /// The folder of the teacher who labelled `subject`: the one that is named, or else one that is at hand.
    fn same_teacher(&self, subject: &Subject, theirs: &Labeller) -> Result<PathBuf> {
        let folder = match &self.teacher {
            Some(_) => Some(self.folder(subject)?),
            None => Teacher::with_weights(&theirs.teacher_sha256, &self.common.out),
        };
        let teacher = folder.map(|folder| Teacher::open(&folder, &self.device)).transpose()?;
        match teacher.filter(|teacher| teacher.sha256 == theirs.teacher_sha256) {
            Some(teacher) => Ok(teacher.folder),
            None => usage!(
                "{}: its soft labels are of the teacher {} (SHA-256 of its weights: {}), which is not there, or not the one \
                 that was named; name its folder with --teacher",
                subject.name(),
                theirs.teacher,
                theirs.teacher_sha256
            ),
        }
    }

    /// `images`, real ones to stand beside `subject`, with soft labels.
    pub fn label(&self, subject: &Subject, images: ImageSet, console: &Console) -> Result<(TrainingSet, Labeller)> {
        let teacher = Teacher::open(&self.folder(subject)?, &self.device)?;
        let views = self.views.unwrap_or(VIEWS);
        console.info(format!("labels by {}, {views} views an image", teacher.folder.display()));
        let mut train = TrainingSet::from(images);
        train.soft_labels = Some(teacher.label(&train.images, views, console)?);
        Ok((train, teacher.labeller(views)))
    }

    fn folder(&self, subject: &Subject) -> Result<PathBuf> {
        let Config { dataset, image_size, .. } = &subject.config;
        Teacher::locate(self.teacher.as_deref(), &self.common.out, dataset, *image_size)
    }
}

/// Who gave a set its soft labels.
pub fn labeller(set: &Provenance) -> Option<Labeller> {
    serde_json::from_value(set.details.get("soft_labels")?.clone()).ok()
}
