//! Which crate may depend on which, on whose terms, and from where.

use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs};

use serde_json::Value;

use super::scan::has_word;
use super::{report, root, rust_files};

/// What each member may depend on, of the members.
const DIRECTIONS: [(&str, &[&str]); 5] = [
    ("tercet-core", &[]),
    ("tercet-kernels-ptx", &["tercet-core"]),
    ("tercet-host", &["tercet-core", "tercet-kernels-ptx"]),
    ("tercet", &["tercet-host"]),
    ("tercet-tests", &["tercet-core", "tercet-kernels-ptx", "tercet-host", "tercet"]),
];

/// The one place that code of others comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn list<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().expect("cargo metadata has the lists that it documents").iter()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("")
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let root = root();
    Command::new(program).args(arguments).current_dir(root).output().expect("cargo runs this test")
}

/// `cargo metadata` of the workspace, from what has been downloaded: for every platform if all of
/// it has been (`cargo fetch`), else for this one.
fn metadata() -> Value {
    let version = run("rustc", &["-vV"]).stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let common = ["metadata", "--format-version=1", "--locked", "--offline"];
    let attempts = [vec!["--all-features"], vec!["--filter-platform", host]];
    let mut why = String::new();
    for attempt in attempts {
        let output = run(env!("CARGO"), &[&common[..], &attempt].concat());
        if output.status.success() {
            return serde_json::from_slice(&output.stdout).unwrap();
        }
        why = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    panic!("no metadata: {why}");
}

fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let ids: Vec<&Value> = list(metadata, "workspace_members").collect();
    list(metadata, "packages").filter(move |package| ids.contains(&&package["id"]))
}

/// `src/lib.rs`, `src/main.rs` and the like of every member, from the root of the checkout.
pub(super) fn crate_roots(root: &Path) -> Vec<String> {
    let mut roots = Vec::new();
    for package in members(&metadata()) {
        for target in list(package, "targets") {
            let shipped = |kind: &Value| matches!(kind.as_str(), Some("lib" | "bin"));
            if list(target, "kind").any(shipped) {
                let path = Path::new(text(target, "src_path"));
                let path = path.strip_prefix(root).expect("members lie in the workspace");
                roots.push(path.to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    roots
}

#[test]
fn dependencies_point_one_way() {
    let mut findings = Vec::new();
    for package in members(&metadata()) {
        let name = text(package, "name");
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(member, _)| *member == name) else {
            findings.push(format!("{name}: a member whose place is not stated here"));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let on = text(dependency, "name");
            if DIRECTIONS.iter().any(|(member, _)| *member == on) && !allowed.contains(&on) {
                findings.push(format!("{name} depends on {on}"));
            }
        }
        let build_script = |kind: &Value| kind == "custom-build";
        if list(package, "targets").any(|target| list(target, "kind").any(build_script)) {
            findings.push(format!("{name} has a build script"));
        }
    }
    report("dependencies point one way, without build scripts", &findings);
}

#[test]
fn the_program_knows_only_the_host() {
    let mut findings = Vec::new();
    for (file, source) in rust_files().filter(|(file, _)| file.path.starts_with("tui/")) {
        for name in ["tercet_core", "tercet_kernels_ptx"] {
            let what = format!("names {name}; `tercet_host` should say it");
            findings.extend(file.lines(&source.code, &what, |line| has_word(line, name)));
        }
    }
    report("tui names nothing below host", &findings);
}

#[test]
fn sources_are_the_registry() {
    let locks = ["", "tests/freestanding/", "tests/fuzz/", "tests/outside/"];
    let mut findings = Vec::new();
    for lock in locks.map(|folder| format!("{folder}Cargo.lock")) {
        let text = fs::read_to_string(root().join(&lock)).unwrap();
        for (index, line) in text.lines().enumerate() {
            let source = line.strip_prefix("source = ");
            if source.is_some_and(|source| source.trim_matches('"') != REGISTRY) {
                findings.push(format!("{lock}:{}: {line}", index + 1));
            }
        }
    }
    report("code of others comes from the registry", &findings);
}

#[test]
fn licences_are_allowed() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    let (_, list_start) = deny.split_once("\nallow = [").expect("deny.toml lists licences");
    let (allowed, _) = list_start.split_once(']').expect("the list ends");
    let allowed: Vec<&str> = allowed.split('"').skip(1).step_by(2).collect();
    let metadata = metadata();
    let findings: Vec<String> = list(&metadata, "packages")
        .filter(|package| !satisfied(text(package, "license"), &allowed))
        .map(|package| {
            let licence = text(package, "license");
            format!("{} {}: `{licence}`", text(package, "name"), text(package, "version"))
        })
        .collect();
    report("licences are in the list of deny.toml", &findings);
}

/// Whether `expression` (SPDX, or the old `A/B`) can be met by licences of `allowed` alone.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens = spaced.split_whitespace().peekable();
    any_of(&mut tokens, allowed) && tokens.next().is_none()
}

type Tokens<'t> = core::iter::Peekable<core::str::SplitWhitespace<'t>>;

fn any_of(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    let mut met = all_of(tokens, allowed);
    while tokens.next_if_eq(&"OR").is_some() {
        met |= all_of(tokens, allowed);
    }
    met
}

fn all_of(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    let mut met = one(tokens, allowed);
    while tokens.next_if_eq(&"AND").is_some() {
        met &= one(tokens, allowed);
    }
    met
}

/// A licence or a bracket. An exception (`WITH`) only grants more.
fn one(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    match tokens.next() {
        Some("(") => any_of(tokens, allowed) & (tokens.next() == Some(")")),
        Some(licence) => {
            if tokens.next_if_eq(&"WITH").is_some() {
                let _ = tokens.next(); // the exception's name
            }
            allowed.contains(&licence)
        }
        None => false,
    }
}

#[test]
fn licence_expressions_are_understood() {
    let met = |expression| satisfied(expression, &["MIT", "Apache-2.0", "Unicode-3.0"]);
    assert!(met("MIT") && met("MIT/GPL-3.0") && met("GPL-3.0 OR MIT"), "one is enough");
    assert!(met("(MIT OR GPL-3.0) AND Unicode-3.0"), "brackets");
    assert!(met("Apache-2.0 WITH LLVM-exception"), "exceptions grant");
    assert!(!met("MIT AND GPL-3.0") && !met("GPL-3.0") && !met(""), "all that is asked");
    assert!(!met("(MIT") && !met("MIT MIT"), "no expression");
}
