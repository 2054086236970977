//! Files that change while they are mapped.

#![cfg(target_os = "linux")]

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Command;

use tercet_host::checkpoint::install_truncation_guard;
use tercet_host::package::{Package, Source};
use tercet_tests::fixture::Form;

use super::small;

/// Environment variable that names the model to a process of its own.
const PATH: &str = "TERCET_TESTS_TRUNCATE";

/// What the process below runs; by itself it does nothing.
#[test]
fn truncate_in_a_process_of_its_own() {
    let Some(path) = std::env::var_os(PATH).map(PathBuf::from) else { return };
    install_truncation_guard();
    let package = Package::open(&Source::Path(path.clone())).expect("a valid model");
    let file = OpenOptions::new().write(true).open(path.join("model.safetensors"));
    file.and_then(|file| file.set_len(0)).expect("a file of ours");
    let model = package.bind().expect("norms are read here, or should be");
    panic!("{} layers out of nothing", model.layers.len());
}

#[test]
fn a_file_cut_short_while_in_use_ends_in_a_sentence() {
    let folder = small().folder(Form::Multiply);
    let program = std::env::current_exe().expect("this program");
    let test = "checkpoint::truncation::truncate_in_a_process_of_its_own";
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(PATH, folder.path())
        .output()
        .expect("a process");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{complained}");
    assert!(complained.contains("cut short while in use"), "{complained}");
    assert!(complained.contains("hint:"), "{complained}");
}
