//! Files that are small on disk and large in memory: refused before memory is spent.

use std::path::Path;
use std::process::Command;

use tercet_tests::files::safetensors_bytes;
use tercet_tests::fixture::Form;
use tercet_tests::folder::Folder;

use super::{PATIENCE, Stopwatch, load, small};

/// Most memory that a refusal may take, in bytes.
const GROWTH_MAX: u64 = 200 << 20;

/// Environment variable that names the model to a process of its own.
const PATH: &str = "TERCET_TESTS_LOAD";

/// Most memory in use so far, in bytes.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// What the process of [`check`] runs; by itself it does nothing.
#[cfg(target_os = "linux")]
#[test]
fn load_in_a_process_of_its_own() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let (watch, before) = (Stopwatch::start(), peak());
    let loaded = load(Path::new(&path));
    let (elapsed, grown) = (watch.elapsed(), peak() - before);
    let error = loaded.expect_err("a hostile model");
    super::check(&error, error.exit_code());
    println!("{} MiB in {elapsed:?}: {error}", grown >> 20);
    assert!(elapsed < PATIENCE, "took {elapsed:?}: {error}");
    assert!(grown < GROWTH_MAX, "took {} MiB: {error}", grown >> 20);
}

/// Loads the folder in a process of its own, so that its memory is its own.
#[cfg(target_os = "linux")]
#[track_caller]
fn check(folder: &Folder, what: &str) {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["--exact", "checkpoint::limits::load_in_a_process_of_its_own", "--nocapture"])
        .env(PATH, folder.path())
        .output()
        .expect("a process");
    let told = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {told}\n{complained}");
    let measured = told.lines().find(|line| line.contains(" MiB in "));
    println!("{what}: {}", measured.unwrap_or_else(|| panic!("nothing measured: {told}")));
}

/// `open`, then `item` as often as it fits into `bytes`, then `close`.
fn filled(open: &str, item: impl Fn(usize) -> String, close: &str, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 100);
    text += open;
    let mut number = 0;
    while text.len() < bytes {
        text += &item(number);
        number += 1;
    }
    text.pop();
    text + close
}

#[cfg(target_os = "linux")]
fn check_header(header: &str, what: &str) {
    let folder = small().folder(Form::Multiply);
    folder.put("model.safetensors", &safetensors_bytes(header, &[0; 16]));
    check(&folder, what);
}

/// Just within the limit of 32 MiB.
#[cfg(target_os = "linux")]
const HEADER: usize = (32 << 20) - 300;

#[cfg(target_os = "linux")]
#[test]
fn headers_that_swell() {
    let entry = "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
    check_header(&" ".repeat(33 << 20), "33 MiB of nothing");
    check_header(&format!("{{\"{}\":1}}", "x".repeat(HEADER)), "one long name");
    let names = filled("{", |n| format!("\"{n:0120}\":{entry},"), "}", HEADER);
    check_header(&names, "as many long names as fit");
    let short = filled("{", |n| format!("\"{n}\":{entry},"), "}", HEADER);
    check_header(&short, "as many short names as fit");
    let shape = filled("{\"a\":{\"dtype\":\"U8\",\"shape\":[", |_| "1,".into(), "]}}", HEADER);
    check_header(&shape, "one long shape");
    let metadata = filled("{\"__metadata__\":{", |n| format!("\"{n:x}\":\"\","), "}}", HEADER);
    check_header(&metadata, "much metadata");
    let unknown = filled("{\"a\":{\"x\":[", |_| "[],".into(), "]}}", HEADER);
    check_header(&unknown, "an unknown field");
    let deep = format!("{{\"a\":{{\"x\":{}", "[".repeat(HEADER - 100));
    check_header(&deep, "a deep field");
}

#[cfg(target_os = "linux")]
#[test]
fn side_files_that_swell() {
    let name = "model.safetensors.index.json";
    let folder = Folder::new();
    let index = (16 << 20) - 100;
    let zeros = filled("{\"weight_map\":{", |n| format!("\"{n:x}\":0,"), "}}", index);
    folder.put(name, zeros.as_bytes());
    check(&folder, "an index of zeros");
    let same = filled("{\"weight_map\":{", |n| format!("\"{n:x}\":\"m\","), "}}", index);
    folder.put(name, same.as_bytes());
    check(&folder, "an index of one name");
    let other = filled("{\"other\":[", |_| "0,".into(), "],\"weight_map\":{}}", index);
    folder.put(name, other.as_bytes());
    check(&folder, "an index with something else");

    for name in ["config.json", "generation_config.json", "tokenizer_config.json"] {
        for bytes in [1 << 20, 8 << 20, 100 << 20] {
            let folder = small().folder(Form::Multiply);
            let zeros = filled("{\"a\":[", |_| "0,".into(), "],\"hidden_size\":0}", bytes);
            folder.put(name, zeros.replace("\"hidden_size\":0", "\"eos_token_id\":-1").as_bytes());
            if name == "tokenizer_config.json" {
                // Valid as it is, so that something else is wrong.
                folder.put("generation_config.json", b"{");
            }
            check(&folder, &format!("{name} of {} MiB", bytes >> 20));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn numbers_that_promise_much() {
    let tiny = small();
    for (key, value) in [("vocab_size", 1 << 24), ("intermediate_size", 1 << 17)] {
        let folder = tiny.folder(Form::Multiply);
        let mut config = tiny.config(Form::Multiply);
        config[key] = value.into();
        folder.put_json("config.json", &config);
        check(&folder, key);
    }
}
