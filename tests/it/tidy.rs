//! The tree obeys its rules. Each test is one rule; a failure lists every place that breaks it.
//!
//! Rust files are looked at through [`scan`], which tells code from comments and strings.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod dependencies;
mod scan;

use core::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use scan::{Source, block_from, has_word, words};

/// Files and folders that may say `unsafe`; all others cannot even by mistake.
const UNSAFE: [&str; 17] = [
    "core/src/simd/",
    "host/src/backend/cuda/attention.rs",
    "host/src/backend/cuda/choose.rs",
    "host/src/backend/cuda/decode.rs",
    "host/src/backend/cuda/driver/",
    "host/src/backend/cuda/launches.rs",
    "host/src/backend/cuda/layers.rs",
    "host/src/backend/cuda/meter.rs",
    "host/src/backend/cuda/ops.rs",
    "host/src/backend/cuda/staging.rs",
    "host/src/checkpoint/mapped.rs",
    "host/src/checkpoint/truncation.rs",
    "host/src/process.rs",
    "kernels-ptx/src/bin/build-ptx/nvrtc.rs",
    "tests/fake_cuda/",
    "tests/freestanding/src/",
    "tests/it/cuda/driver.rs",
];

/// What was expected of another program, or made by one: no rule about text applies.
const NOT_OURS: [&str; 8] = [
    "Cargo.lock",
    "LICENSE-APACHE",
    "kernels-ptx/ptx/",
    "tests/fuzz/artifacts/",
    "tests/fuzz/corpus/",
    "tests/fuzz/found/",
    "tests/golden/",
    "tests/snapshots/",
];

/// Error enums whose hints are another's.
const HINT_ELSEWHERE: [(&str, &str); 2] = [
    ("HeaderError", "CheckpointError::Header answers"),
    ("SessionError", "`Error` takes it apart"),
];

const COLUMNS_MAX: usize = 100;
const LINES_MAX: usize = 600;

/// A file of the tree: its path from the root, with `/`, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// `path:line: what`, lines from 1.
    fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// A finding for every line of `text` that `breaks` the rule `what`.
    fn lines(&self, text: &str, what: &str, breaks: impl Fn(&str) -> bool) -> Vec<String> {
        let broken = text.lines().enumerate().filter(|(_, line)| breaks(line));
        broken.map(|(index, _)| self.finding(index + 1, what)).collect()
    }
}

/// Root of the checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("`tests` is a folder").to_owned()
}

/// All text files of ours, in order of path.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    collect(&root(), "", &mut files);
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

fn rust_files() -> impl Iterator<Item = (File, Source)> {
    files().into_iter().filter(File::is_rust).map(|file| {
        let source = Source::new(&file.text);
        (file, source)
    })
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().expect("names of our files are UTF-8");
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().unwrap();
        let hidden = name.starts_with('.') && ![".ci", ".gitattributes"].contains(&&*name);
        if kind.is_dir() {
            if !hidden && name != "target" && !NOT_OURS.contains(&&*format!("{path}/")) {
                collect(&entry.path(), &format!("{path}/"), files);
            }
        } else if kind.is_file()
            && !hidden
            && !NOT_OURS.iter().any(|theirs| path.ends_with(theirs))
            && let Ok(text) = String::from_utf8(fs::read(entry.path()).unwrap())
        {
            files.push(File { path, text });
        }
    }
}

/// Fails with all findings, one a line.
#[track_caller]
fn report(rule: &str, findings: &[String]) {
    let list = findings.iter().fold(String::new(), |mut list, finding| {
        let _ = writeln!(list, "  {finding}"); // a string takes everything
        list
    });
    assert!(findings.is_empty(), "{rule}: {} places\n{list}", findings.len());
}

#[test]
fn unsafe_stays_where_it_is_listed() {
    let mut findings = Vec::new();
    for (file, source) in rust_files() {
        if !UNSAFE.iter().any(|place| file.path.starts_with(place)) {
            findings.extend(
                file.lines(&source.code, "`unsafe` outside the list", |line| {
                    has_word(line, "unsafe")
                }),
            );
        }
    }
    for place in UNSAFE {
        if !root().join(place).exists() {
            findings.push(format!("{place}: listed, but not there"));
        }
    }
    report("unsafe only in listed files", &findings);
}

#[test]
fn crates_forbid_unsafe() {
    let mut findings = Vec::new();
    for path in dependencies::crate_roots(&root()) {
        // A crate with a listed file in it can only deny, so that the file can allow.
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let listed = UNSAFE.iter().any(|place| place.starts_with(&format!("{folder}/")));
        let source = Source::new(&fs::read_to_string(root().join(&path)).unwrap());
        let has = |level: &str| source.code.contains(&format!("#![{level}(unsafe_code)]"));
        let kept = has("forbid") || listed && has("deny");
        if !kept {
            let or = if listed { ", nor `deny`" } else { "" };
            findings.push(format!("{path}:1: no `#![forbid(unsafe_code)]`{or}"));
        }
    }
    report("crates forbid unsafe code", &findings);
}

#[test]
fn safety_comments_say_something() {
    let empty = ["ffi", "safe", "trivial", "trivially", "obvious", "obviously", "checked", "above"];
    let mut findings = Vec::new();
    for (file, source) in rust_files() {
        let comments: Vec<&str> = source.comments.lines().collect();
        for (index, line) in comments.iter().enumerate() {
            let Some((_, first)) = line.split_once("SAFETY:") else { continue };
            let more = comments[index + 1..].iter().take_while(|line| !line.trim().is_empty());
            let said: String = core::iter::once(&first).chain(more).copied().collect();
            // What is left without the phrases that anybody could write anywhere.
            if words(&said).filter(|word| !empty.contains(word)).count() < 4 {
                findings.push(file.finding(index + 1, "a phrase, not a fact and who vouches"));
            }
        }
    }
    report("SAFETY comments name a fact", &findings);
}

#[test]
fn lint_exceptions_have_reasons() {
    let mut findings = Vec::new();
    for (file, source) in rust_files() {
        for level in ["allow(", "expect("] {
            for (at, _) in source.code.match_indices(level) {
                let before = &source.code[..at];
                // In an attribute if the last bracket opened is one of `#[` or `#![`.
                let attribute = before.rfind(['[', ']', ';', '{', '}']).is_some_and(|bracket| {
                    before[bracket..].starts_with('[')
                        && before[..bracket].trim_end_matches('!').ends_with('#')
                });
                let list = block_from(&source.code, at + level.len() - 1, '(', ')');
                if attribute && !words(list).any(|word| word == "reason") {
                    findings.push(file.finding(before.lines().count(), "no `reason`"));
                }
            }
        }
    }
    report("every allow and expect has a reason", &findings);
}

#[test]
fn every_error_has_a_hint() {
    let sources: Vec<_> =
        rust_files().filter(|(file, _)| file.path.starts_with("host/src/")).collect();
    let mut findings = Vec::new();
    for (file, source) in &sources {
        for (at, _) in source.code.match_indices("enum ") {
            let before = source.code[..at].rsplit(['}', ';']).next().unwrap_or("");
            let name = words(&source.code[at + 5..]).next().unwrap_or("");
            if !before.contains("thiserror") || HINT_ELSEWHERE.iter().any(|(own, _)| *own == name) {
                continue;
            }
            let line = source.code[..at].lines().count();
            let hint = sources.iter().find_map(|(_, source)| hint_of(&source.code, name));
            match hint {
                None => findings.push(file.finding(line, &format!("`{name}` has no `hint`"))),
                Some(body) if body.lines().any(|line| line.trim().starts_with("_ =>")) => {
                    let what = format!("a wildcard in the `hint` of `{name}` hides new variants");
                    findings.push(file.finding(line, &what));
                }
                Some(_) => {}
            }
        }
    }
    report("every variant of every error has a hint", &findings);
}

/// The body of `fn hint` in `impl name`.
fn hint_of<'s>(code: &'s str, name: &str) -> Option<&'s str> {
    let at = code.find(&format!("impl {name} {{"))?;
    let methods = block_from(code, at, '{', '}');
    let at = methods.find("fn hint(")?;
    Some(block_from(methods, at, '{', '}'))
}

#[test]
fn every_operation_has_its_tests() {
    let backend = fs::read_to_string(root().join("host/src/backend/mod.rs")).unwrap();
    let code = Source::new(&backend).code;
    let at = code.find("trait Ops ").expect("host/src/backend/mod.rs defines `Ops`");
    let methods: Vec<&str> = block_from(&code, at, '{', '}')
        .match_indices("fn ")
        .map(|(found, _)| words(&block_from(&code, at, '{', '}')[found + 3..]).next().unwrap())
        .collect();
    assert!(methods.contains(&"embed"), "operations found: {methods:?}");
    // What lock step uses to look at the buffers, what clocks wait for and what meters read is no
    // operation.
    let others = ["bytes", "finish", "quantized", "read", "write"];
    let operations = methods.iter().filter(|name| !others.contains(name));
    let path = operations.map(|name| format!("tests/it/ops/{name}.rs"));
    let missing: Vec<_> = path.filter(|path| !root().join(path).is_file()).collect();
    report("every operation has a test file of its name", &missing);
}

#[test]
fn lines_and_files_are_short() {
    let mut findings = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        let what = format!("more than {COLUMNS_MAX} columns");
        // rustfmt leaves string literals whole, and so do we.
        let long = |line: &str| line.chars().count() > COLUMNS_MAX && !line.contains('"');
        findings.extend(file.lines(&file.text, &what, long));
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            findings.push(file.finding(lines, &format!("more than {LINES_MAX} lines")));
        }
    }
    report("lines and files are short", &findings);
}

#[test]
fn nothing_is_left_to_do() {
    let notes = ["TODO", "FIXME", "XXX", "HACK"];
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let mut findings = Vec::new();
    for (file, source) in rust_files() {
        let noted = |line: &str| notes.iter().any(|note| has_word(line, note));
        findings.extend(file.lines(&source.comments, "a note to finish later", noted));
        let stub = |line: &str| macros.iter().any(|name| has_word(line, name));
        findings.extend(file.lines(&source.code, "a stub", stub));
    }
    report("no notes to finish later and no stubs", &findings);
}

#[test]
fn nothing_names_a_machine_or_an_old_name() {
    // In two halves, so that this file does not find itself.
    let homes = [["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/wo", "rk/"], ["/tm", "p/wt/"]];
    let homes = homes.map(|halves| halves.concat());
    let old = ["te", "rn"].concat();
    let mut findings = Vec::new();
    for file in files() {
        let home = |line: &str| homes.iter().any(|home| line.contains(home.as_str()));
        findings.extend(file.lines(&file.text, "a path of one machine", home));
        let old = |line: &str| {
            words(&line.to_lowercase()).any(|word| word.split('_').any(|part| part == old))
        };
        findings.extend(file.lines(&file.text, "the project's old name", old));
    }
    report("no machine's paths, no old name", &findings);
}

#[test]
fn text_files_are_clean() {
    let mut findings = Vec::new();
    for file in files() {
        findings.extend(
            file.lines(&file.text, "white space at the end", |line| {
                line.ends_with([' ', '\t', '\r'])
            }),
        );
        if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
            findings.push(file.finding(file.text.lines().count(), "should end in one newline"));
        }
    }
    report("no stray white space", &findings);
}
