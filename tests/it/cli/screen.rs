//! The chat on a whole screen, as users have it: the program, a terminal, keys.

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::models::Altered;
use super::pty::Terminal;
use super::support::{PROGRAM, STORY, tercet, text};
use super::terminal::assert_whole;

/// Runs the program as a script would, says which process it is, and how it ended.
const SCRIPT: &str =
    r#"sh -c 'echo "pid $$;"; exec "$0" "$@"' "$0" "$@"; echo "code $?"; read line"#;

/// A chat with a folder of its own for sessions and history.
struct Chat {
    terminal: Terminal,
    process: Pid,
}

impl Chat {
    fn start(state: &Path, args: &[&str]) -> Self {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "sh", "-c", SCRIPT, PROGRAM]).args(args);
        command.env("TERM", "xterm-256color").env("TERCET_STATE_DIR", state);
        let mut terminal = Terminal::of(command);
        let line = terminal.expect(";");
        let number = line.rsplit_once("pid ").unwrap().1.trim_end_matches(';');
        let process = Pid::from_raw(number.parse().unwrap()).unwrap();
        terminal.wait_for("Type a message");
        terminal.wait_for("ready");
        Self { terminal, process }
    }

    fn send(&mut self, text: &str) {
        self.terminal.keys(format!("{text}\r").as_bytes());
    }

    /// Sends `text` and waits for the end of its answer.
    fn ask(&mut self, text: &str) {
        self.send(text);
        self.terminal.wait_for("ended by");
    }

    fn shown(&self) -> String {
        self.terminal.emulator().text()
    }
}

/// The sessions that are saved in `state`.
fn sessions(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(state.join("sessions")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    paths.sort();
    paths
}

/// The only saved session.
fn session(state: &Path) -> Value {
    let [path] = &sessions(state)[..] else { panic!("{:?}", sessions(state)) };
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A model that never ends an answer by itself, and options that make it slow: half a minute for a
/// whole context.
fn talkative(folder: &Path) -> Vec<String> {
    let no_end = |json: &mut Value| json["eos_token_id"] = Value::Null;
    let model = Altered::new()
        .with_json("config.json", no_end)
        .with_json("generation_config.json", no_end)
        .with_json("tokenizer.json", |json| json["added_tokens"][2]["special"] = json!(false))
        .with_json("tokenizer_config.json", |json| json["eos_token"] = json!("<pad>"))
        .write(folder);
    [text(&model), "--seed", "1", "--threads", "1", "--simd", "portable"]
        .map(str::to_owned)
        .to_vec()
}

const SHORT: [&str; 6] = ["--seed", "1", "-n", "24", "--device", "cpu"];

#[test]
fn a_conversation_is_had_saved_resumed_and_replayed() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::start(state.path(), &SHORT);
    chat.ask(STORY);
    let shown = chat.shown();
    assert!(shown.contains(&format!("> {STORY}")) && shown.contains("24 tokens"), "{shown}");
    for word in ["tokens/s", "context", "first token"] {
        assert!(shown.contains(word), "{word}:\n{shown}");
    }
    chat.send("/set max-tokens 8");
    chat.terminal.wait_for("max-tokens           8");
    chat.ask("And then?");
    chat.terminal.wait_for("[8 tokens");
    chat.send("/quit");
    assert_whole(chat.terminal, "/quit", 0);

    let saved = session(state.path());
    let turns = saved["turns"].as_array().unwrap();
    assert_eq!(
        (turns.len(), &turns[0]["user"], &turns[1]["user"]),
        (2, &json!(STORY), &json!("And then?"))
    );
    assert_eq!((&turns[0]["seed"], turns[1]["tokens"].as_array().unwrap().len()), (&json!(1), 8));

    let mut chat = Chat::start(state.path(), &["--resume", "--seed", "2", "-n", "5"]);
    let shown = chat.shown();
    assert!(shown.contains(STORY) && shown.contains("And then?"), "{shown}");
    // What was typed before is a key away.
    chat.terminal.keys(b"\x1b[A\x1b[A\x1b[A");
    chat.terminal.wait_for("max-tokens 8");
    chat.terminal.keys(b"\x15");
    chat.ask("The end?");
    chat.terminal.keys(&[4]);
    assert_whole(chat.terminal, "Ctrl-D", 0);
    assert_eq!(session(state.path())["turns"].as_array().unwrap().len(), 3);

    let path = sessions(state.path()).remove(0);
    let replayed = tercet(["replay", text(&path), "--threads", "1"])
        .env("TERCET_STATE_DIR", state.path())
        .succeed();
    let answer = turns[0]["answer"].as_str().unwrap();
    assert!(replayed.text().contains(answer), "{replayed}");
}

/// Escape stops an answer at once, and what is there of it stays.
#[test]
fn escape_is_heard_within_a_tenth_of_a_second() {
    let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = talkative(folder.path());
    let args: Vec<_> = model.iter().map(String::as_str).collect();
    let mut chat = Chat::start(state.path(), &args);
    let mut times = Vec::new();
    for round in 0..5 {
        chat.send(&format!("Story number {round}, please."));
        chat.terminal.wait_for("answering");
        chat.terminal.watch(Duration::from_millis(150));
        let start = Instant::now();
        chat.terminal.keys(b"\x1b");
        chat.terminal.wait_for("ended by");
        times.push(start.elapsed());
        chat.send("/clear");
        chat.terminal.wait_until("cleared", |screen| !screen.text().contains("ended by"));
    }
    times.sort();
    // Of the lone Escape 25 ms go by before it is known to be one, and a frame may be 33 ms away.
    // The machine may be busy; but not five times.
    assert!(times[0] < Duration::from_millis(100), "{times:?}");
    assert!(times[4] < Duration::from_secs(2), "{times:?}");
    // During the prompt, too: nothing of it stays, and the message is back in the editor.
    chat.send(&"one two three four five six seven eight ".repeat(14));
    chat.terminal.wait_for("reading");
    chat.terminal.keys(b"\x1b");
    chat.terminal.wait_for("stopped before the first word");
    chat.terminal.keys(&[3]);
    chat.terminal.wait_for("Ctrl-C once more leaves");
    chat.terminal.keys(&[3]);
    assert_whole(chat.terminal, "Ctrl-C, Ctrl-C", 0);
}

/// Whatever ends the program in the middle of an answer: the terminal is whole, and all turns
/// before are saved.
#[test]
fn every_ending_in_an_answer_leaves_terminal_and_session_whole() {
    let folder = tempfile::tempdir().unwrap();
    let model = talkative(folder.path());
    let deadly = [Signal::KILL, Signal::ABORT];
    let ordered = [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT];
    for signal in deadly.into_iter().chain(ordered) {
        let state = tempfile::tempdir().unwrap();
        let args: Vec<_> = model.iter().map(String::as_str).collect();
        let mut chat = Chat::start(state.path(), &args);
        chat.send("/set max-tokens 3");
        chat.ask(STORY);
        chat.send("/set max-tokens none");
        chat.send("And then?");
        chat.terminal.wait_for("answering");
        kill_process(chat.process, signal).unwrap();
        assert_whole(chat.terminal, &format!("{signal:?}"), 128 + signal.as_raw());
        let saved = session(state.path());
        let turns = saved["turns"].as_array().unwrap();
        assert_eq!(turns[0]["user"], STORY, "{signal:?}");
        // Who is asked to end saves what is there of the answer, too.
        if deadly.contains(&signal) {
            assert_eq!(turns.len(), 1, "{signal:?}: {saved}");
        } else {
            let cut = (turns.len(), &turns[1]["stop_reason"]);
            assert_eq!(cut, (2, &json!("cancelled")), "{signal:?}: {saved}");
        }
    }
}

/// Leaving while an answer is replaced: what is there of the new one stays, and where there is
/// nothing of it, the old one.
#[test]
fn leaving_in_the_middle_keeps_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let model = talkative(folder.path());
    let args: Vec<_> = model.iter().map(String::as_str).collect();
    for (key, code) in [(Some(4), 0), (None, 143)] {
        let state = tempfile::tempdir().unwrap();
        let mut chat = Chat::start(state.path(), &args);
        chat.send("/set max-tokens 3");
        chat.ask(STORY);
        chat.send("/set max-tokens none");
        chat.send("/regen");
        chat.terminal.wait_for("answering");
        chat.terminal.watch(Duration::from_millis(200));
        match key {
            Some(key) => chat.terminal.keys(&[key]),
            None => kill_process(chat.process, Signal::TERM).unwrap(),
        }
        assert_whole(chat.terminal, "in the middle of /regen", code);
        let saved = session(state.path());
        let turns = saved["turns"].as_array().unwrap();
        assert_eq!((turns.len(), &turns[0]["stop_reason"]), (1, &json!("cancelled")), "{saved}");
    }
}

/// Another model goes on with the conversation; one that cannot be had changes nothing.
#[test]
fn models_change_in_the_middle_of_a_conversation() {
    let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = talkative(folder.path());
    let mut chat = Chat::start(state.path(), &SHORT);
    chat.ask(STORY);
    chat.send("/model /nonexistent");
    chat.terminal.wait_for("hint:");
    chat.send(&format!("/model {}", model[0]));
    chat.terminal.wait_for("this conversation was had with");
    chat.send("And then?");
    chat.terminal.wait_until("answered", |screen| {
        let text = screen.text();
        text.split_once("> And then?").is_some_and(|(_, answer)| answer.contains("[24 tokens"))
    });
    chat.terminal.keys(&[4]);
    assert_whole(chat.terminal, "Ctrl-D", 0);
    let saved = session(state.path());
    assert_eq!((&saved["turns"][0]["setup"], &saved["turns"][1]["setup"]), (&json!(0), &json!(1)));
    assert_eq!(saved["setups"][1]["model"]["place"]["path"], model[0]);
}

/// A megabyte is pasted, shown folded, refused with both counts, and not lost.
#[test]
fn a_paste_of_a_megabyte_is_refused_and_stays() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::start(state.path(), &SHORT);
    let paste = "a long story \x1b[31m about /quit\r\n".repeat(33_000);
    assert!(paste.len() > 1_000_000);
    let start = Instant::now();
    chat.terminal.keys(format!("\x1b[200~{paste}\x1b[201~").as_bytes());
    chat.terminal.wait_for("[pasted");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    chat.terminal.keys(b"\r");
    chat.terminal.wait_for("the context holds 768");
    chat.terminal.wait_for("[pasted");
    chat.terminal.keys(b"\x15");
    chat.ask("hello");
    chat.terminal.keys(&[4]);
    assert_whole(chat.terminal, "Ctrl-D", 0);
}

/// Answers that were given inline stay on the screen; what was being typed does not.
#[test]
fn inline_answers_stay() {
    let state = tempfile::tempdir().unwrap();
    let args = [&SHORT[..], &["--inline"]].concat();
    let mut chat = Chat::start(state.path(), &args);
    chat.ask(STORY);
    chat.send("/quit");
    let shown = assert_whole(chat.terminal, "/quit", 0);
    assert!(shown.contains(STORY) && shown.contains("ended by"), "{shown}");
    for word in ["Type a message", "/quit", "first token"] {
        assert!(!shown.contains(word), "{word}:\n{shown}");
    }
}

/// Nothing is left on the disk by those who ask for that.
#[test]
fn nothing_is_saved_unasked() {
    let state = tempfile::tempdir().unwrap();
    let args = [&SHORT[..], &["--no-save", "--no-history"]].concat();
    let mut chat = Chat::start(state.path(), &args);
    chat.ask(STORY);
    chat.send("/save");
    chat.terminal.wait_for("sessions are not saved here");
    chat.terminal.keys(b"\x15");
    chat.terminal.keys(&[4]);
    assert_whole(chat.terminal, "Ctrl-D", 0);
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
}

/// A model that cannot be had is an error on an ordinary screen.
#[test]
fn a_model_that_is_not_there_is_said_plainly() {
    let mut terminal = Terminal::start(&["/nonexistent/model"]);
    terminal.wait_for("hint:");
    assert_eq!(terminal.emulator().commands(), [""; 0]);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(66), "{shown}");
}
