//! Data sets from the network: `distill data fetch`, and the first use of a set that is not there.

use std::env::var;

use serde::Serialize;

use super::{print, to_json};
use crate::cli::{Common, FetchArgs};
use crate::data::fetch::{Archive, Patience, fetch};
use crate::data::{self, Dataset, ImageSet, Split, data_root, hub};
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
    if common.offline() {
        usage!("--offline (or DISTILL_OFFLINE) forbids downloads, and fetch is one; drop it");
    }
    if let Dataset::Hub(name) = dataset {
        return from_hub(name, args, console);
    }
    let Some(archive) = Archive::of(dataset) else {
        usage!(
            "--dataset {dataset}: there is nothing to fetch; sets with an archive are cifar10, cifar100 and tinyimagenet"
        );
    };
    let size = dataset.own_size().unwrap_or_default();
    let info = || data::info(dataset, size, common.data_dir.as_deref());
    let (info, fetched) = match info() {
        Err(Error::NoData(_)) => {
            let fetched = bring(&archive, args.url.clone(), common, console)?;
            (info().map_err(|e| incomplete(&archive, e, common))?, fetched)
        }
        found => (found?, false),
    };
    report(Fetched { dataset: dataset.clone(), source: info.source.to_string(), fetched }, common)
}

/// The same for a set of the hub, of which only what is missing is fetched.
fn from_hub(name: &str, args: &FetchArgs, console: &Console) -> Result<()> {
    if args.url.is_some() {
        usage!("--url: a set of the hub has no single archive; name another hub with the variable HF_ENDPOINT");
    }
    console.info(format!("fetching hf:{name} into the hub's cache (HF_HOME)"));
    hub::fetch(name)?;
    let (source, ..) = hub::describe(name)?;
    report(Fetched { dataset: args.dataset.clone(), source, fetched: true }, &args.common)
}

fn report(result: Fetched, common: &Common) -> Result<()> {
    if common.json {
        return print(&to_json(&result)?);
    }
    let how = if result.fetched { "fetched" } else { "was there already" };
    print(&format!("{}: {} ({how})", result.dataset, result.source))
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
    if let Dataset::Hub(name) = dataset
        && !common.offline()
        && !hub::is_offline()
    {
        console.detail(format!("looking for {dataset} on the hub"));
        hub::fetch(name)?; // of a whole set in the cache, only the list of files is asked for
    }
    match (load(), Archive::of(dataset)) {
        (Err(Error::NoData(_)), Some(archive)) if !common.offline() => {
            console.info(format!("{} is not there yet: getting it, once (--offline forbids it)", dataset.title()));
            bring(&archive, None, common, console)?;
            load().map_err(|e| incomplete(&archive, e, common))
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

/// A set that is not there after it was fetched: a folder of its name kept the archive from being unpacked.
fn incomplete(archive: &Archive, error: Error, common: &Common) -> Error {
    match (error, data_root(common.data_dir.as_deref())) {
        (Error::NoData(_), Ok(root)) => Error::Failed(format!(
            "{}: the folder is there, but files of the data set are missing in it; remove it, then run the same command \
             again",
            root.join(archive.folder).display()
        )),
        (error, _) => error,
    }
}
