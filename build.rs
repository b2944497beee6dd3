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
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        compile_kernels();
    }
    // Set by scripts/emulate_cuda.sh.
    println!("cargo:rerun-if-env-changed=DISTILL_CUDA_EMULATOR");
    if let Ok(folder) = env::var("DISTILL_CUDA_EMULATOR") {
        println!("cargo:rustc-cfg=cuda_emulated");
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-lib=dylib=cuda_emulator");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}

/// Makes OUT_DIR/NAME.ptx of each of the GPU's kernels, with the compiler that candle's own kernels need as well.
fn compile_kernels() {
    const KERNELS: &str = "src/ops/cuda/kernels";
    println!("cargo:rerun-if-changed={KERNELS}");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let home = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"].into_iter().find_map(|name| env::var(name).ok());
    let nvcc = env::var("NVCC").ok().or(home.map(|home| format!("{home}/bin/nvcc"))).unwrap_or("nvcc".into());
    let oldest = env::var("CUDA_COMPUTE_CAP").unwrap_or("80".into());
    let out = env::var("OUT_DIR").unwrap_or_default();
    for name in ["activate", "attention", "augment", "elementwise", "input", "noise", "optimizer"] {
        let status = Command::new(&nvcc)
            .args(["-O3", "-std=c++17", "--ptx", &format!("-arch=compute_{oldest}")])
            .args(["-o", &format!("{out}/{name}.ptx"), &format!("{KERNELS}/{name}.cu")])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            panic!("{nvcc} did not compile {KERNELS}/{name}.cu; scripts/cuda-toolchain.sh brings a compiler that does");
        }
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
