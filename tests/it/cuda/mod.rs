//! The CUDA driver's layer and everything above it, with a stand-in for the driver
//! (`tests/fake_cuda`) that the dynamic linker finds as `libcuda.so.1`; and, in `gpu`, what takes a
//! real one.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod ahead;
mod driver;
mod elf;
mod failures;
mod gpu;
mod layers;
mod memory;
mod trust;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tercet_host::convert::{Kernels, write_tercet};
use tercet_host::layout::WeightLayout;
use tercet_host::package::{Package, Source};
use tercet_tests::folder::Folder;
use tercet_tests::skipped;

/// The stand-in, which `cargo test` builds as an example.
fn library() -> Option<PathBuf> {
    let program = std::env::current_exe().unwrap();
    let profile = program.parent().and_then(Path::parent).expect("tests lie in PROFILE/deps");
    let library = profile.join("examples/libfake_cuda.so");
    if library.exists() {
        return Some(library);
    }
    skipped("fake_cuda");
    None
}

/// A folder in which `libcuda.so.1` is `target`.
fn folder_with(target: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    symlink(target, folder.path().join("libcuda.so.1")).unwrap();
    folder
}

/// A folder with the stand-in.
fn fake() -> Option<TempDir> {
    library().map(|library| folder_with(&library))
}

/// A folder with a driver that cannot be loaded.
fn damaged() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("libcuda.so.1"), "\x7fELF, and then nothing").unwrap();
    folder
}

/// `package` in layout `base3`, in a file of `folder`.
fn in_base3(folder: &Folder, package: &Package) -> Package {
    let file = folder.join("base3.tercet");
    let (layout, with) = (WeightLayout::Base3, Kernels::LeaveOut);
    write_tercet(package, &file, layout, with, &mut |_, _| {}).unwrap();
    Package::open(&Source::Path(file)).unwrap()
}

/// Runs the test `name` of this program again, in a process whose driver is the stand-in.
///
/// Returns whether this is that process, which is to do the work.
fn inside(name: &str, settings: &[(&str, &str)]) -> bool {
    const INSIDE: &str = "TERCET_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let Some(folder) = fake() else { return false };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("LD_LIBRARY_PATH", folder.path())
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 passed"), "{name}, with the stand-in:\n{said}\n{complained}");
    false
}
