//! Data sets from the network: `distill data fetch`, and the first use of a set that is not there.

use std::env::var;

use serde::Serialize;

use super::{print, to_json};
use crate::cli::{Common, FetchArgs};
use crate::data::fetch::{Archive, Patience, fetch};
use crate::data::{self, Dataset, ImageSet, Split, data_root};
use crate::error::{Error, Result};
use crate::progress::Console;
use crate::usage;

/// What `distill data fetch` did.
#[derive(Serialize)]
struct Fetched {
    dataset: Dataset,
    /// Where the set is read from.
    source: String,
    /// Whether anything had to be downloaded or unpacked.
    fetched: bool,
}

pub fn run(args: &FetchArgs, console: &Console) -> Result<()> {
    let (dataset, common) = (&args.dataset, &args.common);
    let Some(archive) = Archive::of(dataset) else {
        usage!(
            "--dataset {dataset}: there is nothing to fetch; sets with an archive are cifar10, cifar100 and tinyimagenet"
        );
    };
    if common.offline() {
        usage!("--offline (or DISTILL_OFFLINE) forbids downloads, and fetch is one; drop it");
    }
    let size = dataset.own_size().unwrap_or_default();
    let info = || data::info(dataset, size, common.data_dir.as_deref());
    let (info, fetched) = match info() {
        Err(Error::NoData(_)) => {
            let fetched = bring(&archive, args.url.clone(), common, console)?;
            (info()?, fetched)
        }
        found => (found?, false),
    };
    let result = Fetched { dataset: dataset.clone(), source: info.source.to_string(), fetched };
    if common.json {
        return print(&to_json(&result)?);
    }
    let how = if fetched { "fetched" } else { "was there already" };
    print(&format!("{dataset}: {} ({how})", result.source))
}

/// Reads a split as [`data::load`] does. A set that is nowhere is fetched first, unless `--offline` forbids it.
pub fn load(
    dataset: &Dataset,
    split: Split,
    image_size: usize,
    common: &Common,
    console: &Console,
) -> Result<ImageSet> {
    let load = || data::load(dataset, split, image_size, common.data_dir.as_deref());
    match (load(), Archive::of(dataset)) {
        (Err(Error::NoData(_)), Some(archive)) if !common.offline() => {
            console.info(format!("{} is not there yet: getting it, once (--offline forbids it)", dataset.title()));
            bring(&archive, None, common, console)?;
            load()
        }
        (loaded, _) => loaded,
    }
}

/// Fetches `archive` from `url`, else from the mirror that `$DISTILL_MIRROR` names, else from its own site.
fn bring(archive: &Archive, url: Option<String>, common: &Common, console: &Console) -> Result<bool> {
    let mirror = var("DISTILL_MIRROR").ok().filter(|mirror| !mirror.is_empty());
    let url = url.unwrap_or_else(|| archive.url(mirror.as_deref()));
    fetch(archive, &url, &data_root(common.data_dir.as_deref())?, &Patience::default(), console)
}
