//! The terminal is whole after every way to end: its settings, its screen, its cursor, its modes.
//!
//! The program under test has a screen and ends as its keys say (`tests/tercet_under_test`). It
//! runs under a shell that leads the session, since a terminal whose session has lost its leader is
//! gone, whoever would restore it.

use core::time::Duration;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::emulator::Emulator;
use super::models::copy;
use super::pty::Terminal;
use super::support::{PROGRAM, text};

/// Runs the program as a script would, and says how it ended.
const SCRIPT: &str = r#""$0" "$@"; echo "code $?"; read line"#;

/// The screen on a terminal, drawing.
pub(super) fn trial(args: &[&str]) -> Terminal {
    trial_of(PROGRAM, args)
}

fn trial_of(program: &str, args: &[&str]) -> Terminal {
    let mut command = Command::new("setsid");
    command.args(["--ctty", "sh", "-c", SCRIPT, program, "__trial"]).args(args);
    command.env("TERM", "xterm").env_remove("RUST_BACKTRACE");
    let mut terminal = Terminal::of(command);
    terminal.wait_for("entered in");
    terminal
}

/// The process that draws, as it says itself.
pub(super) fn pid(terminal: &Terminal) -> Pid {
    let shown = terminal.emulator().text();
    let (_, rest) = shown.split_once("pid ").expect("shown");
    let (number, _) = rest.split_once(';').unwrap();
    Pid::from_raw(number.parse().unwrap()).unwrap()
}

/// The watcher of `program`.
pub(super) fn watcher(program: Pid) -> Option<Pid> {
    let pid = program.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let mut children = children.split_whitespace().map(|child| child.parse().unwrap());
    children.next().and_then(Pid::from_raw)
}

/// Waits for the end; the terminal has to be as it was. Gives what is then on the screen.
#[track_caller]
pub(super) fn assert_whole(mut terminal: Terminal, what: &str, code: i32) -> String {
    terminal.expect(&format!("code {code}"));
    assert_ended(terminal, what)
}

/// The same after the code has been seen.
#[track_caller]
fn assert_ended(mut terminal: Terminal, what: &str) -> String {
    // A shell may be faster than whoever cleans up behind a program that was killed.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5)
        && (!terminal.changed_settings().is_empty()
            || !terminal.emulator().changed_modes().is_empty())
    {
        terminal.watch(Duration::from_millis(5));
    }
    assert_eq!(terminal.changed_settings(), "", "{what}");
    assert!(terminal.emulator().changed_modes().is_empty(), "{what}");
    terminal.keys(b"\r");
    // The terminal is closed when the last process that holds it has ended: nobody is left behind.
    let (script, shown) = terminal.end();
    assert_eq!(script, Some(0), "{what}");
    let after = shown.rsplit_once("\x1b[?25h").unwrap().1;
    assert!(!after.contains('\x1b'), "{what}: nothing is drawn afterwards: {after:?}");
    let mut screen = Emulator::new(80, 24);
    screen.feed(shown.as_bytes());
    screen.text()
}

/// Ways to end that the program chooses: key, exit code, and words that remain on the screen.
#[test]
fn the_terminal_is_whole_after_every_ending() {
    let bug = "this is a bug in tercet";
    let endings: [(&str, char, i32, &[&str]); 9] = [
        ("quit", 'q', 0, &[]),
        ("quit, asking", 'l', 0, &[]),
        ("error", 'e', 65, &["what was wanted is not there", "hint: want something else"]),
        ("panic", 'p', 70, &["the main thread stumbled", bug]),
        ("panic of a thread", 'w', 70, &["a worker stumbled", bug]),
        (
            "panic of a thread, drawing goes on",
            'W',
            70,
            &["'worker' panicked", "a worker stumbled over", bug],
        ),
        ("panic in a pool", 'r', 70, &["a pool stumbled", bug]),
        ("abort", 'a', 134, &[]),
        ("exit", 'x', 3, &[]),
    ];
    for place in ["full", "inline"] {
        for (what, key, code, words) in endings {
            let mut terminal = trial(&[place, "mouse"]);
            terminal.keys(key.to_string().as_bytes());
            let text = assert_whole(terminal, what, code);
            for word in words {
                assert!(text.contains(word), "{place}, {what}: {word}\n{text}");
            }
            assert!(place == "inline" || !text.contains("frames"), "{what}\n{text}");
        }
    }
}

/// Where rayon finds nobody to pass a panic on to, it aborts the program, unless that has heard of
/// the panic and ended before.
#[test]
fn the_terminal_is_whole_after_a_panic_that_nobody_waits_for() {
    let mut terminal = trial(&[]);
    terminal.keys(b"R");
    let told = terminal.expect("code ");
    let code = terminal.expect("\n");
    assert!(["70", "134"].contains(&code.trim()), "{code}");
    assert!(told.contains("a pool stumbled alone"), "{told}");
    assert_ended(terminal, "panic that nobody waits for");
}

#[test]
fn the_terminal_is_whole_after_a_stack_overflow() {
    let mut terminal = trial(&[]);
    terminal.keys(b"o");
    let text = assert_whole(terminal, "stack overflow", 134);
    // Said by the runtime before it aborts, while the screen was up.
    assert!(text.contains("overflowed its stack"), "{text}");
}

#[test]
fn the_terminal_is_whole_after_signals() {
    let ordered = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
    let deadly = [Signal::KILL, Signal::SEGV, Signal::ABORT, Signal::BUS, Signal::XCPU];
    for signal in ordered.into_iter().chain(deadly) {
        let mut terminal = trial(&["mouse"]);
        let program = pid(&terminal);
        kill_process(program, signal).unwrap();
        if [Signal::SEGV, Signal::BUS].contains(&signal) {
            // Handlers that look for addresses of theirs let the first one pass, since a fault
            // would happen again.
            terminal.watch(Duration::from_millis(100));
            kill_process(program, signal).unwrap();
        }
        assert_whole(terminal, &format!("{signal:?}"), 128 + signal.as_raw());
    }
}

/// The whole group, as terminals and shells do it. The shell that leads it does not mind.
#[test]
fn the_watcher_survives_what_the_group_gets() {
    for signal in [Signal::INT, Signal::HUP, Signal::TERM, Signal::QUIT] {
        let mut command = Command::new("setsid");
        let script = format!("trap : INT HUP TERM QUIT; {SCRIPT}");
        command.args(["--ctty", "sh", "-c", &script, PROGRAM, "__trial"]).env("TERM", "xterm");
        let mut terminal = Terminal::of(command);
        terminal.wait_for("entered in");
        let program = pid(&terminal);
        // The group of a session's leader has its number, which is the parent's.
        let status =
            fs::read_to_string(format!("/proc/{}/stat", program.as_raw_nonzero())).unwrap();
        let group = status.rsplit_once(')').unwrap().1.split_whitespace().nth(2).unwrap();
        terminal.keys(b"h"); // hangs: nobody hears the signal
        terminal.watch(Duration::from_millis(100));
        let group = Pid::from_raw(group.parse().unwrap()).unwrap();
        kill_process_group(group, signal).unwrap();
        terminal.watch(Duration::from_millis(100));
        assert!(watcher(program).is_some(), "{signal:?}");
        kill_process(program, Signal::KILL).unwrap();
        assert_whole(terminal, &format!("{signal:?}, then SIGKILL"), 137);
    }
}

/// Whoever does not end in order is ended, and the terminal restored.
#[test]
fn a_program_that_hangs_is_ended() {
    let mut terminal = trial(&[]);
    terminal.keys(b"h");
    terminal.watch(Duration::from_millis(100));
    let start = Instant::now();
    kill_process(pid(&terminal), Signal::TERM).unwrap();
    assert_whole(terminal, "SIGTERM while it hangs", 143);
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
}

/// The guard of mapped files ends the program inside a signal handler.
#[test]
fn a_model_cut_short_leaves_a_message_on_a_whole_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy(folder.path());
    let mut terminal = trial(&[text(&model)]);
    terminal.keys(b"b");
    let text = assert_whole(terminal, "SIGBUS", 74);
    assert!(text.contains("the model file was cut short while in use"), "{text}");
    assert!(text.contains("hint: start again when"), "{text}");
}

/// What others write to stderr meanwhile is shown afterwards, without what it would do.
#[test]
fn words_of_libraries_wait_for_the_end() {
    let mut terminal = trial(&[]);
    terminal.keys(b"i");
    terminal.watch(Duration::from_millis(200));
    assert!(!terminal.emulator().text().contains("library"), "{}", terminal.emulator().text());
    terminal.keys(b"q");
    let text = assert_whole(terminal, "words of a library", 0);
    assert!(text.contains("a library says ") && text.contains(" something"), "{text}");
}

#[test]
fn without_a_watcher_the_program_restores_what_it_can() {
    let folder = tempfile::tempdir_in(std::path::Path::new(PROGRAM).parent().unwrap()).unwrap();
    let program = folder.path().join("tercet");
    for (key, code) in [("q", 0), ("e", 65), ("p", 70), ("w", 70)] {
        fs::hard_link(PROGRAM, &program).unwrap();
        let mut terminal = trial_of(text(&program), &["unlinked", "mouse"]);
        assert_eq!(watcher(pid(&terminal)), None);
        terminal.keys(key.as_bytes());
        assert_whole(terminal, key, code);
    }
    let mut terminal = trial(&[]);
    let watcher = watcher(pid(&terminal)).unwrap();
    kill_process(watcher, Signal::KILL).unwrap();
    terminal.watch(Duration::from_millis(100));
    terminal.keys(b"i");
    terminal.keys(b"q");
    assert_whole(terminal, "watcher killed", 0);
}

/// The watcher holds the terminal, a socket and a pipe, and nothing else of the program's.
#[test]
fn the_watcher_is_small() {
    let mut terminal = trial(&[]);
    let watcher = watcher(pid(&terminal)).unwrap().as_raw_nonzero();
    let files = |process: &str| {
        let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let of = |path: PathBuf| {
            (path.file_name().unwrap().to_owned(), fs::read_link(&path).unwrap_or_default())
        };
        files.map(of).collect::<BTreeMap<_, _>>()
    };
    // Whatever whoever started the tests forgot to close goes through all of us.
    let inherited = files("self");
    let own = files(&watcher.to_string()).into_iter();
    let own: Vec<_> = own.filter(|(number, file)| inherited.get(number) != Some(file)).collect();
    let standard = |number: &OsString| ["0", "1", "2"].iter().any(|standard| number == standard);
    assert!(own.iter().all(|(number, _)| standard(number)), "{own:?}");
    assert_eq!(fs::read_to_string(format!("/proc/{watcher}/comm")).unwrap(), "restore-tty\n");
    let status = fs::read_to_string(format!("/proc/{watcher}/status")).unwrap();
    let memory = |name: &str| -> u32 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!("watcher: {} kB, of its own {} kB", memory("VmRSS"), memory("RssAnon"));
    assert!(memory("RssAnon") < 4096, "{status}");
    terminal.keys(b"q");
    assert_whole(terminal, "quit", 0);
}
