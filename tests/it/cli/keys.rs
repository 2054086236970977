//! What comes in from a terminal: keys, pastes, answers, sizes, and job control.

use core::time::Duration;
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use rustix::process::{Signal, kill_process};
use tercet_tests::skipped;

use super::pty::Terminal;
use super::support::PROGRAM;
use super::terminal::{assert_whole, pid, trial, watcher};

const PASTE_START: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// What the trial says about a paste of `text`.
fn pasted(text: &str) -> String {
    let add = |sum: u32, byte: u8| sum.wrapping_mul(31).wrapping_add(byte.into());
    format!("paste of {} bytes, sum {:08x}", text.len(), text.bytes().fold(0, add))
}

#[test]
fn a_lone_escape_is_heard_at_once() {
    let mut terminal = trial(&[]);
    let mut waits = Vec::new();
    for count in 1..=9 {
        // At any moment between two frames.
        terminal.watch(Duration::from_millis(7 * count));
        let start = Instant::now();
        terminal.keys(b"\x1b");
        terminal.wait_for(&format!("{count}: key Esc"));
        waits.push(start.elapsed());
    }
    waits.sort();
    println!("Escape to screen: {:?} ... {:?}, median {:?}", waits[0], waits[8], waits[4]);
    assert!(waits[0] < Duration::from_millis(50), "{waits:?}");
    terminal.keys(b"q");
    assert_whole(terminal, "quit", 0);
}

/// A sequence that a network cut is still one key, and the start of a paste never a key.
#[test]
fn sequences_may_arrive_in_pieces() {
    let mut terminal = trial(&[]);
    for byte in b"\x1b[1;5A" {
        terminal.keys(&[*byte]);
        thread::sleep(Duration::from_millis(2));
    }
    terminal.wait_for("Up");
    for byte in [PASTE_START, b"x\r\x03\x1b", PASTE_END].concat() {
        terminal.keys(&[byte]);
        thread::sleep(Duration::from_millis(2));
    }
    terminal.wait_for(&pasted("x\n\x03\x1b"));
    let text = terminal.emulator().text();
    assert!(!text.contains("key"), "{text}");
    terminal.keys(b"q");
    assert_whole(terminal, "quit", 0);
}

#[test]
fn a_paste_of_a_megabyte_is_text_whatever_it_contains() {
    let mut terminal = trial(&[]);
    // All that would end the program, were it a key; and marks that are almost the end.
    let hostile = "q\r\x03\x04\x1a\x1b[20\x1b[201\x1b\x1b[A\u{9b}2~äöü\u{1f600}\0\x7f\tpwaxo\n";
    let text = hostile.repeat((1 << 20) / hostile.len() + 1);
    let start = Instant::now();
    terminal.keys(&[PASTE_START, text.as_bytes(), PASTE_END].concat());
    terminal.wait_for(&pasted(&text.replace('\r', "\n")));
    println!("{} bytes pasted in {:?}", text.len(), start.elapsed());
    let shown = terminal.emulator().text();
    assert!(!shown.contains("key"), "{shown}");
    // The paste is over: keys are keys.
    terminal.keys(b"0");
    terminal.wait_for("key 0");
    terminal.keys(b"q");
    assert_whole(terminal, "quit", 0);
}

/// Half a paste, and the program is killed: the rest is not for the shell.
#[test]
fn the_rest_of_a_paste_is_not_typed_into_the_shell() {
    let mut terminal = trial(&[]);
    let program = pid(&terminal);
    kill_process(program, Signal::STOP).unwrap();
    terminal.keys(&[PASTE_START, b"echo stolen; exit 9\r"].concat());
    terminal.watch(Duration::from_millis(50));
    kill_process(program, Signal::KILL).unwrap();
    // The script reads a line after that: it may not be this one.
    let text = assert_whole(terminal, "killed while a paste arrived", 137);
    assert!(!text.contains("stolen"), "{text}");
}

/// A paste that never ends (a broken terminal) can be left by Ctrl-C after a second of silence.
#[test]
fn a_paste_without_an_end_can_be_left() {
    let mut terminal = trial(&[]);
    terminal.keys(&[PASTE_START, b"half"].concat());
    terminal.watch(Duration::from_millis(1200));
    terminal.keys(&[3]);
    terminal.wait_for(&pasted("half"));
    terminal.keys(b"q");
    assert_whole(terminal, "quit", 0);
}

#[test]
fn answers_of_the_terminal_are_no_keys() {
    let mut terminal = trial(&["ask"]);
    assert!(terminal.shown().windows(5).any(|bytes| bytes == b"\x1b]11;"), "asked");
    terminal.keys(b"\x1b]11;rgb:ffff/ffff/f0f0\x1b\\\x1b[?62;22c");
    terminal.wait_for("Background(Light)");
    // Late, strange and unknown ones.
    terminal.keys(
        b"\x1b]11;rgb:00/00/10\x07\x1bP1+r544e=78\x1b\\\x1b[?1;2$y\x1b[5;9R\x1b]52;c;eA==\x07",
    );
    terminal.wait_for("Background(Dark)");
    terminal.keys(b"0");
    terminal.wait_for("key 0");
    let text = terminal.emulator().text();
    assert_eq!(text.matches("key").count(), 1, "{text}");
    terminal.keys(b"q");
    assert_whole(terminal, "quit", 0);

    // One that comes while the program ends is not typed into the shell.
    let mut terminal = trial(&["ask"]);
    terminal.keys(b"q");
    thread::sleep(Duration::from_millis(20));
    terminal.keys(b"\x1b]11;rgb:0000/0000/0000\x1b\\\x1b[?62;22c");
    let text = assert_whole(terminal, "quit before the answer", 0);
    assert!(!text.contains("11;") && !text.contains("62;"), "{text}");
}

#[test]
fn the_mouse_can_be_given_back() {
    let mut terminal = trial(&[]);
    assert_eq!(terminal.emulator().changed_modes(), [-25, 1049, 2004]);
    terminal.keys(b"m");
    terminal.wait_until("mouse on", |screen| screen.changed_modes().contains(&1000));
    terminal.keys(b"\x1b[<64;10;5M");
    terminal.wait_for("ScrollUp");
    terminal.keys(b"n");
    terminal.wait_until("mouse off", |screen| !screen.changed_modes().contains(&1000));
    assert_eq!(terminal.emulator().changed_modes(), [-25, 1049, 2004]);
    terminal.keys(b"c");
    terminal.wait_until("copied", |screen| screen.commands().contains(&"52;c;Y29waWVk".into()));
    terminal.keys(b"q");
    assert_whole(terminal, "quit", 0);
}

/// A hundred sizes a second for a second, with drawing going on.
#[test]
fn a_storm_of_sizes_is_weathered() {
    let mut terminal = trial(&[]);
    let program = pid(&terminal);
    let start = Instant::now();
    for step in 0..100_u16 {
        terminal.resize(20 + step % 60, 4 + step % 20);
        kill_process(program, Signal::WINCH).unwrap();
        terminal.watch((start + Duration::from_millis(10) * u32::from(step + 1)) - Instant::now());
    }
    terminal.resize(80, 24);
    terminal.keys(b"0");
    terminal.wait_for("key 0");
    let text = terminal.emulator().text();
    let number = |word: &str| -> u32 {
        let rest = &text[text.find(word).unwrap() + word.len()..];
        rest.split(|c: char| !c.is_ascii_digit()).nth(1).unwrap().parse().unwrap()
    };
    println!("{} reports of 100 sizes, {} frames", number("resizes"), number("frames"));
    assert!((2..=60).contains(&number("resizes")), "{text}");
    terminal.keys(b"q");
    assert_whole(terminal, "quit", 0);
}

/// An interactive shell with job control.
fn bash() -> Terminal {
    let mut command = Command::new("setsid");
    command.args(["--ctty", "bash", "--norc", "--noprofile", "-i"]);
    command.env("TERM", "xterm").env("PS1", "ready> ").env("HISTFILE", "/dev/null");
    command.env("TRIAL", format!("{PROGRAM} __trial")).env_remove("RUST_BACKTRACE");
    let mut terminal = Terminal::of(command);
    terminal.wait_for("ready>");
    terminal
}

/// That the shell edits lines, echoes and runs commands; and what `stty` says.
#[track_caller]
fn assert_usable(terminal: &mut Terminal, what: &str) {
    terminal.keys(b"echo $((6 * 7)) works\r");
    terminal.wait_for("42 works");
    let text = terminal.emulator().text();
    assert!(text.contains("echo $((6 * 7)) works"), "{what}: no echo\n{text}");
    terminal.keys(b"clear; stty -a | tr ' ' '\\n' | grep -x -e '-*echo;*' -e '-*icanon' -e '-*isig' -e '-*opost' | sort | tr '\\n' ','; echo\r");
    terminal.wait_for("opost,");
    let text = terminal.emulator().text();
    assert!(text.contains("echo,icanon,isig,opost,"), "{what}\n{text}");
    let modes = terminal.emulator().changed_modes();
    // Bash switches bracketed paste on for its own lines.
    assert!(modes.iter().all(|mode| *mode == 2004), "{what}: {modes:?}");
    terminal.keys(b"clear\r");
    terminal.wait_until("clear", |screen| !screen.text().contains("opost"));
}

#[test]
fn the_shell_is_usable_after_a_kill() {
    let mut terminal = bash();
    for signal in [Signal::KILL, Signal::TERM, Signal::SEGV, Signal::HUP, Signal::KILL] {
        terminal.keys(b"$TRIAL\r");
        terminal.wait_for("entered in");
        let program = pid(&terminal);
        kill_process(program, signal).unwrap();
        if signal == Signal::SEGV {
            // The first one passes: see the test of all signals.
            terminal.watch(Duration::from_millis(100));
            kill_process(program, signal).unwrap();
        }
        let what = format!("{signal:?}");
        terminal.wait_until(&what, |screen| !screen.changed_modes().contains(&1049));
        assert_usable(&mut terminal, &what);
    }
    for key in ["x", "a", "q", "w"] {
        terminal.keys(b"$TRIAL </dev/tty\r");
        terminal.wait_for("entered in");
        terminal.keys(key.as_bytes());
        terminal.wait_until(key, |screen| !screen.changed_modes().contains(&1049));
        assert_usable(&mut terminal, key);
    }
    terminal.keys(b"exit 0\r");
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn it_stops_and_goes_on_like_any_job() {
    let mut terminal = bash();
    terminal.keys(b"$TRIAL mouse\r");
    terminal.wait_for("resumed 0");
    terminal.wait_for("entered in");
    let program = pid(&terminal);
    for round in 1..=3 {
        match round {
            1 => terminal.keys(&[0x1a]),
            2 => kill_process(program, Signal::TSTP).unwrap(),
            // Nobody can prepare for this one; the shell brings its own settings.
            _ => kill_process(program, Signal::STOP).unwrap(),
        }
        terminal.wait_for("Stopped");
        if round < 3 {
            assert_usable(&mut terminal, "stopped");
        }
        terminal.keys(b"fg\r");
        terminal.wait_for(&format!("resumed {round}"));
        terminal.keys(round.to_string().as_bytes());
        terminal.wait_for(&format!("key {round}"));
        let modes = terminal.emulator().changed_modes();
        assert!(
            modes.contains(&1049) && modes.contains(&1000) && modes.contains(&2004),
            "{modes:?}"
        );
        assert_eq!(pid(&terminal), program);
    }
    // Killed while it is stopped: there is nothing to restore.
    terminal.keys(&[0x1a]);
    terminal.wait_for("Stopped");
    kill_process(program, Signal::KILL).unwrap();
    assert_usable(&mut terminal, "killed while stopped");
    terminal.keys(b"exit 0\r");
    terminal.watch(Duration::from_millis(50));
    assert_eq!(terminal.end().0, Some(0));
}

/// Continued in the background it waits for its turn, and does not disturb the shell.
#[test]
fn it_waits_in_the_background() {
    let mut terminal = bash();
    terminal.keys(b"$TRIAL &\r");
    terminal.watch(Duration::from_millis(700));
    assert_usable(&mut terminal, "started in the background");
    terminal.keys(b"fg\r");
    terminal.wait_for("entered in");
    terminal.keys(&[0x1a]);
    terminal.wait_for("Stopped");
    terminal.keys(b"clear; bg\r");
    terminal.watch(Duration::from_millis(500));
    assert_usable(&mut terminal, "continued in the background");
    terminal.keys(b"fg\r");
    terminal.wait_for("resumed");
    terminal.keys(b"q");
    terminal.wait_until("left", |screen| !screen.changed_modes().contains(&1049));
    assert_usable(&mut terminal, "quit");
    terminal.keys(b"exit 0\r");
    assert_eq!(terminal.end().0, Some(0));
}

/// Where nobody could continue it, Ctrl-Z does nothing.
#[test]
fn it_does_not_stop_for_good() {
    let mut command = Command::new("setsid");
    command.args(["--ctty", PROGRAM, "__trial"]);
    assert_goes_on(command);
}

/// The screen that `command` makes does not mind Ctrl-Z, and quits.
fn assert_goes_on(mut command: Command) {
    command.env("TERM", "xterm");
    let mut terminal = Terminal::of(command);
    terminal.wait_for("entered in");
    terminal.keys(&[0x1a]);
    terminal.wait_for("nobody to go back to");
    terminal.keys(b"q");
    assert_eq!(terminal.end().0, Some(0));
}

/// In a container the leaders of session and group may be outside, and have no number inside.
#[test]
fn nobody_outside_a_container_is_asked() {
    let container = ["--user", "--map-root-user", "--fork", "--pid"];
    let possible = Command::new("unshare").args(container).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        skipped("namespaces");
        return;
    }
    // The program as the container's first process: its session, group and parent are outside.
    let mut first = Command::new("setsid");
    first.args(["--ctty", "unshare"]).args(container).args([PROGRAM, "__trial"]);
    // The program in a session of its own: only its parent's is outside.
    let mut second = Command::new("unshare");
    let script = r#"setsid --ctty "$0" __trial; exit $?"#;
    second.args(container).args(["sh", "-c", script, PROGRAM]);
    assert_goes_on(first);
    assert_goes_on(second);
}

/// A terminal that goes away while the signal for it is ignored.
#[test]
fn it_ends_with_its_terminal() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    // `script` is the terminal; when it is killed, the terminal is gone.
    let inner = format!("trap '' HUP; {PROGRAM} __trial; echo \"code $?\" > {path}");
    let mut script = Command::new("setsid")
        .args(["script", "-q", "-c", &inner, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    let mut output = script.stdout.take().unwrap();
    while !shown.windows(7).any(|bytes| bytes == b"entered") {
        let mut bytes = [0; 4096];
        let count = output.read(&mut bytes).unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&bytes[..count]);
    }
    script.kill().unwrap();
    script.wait().unwrap();
    let start = Instant::now();
    while fs::read(path).unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "still there");
        thread::sleep(Duration::from_millis(10));
    }
    let said = fs::read_to_string(path).unwrap();
    assert!(["code 129\n", "code 74\n"].contains(&&*said), "{said}");
}

/// Answers stay in the scrollback, and the shell goes on below.
#[test]
fn inline_leaves_the_scrollback_alone() {
    let mut terminal = bash();
    terminal.keys(b"echo before; $TRIAL inline\r");
    terminal.wait_until("asked for the cursor", |_| true);
    let asked = |shown: &[u8]| shown.windows(4).any(|bytes| bytes == b"\x1b[6n");
    while !asked(terminal.shown()) {
        terminal.watch(Duration::from_millis(10));
    }
    let (row, _) = terminal.emulator().cursor_row();
    terminal.keys(format!("\x1b[{};1R", row + 1).as_bytes());
    terminal.wait_for("entered in");
    let text = terminal.emulator().text();
    assert!(text.contains("\nbefore\npid "), "{text}");
    let program = pid(&terminal);
    assert!(watcher(program).is_some());
    kill_process(program, Signal::KILL).unwrap();
    terminal.wait_for("Killed");
    assert_usable(&mut terminal, "killed inline");
    terminal.keys(b"exit 0\r");
    assert_eq!(terminal.end().0, Some(0));
}

/// How long it takes to take the terminal over, and to give it back.
#[test]
fn taking_over_is_quick() {
    let mut times = Vec::new();
    for _ in 0..7 {
        let mut terminal = trial(&[]);
        let text = terminal.emulator().text();
        let (_, rest) = text.split_once("entered in ").unwrap();
        times.push(rest.split_once(" us").unwrap().0.parse::<u32>().unwrap());
        terminal.keys(b"q");
        assert_whole(terminal, "quit", 0);
    }
    times.sort_unstable();
    println!("entered in {} ... {} us, median {}", times[0], times[6], times[3]);
    assert!(times[0] < 20_000, "{times:?}");
    let _ = std::io::stdout().flush();
}
