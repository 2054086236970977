//! Pipes that close, disks that are full, signals, and little memory.

use core::time::Duration;
use std::fs::{self, File};
use std::io::Read;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::models::builtin;
use super::support::{STORY, finish, shell, tercet, text};

#[test]
fn a_reader_that_leaves_is_no_error() {
    let commands = ["run -p hello --seed 1", "completions bash", "man", "inspect --json", "--help"];
    for command in commands {
        let script = format!("{{ $TERCET {command}; echo $? >&2; }} | head -c 1");
        let ran = shell(&script).succeed();
        assert_eq!((ran.stdout.len(), ran.stderr.trim()), (1, "0"), "{command}: {ran}");
    }
}

/// A full disk under a redirected answer: said, not lost.
#[test]
fn output_that_cannot_be_written_is_74() {
    let commands: [&[&str]; 7] = [
        &["run", "-p", "hello", "-n", "4"],
        &["run", "-p", "hello", "-n", "4", "--json"],
        &["run", "-p", "hello", "-n", "4", "--raw"],
        &["run", "--ids", "-p", "1", "-n", "4"],
        &["inspect"],
        &["completions", "zsh"],
        &["man"],
    ];
    for args in commands {
        let full = File::options().write(true).open("/dev/full").unwrap();
        tercet(args).stdout(full).fail(74, &["standard output"]);
    }
}

#[test]
fn closed_streams_do_no_harm() {
    let ran = shell("$TERCET run -p hello -n 4 --seed 1 <&- >&- 2>&-").run();
    assert!(ran.signal.is_none() && ran.stderr.is_empty(), "{ran}");
    let ran = shell("$TERCET run -p hello -n 4 --seed 1 <&-").succeed();
    assert!(ran.stderr.is_empty() && !ran.stdout.is_empty(), "{ran}");
}

#[test]
fn ctrl_c_ends_a_run_with_130_soon() {
    for command in [&["run", "--raw", "-p", STORY, "--seed", "1"][..], &["run", "-p", STORY]] {
        let mut child = tercet(command).spawn();
        let mut stdout = child.stdout.take().unwrap();
        // The first bytes of the answer: it is being written now.
        assert!(stdout.read(&mut [0; 16]).unwrap() > 0);
        let start = Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ran = finish(child);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(130), ""), "{ran}");
    }
}

/// The built-in model fits where little address space is left, and its file as well.
#[test]
fn two_gigabytes_of_address_space_are_enough() {
    let model = builtin();
    for model in ["", text(&model)] {
        let run = format!("run {model} --greedy -n 8 -p hello");
        let expected = shell(&format!("$TERCET {run}")).succeed();
        let limited = shell(&format!("ulimit -v 2097152; $TERCET {run}")).succeed();
        assert_eq!(limited.stdout, expected.stdout);
    }
}

/// The most memory the program has had at once, in KiB, while it answers.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn an_answer_takes_little_memory() {
    let mut child = tercet(["run", "-p", STORY, "--seed", "1", "--threads", "2"]).spawn();
    let mut stdout = child.stdout.take().unwrap();
    let (mut peak, mut samples) = (0, 0);
    while stdout.read(&mut [0; 4]).unwrap() > 0 {
        if let Some(kib) = peak_kib(child.id()) {
            (peak, samples) = (peak.max(kib), samples + 1);
        }
    }
    assert_eq!(finish(child).code, Some(0));
    assert!(samples > 3, "{samples} samples");
    println!("peak: {peak} KiB");
    assert!((10 << 10..120 << 10).contains(&peak), "{peak} KiB");
}

/// Where colours, columns and terminals are not what they are elsewhere, the bytes stay.
#[test]
fn the_environment_changes_no_byte() {
    let run = || tercet(["run", "--greedy", "-n", "8", "-p", "hello"]);
    let expected = run().succeed();
    for (name, value) in [("TERM", "dumb"), ("NO_COLOR", "1"), ("COLUMNS", "20"), ("LANG", "C")] {
        let ran = run().env(name, value).succeed();
        assert_eq!((ran.stdout, ran.stderr), (expected.stdout.clone(), String::new()), "{name}");
    }
    let help = tercet(["--help"]).succeed();
    assert!(!help.text().contains('\x1b'), "{help}");
}
