//! `distill data`: what a data set holds.

use super::{fetch, print, to_json};
use crate::cli::{DataAction, DataActionArgs};
use crate::data::{self, Info, Verification};
use crate::error::Result;
use crate::progress::Console;

/// Classes that are named in text output.
const NAMED: usize = 10;

/// Height and width of a folder's images unless `--image-size` says otherwise, as in its presets.
const FOLDER_SIZE: usize = 64;

pub fn run(action: &DataAction, console: &Console) -> Result<()> {
    match action {
        DataAction::Info(args) => {
            let info = data::info(&args.dataset, image_size(args), args.common.data_dir.as_deref())?;
            if args.common.json { print(&to_json(&info)?) } else { print(&describe(&info)) }
        }
        DataAction::Verify(args) => {
            let found = data::verify(&args.dataset, image_size(args), args.common.data_dir.as_deref())?;
            if args.common.json { print(&to_json(&found)?) } else { print(&report(&found)) }
        }
        DataAction::Fetch(args) => fetch::run(args, console),
    }
}

/// What was asked for, else the set's own size, else that of the presets for folders.
fn image_size(args: &DataActionArgs) -> usize {
    args.image_size.map(usize::from).or(args.dataset.own_size()).unwrap_or(FOLDER_SIZE)
}

fn describe(info: &Info) -> String {
    let names: Vec<&str> = info.classes.iter().take(NAMED).map(|c| c.name.as_str()).collect();
    let more = if info.classes.len() > NAMED { ", ..." } else { "" };
    let mut out = format!("{}: {}\n", info.dataset, info.source);
    out += &format!("images:  {0} x {0} pixels\n", info.image_size);
    for split in &info.splits {
        let official = split.official_images.map_or(String::new(), |count| format!(" (official: {count})"));
        out += &format!("{:<8} {} images{official}\n", format!("{}:", split.split), split.images);
    }
    out += &format!("classes: {} ({}{more})", info.classes.len(), names.join(", "));
    info.notes.iter().fold(out, |out, note| format!("{out}\nnote:    {note}"))
}

fn report(found: &Verification) -> String {
    let mut out = describe(&found.info);
    for r in &found.reports {
        let (least, most) = (r.images_per_class.iter().min(), r.images_per_class.iter().max());
        out += &format!(
            "\n{}: {} images read in {:.2} s, {} to {} a class, {} duplicates, {} also in train\n  mean {:.4?}, std {:.4?}\n  sha256 {}",
            r.split,
            r.images,
            r.load_seconds,
            least.unwrap_or(&0),
            most.unwrap_or(&0),
            r.duplicates,
            r.also_in_train,
            r.mean,
            r.std,
            r.sha256
        );
    }
    out
}
