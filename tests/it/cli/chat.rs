//! The chat line by line on a real terminal: turns, keys, commands, and a model that means harm.

use core::time::Duration;
use std::time::Instant;

use serde_json::{Value, json};

use super::models::Altered;
use super::pty::Terminal;
use super::support::{STORY, text};

/// Line by line, with short answers.
const SHORT: [&str; 7] = ["--plain", "--no-save", "--no-history", "-n", "16", "--seed", "1"];

/// The number before `word` in the line of numbers under an answer.
fn number_before(line: &str, word: &str) -> u32 {
    let before = &line[..line.find(word).unwrap()];
    let digits = before.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap().parse().unwrap()
}

/// Says `message`; gives the answer and the line under it.
fn turn(terminal: &mut Terminal, message: &str) -> (String, String) {
    terminal.line(message);
    let answer = terminal.expect("\r\n[");
    let numbers = terminal.expect("]\r\n");
    terminal.expect("> ");
    (answer, numbers)
}

#[test]
fn a_conversation_goes_on_from_where_it_was() {
    let mut terminal = Terminal::start(&SHORT);
    let greeting = terminal.expect("> ");
    assert!(greeting.contains("built in") && greeting.contains("context 768"), "{greeting}");
    assert!(greeting.contains("/help"), "{greeting}");

    let (answer, first) = turn(&mut terminal, STORY);
    assert!(answer.starts_with(STORY) && answer.len() > STORY.len() + 20, "{answer:?}");
    assert_eq!(number_before(&first, "reused"), 0, "{first}");
    assert_eq!(number_before(&first, " tokens"), 16, "{first}");
    assert!(first.contains("tokens/s") && first.contains("ended by max tokens"), "{first}");

    let (_, second) = turn(&mut terminal, "And then?");
    let prompt = number_before(&first, " (0 reused");
    assert!(number_before(&second, "reused") >= prompt, "{first}{second}");

    terminal.line("/clear");
    terminal.expect("> ");
    let (again, third) = turn(&mut terminal, STORY);
    // The conversation is forgotten, not what was computed for words that are the same again.
    assert_eq!(number_before(&third, " ("), prompt, "{third}");
    assert_eq!(again, answer, "the same seed, the same conversation");

    terminal.keys(&[4]);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

#[test]
fn commands_do_what_help_says() {
    let mut terminal = Terminal::start(&SHORT);
    terminal.expect("> ");
    terminal.line("/help");
    let help = terminal.expect("> ");
    for command in ["/help", "/clear", "/system", "/quit", "Ctrl-D", "Ctrl-C"] {
        assert!(help.contains(command), "{help}");
    }
    let (_, plain) = turn(&mut terminal, "hello");
    terminal.line("/system You are a dog.");
    terminal.expect("> ");
    let (_, instructed) = turn(&mut terminal, "hello");
    let prompt = |line: &str| number_before(line, " (");
    assert!(prompt(&instructed) > prompt(&plain), "{plain}{instructed}");
    // Instructions outlive the conversation.
    terminal.line("/clear");
    terminal.expect("> ");
    let (_, cleared) = turn(&mut terminal, "hello");
    assert_eq!(prompt(&cleared), prompt(&instructed));

    terminal.line("/nonsense now");
    let answer = terminal.expect("> ");
    assert!(answer.contains("there is no command `/nonsense`"), "{answer}");
    assert!(answer.contains("/help"), "{answer}");
    terminal.line("");
    terminal.line("   ");
    terminal.expect("> ");
    terminal.expect("> ");
    terminal.line("/quit");
    assert_eq!(terminal.end().0, Some(0));
}

/// A line that ends in `\` goes on: one message of two lines.
#[test]
fn a_message_may_span_lines() {
    let mut terminal = Terminal::start(&[&SHORT[..], &["--system", "Be brief."]].concat());
    terminal.expect("> ");
    let (_, one) = turn(&mut terminal, "hello there");
    terminal.line("/clear");
    terminal.expect("> ");
    terminal.line("hello\\");
    terminal.expect(". ");
    let (_, two) = turn(&mut terminal, "there you are");
    assert!(number_before(&two, " (") > number_before(&one, " ("), "{one}{two}");
    terminal.line("/bye");
    assert_eq!(terminal.end().0, Some(0));
}

/// A model that never ends an answer by itself, so that only Ctrl-C can.
fn talkative(folder: &std::path::Path) -> std::path::PathBuf {
    let no_end = |json: &mut Value| json["eos_token_id"] = Value::Null;
    Altered::new()
        .with_json("config.json", no_end)
        .with_json("generation_config.json", no_end)
        .with_json("tokenizer.json", |json| json["added_tokens"][2]["special"] = json!(false))
        .with_json("tokenizer_config.json", |json| json["eos_token"] = json!("<pad>"))
        .write(folder)
}

#[test]
fn ctrl_c_stops_the_answer_and_keeps_the_chat() {
    let folder = tempfile::tempdir().unwrap();
    let model = talkative(folder.path());
    // Slow on purpose: the whole answer would take ten seconds and more.
    let args = [
        text(&model),
        "--plain",
        "--no-save",
        "--no-history",
        "--seed",
        "1",
        "--threads",
        "1",
        "--simd",
        "portable",
    ];
    let mut terminal = Terminal::start(&args);
    terminal.expect("> ");
    for message in [STORY, "And then?"] {
        terminal.line(message);
        terminal.expect("\r\n");
        terminal.expect(" ");
        let start = Instant::now();
        terminal.keys(&[3]);
        let rest = terminal.expect("ended by cancelled]\r\n");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(number_before(&rest[rest.rfind('[').unwrap()..], " tokens") > 0, "{rest}");
        terminal.expect("> ");
    }
    terminal.line("/help");
    terminal.expect("/clear");
    terminal.expect("> ");
    // Nothing to stop: it ends the program.
    terminal.keys(&[3]);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(130), "{shown}");
}

/// A message that does not fit is refused with both counts; the chat goes on without it.
#[test]
fn a_message_that_does_not_fit_is_refused() {
    let mut terminal = Terminal::start(&[&SHORT[..], &["--ctx", "64"]].concat());
    terminal.expect("> ");
    terminal.line(&"one two three four five six seven eight ".repeat(12));
    let refused = terminal.expect("/clear starts a new conversation\r\n");
    assert!(refused.contains("the context holds 64") && refused.contains("hint:"), "{refused}");
    terminal.expect("> ");
    turn(&mut terminal, "hello");
    terminal.keys(&[4]);
    assert_eq!(terminal.end().0, Some(0));
}
