//! Tells the program which commit it is built from, where that can be known: from git, or from the file that `cargo
//! package` puts into a packaged source. Development builds leave it out, or each commit would build everything again.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("PROFILE").is_ok_and(|profile| profile == "release")
        && let Some(commit) = packaged().or_else(checked_out)
    {
        println!("cargo:rustc-env=DISTILL_COMMIT={commit}");
    }
}

/// The commit that a packaged source was made of.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    let hash = rest.split('"').nth(1)?;
    hash.chars().all(|c| c.is_ascii_hexdigit()).then(|| hash.chars().take(12).collect())
}

/// The commit that is checked out, with "+" where the source has changed since. None outside a checkout of this project,
/// also where the source lies inside another one's.
fn checked_out() -> Option<String> {
    let root = fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()?;
    if root != fs::canonicalize(env::var("CARGO_MANIFEST_DIR").ok()?).ok()? {
        return None;
    }
    // Every commit and checkout is noted in the second file; the others are what may differ from the commit.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    const SOURCE: [&str; 4] = ["src", "configs", "Cargo.toml", "Cargo.lock"];
    for path in SOURCE {
        println!("cargo:rerun-if-changed={path}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let status = [&["status", "--porcelain", "--"][..], &SOURCE].concat();
    Some(if git(&status)?.is_empty() { commit } else { format!("{commit}+") })
}

/// What git prints; none where git is missing or refuses.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
