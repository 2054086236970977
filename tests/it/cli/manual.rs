//! Help, manual pages and completions: one definition, told four ways.

use std::process::{Command, Stdio};

use clap::CommandFactory;
use tercet::args::Cli;
use tercet_tests::skipped;

use super::support::tercet;

/// Every command that people see: the words that lead to it, and its definition.
pub(super) fn commands() -> Vec<(Vec<String>, clap::Command)> {
    fn walk(
        words: &[String],
        command: &clap::Command,
        all: &mut Vec<(Vec<String>, clap::Command)>,
    ) {
        all.push((words.to_vec(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            if inner.get_name() != "help" {
                walk(&[words, &[inner.get_name().to_owned()]].concat(), inner, all);
            }
        }
    }
    let mut program = Cli::command();
    program.build();
    let mut all = Vec::new();
    walk(&[], &program, &mut all);
    all
}

#[test]
fn help_explains_every_option_of_every_command() {
    let commands = commands();
    assert!(commands.len() > 7, "{}", commands.len());
    for (words, command) in commands {
        let long = tercet(words.iter().map(String::as_str).chain(["--help"])).succeed();
        let short = tercet(words.iter().map(String::as_str).chain(["-h"])).succeed();
        assert!(long.stderr.is_empty() && !long.text().contains('\x1b'), "{long}");
        assert!(long.text().contains("Usage: tercet"), "{words:?}: {long}");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let name = match (argument.get_long(), argument.get_short()) {
                (Some(long), _) => format!("--{long}"),
                (None, Some(short)) => format!("-{short}"),
                (None, None) => argument.get_id().as_str().to_uppercase(),
            };
            assert!(long.text().contains(&name), "{words:?} {name}: {long}");
            assert!(short.text().contains(&name), "{words:?} {name}: {short}");
            assert!(argument.get_help().is_some(), "{words:?} {name} is not explained");
        }
        let widest = long.text().lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{words:?}: {widest:?} columns");
    }
}

#[test]
fn version_is_one_line() {
    let expected = format!("tercet {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(tercet(["--version"]).succeed().text(), expected);
    assert_eq!(tercet(["-V"]).succeed().text(), expected);
}

/// The codes of the help are those the program knows, and its failures are tested one by one.
#[test]
fn help_lists_the_exit_codes() {
    let help = tercet(["--help"]).succeed();
    let man = tercet(["man"]).succeed();
    for code in ["0 ", "2 ", "65 ", "66 ", "69 ", "70 ", "73 ", "74", "78 ", "130 "] {
        assert!(help.text().contains(code), "{code}: {help}");
        assert!(man.text().contains(code), "{code}: {man}");
    }
}

/// Runs a checker on `text`; loud when it is not installed.
fn accepted(program: &str, args: &[&str], text: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, text).unwrap();
    match Command::new(program).args(args).arg(&path).stdin(Stdio::null()).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{program}: {said}");
            true
        }
        Err(_) => skipped(program),
    }
}

#[test]
fn completions_know_every_command_and_option() {
    // Each shell with its way to read a script without running it; the last has none.
    let checkers = [
        ("bash", Some("-n")),
        ("zsh", Some("-n")),
        ("fish", Some("--no-execute")),
        ("elvish", Some("-compileonly")),
        ("powershell", None),
    ];
    for (shell, check) in checkers {
        let ran = tercet(["completions", shell]).succeed();
        for (words, command) in commands() {
            let name = words.last().map_or("tercet", String::as_str);
            assert!(ran.text().contains(name), "{shell}: {name}");
            for long in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(ran.text().contains(long), "{shell}: {name} --{long}");
            }
        }
        assert!(!ran.text().contains("tercet-under-test"), "{shell} completes another program");
        if let Some(check) = check {
            accepted(shell, &[check], &ran.stdout);
        }
    }
}

/// `__render` is between the program and itself.
#[test]
fn what_is_hidden_stays_hidden() {
    for args in [&["--help"][..], &["man"], &["help"], &["completions", "fish"]] {
        let ran = tercet(args).succeed();
        let told = ran.text().lines().filter(|line| !line.contains("__fish_"));
        assert!(told.into_iter().all(|line| !line.contains("__render")), "{args:?}: {ran}");
    }
    tercet(["man", "__render"]).fail(2, &["__render"]);
}

#[test]
fn manual_pages_have_their_title_and_source() {
    let source = format!("tercet {}", env!("CARGO_PKG_VERSION"));
    let pages = commands().into_iter().filter(|(words, _)| words.len() < 2);
    for (words, command) in pages {
        let ran = tercet([&["man".to_owned()][..], &words].concat()).succeed();
        let name = [&["tercet".to_owned()][..], &words].concat().join("-");
        let title = format!(".TH {name} 1  \"{source}\" ");
        assert!(ran.text().lines().any(|line| line == title), "no `{title}` in {ran}");
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            let escaped = format!("\\-\\-{}", long.replace('-', "\\-"));
            assert!(ran.text().contains(&escaped), "{name} {escaped}: {ran}");
        }
        accepted("groff", &["-man", "-Tutf8", "-ww", "-z"], &ran.stdout);
    }
}
