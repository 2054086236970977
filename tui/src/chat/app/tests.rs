//! What recorded events lead to: frames at eight sizes (`UPDATE=1` writes them anew), and what keys
//! do.

use core::time::Duration;
use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tercet_host::event::{Event, Finished, StopReason};
use tercet_host::measure::machine::{Pool, Resident};
use tercet_host::measure::memory::{Held, Memory};
use tercet_host::measure::sampler::Snapshot;
use tercet_host::package::Package;
use tercet_host::sampler::Sampling;
use unicode_width::UnicodeWidthStr;

use super::{App, Look, Places, Wish};
use crate::args::{ChatArgs, ChatForm, Cli};
use crate::builtin;
use crate::chat::conversation::Conversation;
use crate::chat::record::{DeviceId, DeviceKind};
use crate::chat::state::{Chat, Effect};
use crate::chat::theme::Theme;
use crate::chat::worker::{Ask, News, Ready, Refusal};
use crate::device::Why;
use crate::engine::Place;

const MIB: u64 = 1 << 20;

/// The options of `tercet` with `words`.
fn options(words: &[&str]) -> ChatArgs {
    let words = ["tercet"].iter().chain(words).map(|word| (*word).into());
    Cli::read(words).unwrap().chat
}

fn app(words: &[&str]) -> App {
    let ChatArgs { system, sampling, device, .. } = options(words);
    let chat = Chat::new(Conversation::new(system, sampling), device);
    let places = Places { sessions: vec!["2026-11-22-101500".into()], ..Places::default() };
    let look = Look { theme: Theme::dark(), ascii: false, inline: false };
    App::new(chat, vec!["an old message".into()], places, look)
}

fn ready() -> News {
    let source = builtin::source();
    let package = Arc::new(Package::open(&source).unwrap());
    let device = DeviceId {
        kind: DeviceKind::Cpu,
        name: "A processor".into(),
        simd: Some("avx512vnni".into()),
        threads: Some(2),
    };
    let held = Held { weights: 10 * MIB, cache: 4 * MIB, work: 2 * MIB };
    let place = Place { device, why: Why::NoGpu, held, meter: None };
    News::Ready(Ready { package, source, form: ChatForm::Auto, context: 768, place })
}

/// An app whose model has come.
fn idle(words: &[&str]) -> App {
    let mut app = app(words);
    app.news(News::Loading { done: 5, total: 10 });
    app.news(ready());
    app.see(memory());
    app
}

fn memory() -> Snapshot {
    let held = Held { weights: 10 * MIB, cache: 4 * MIB, work: 2 * MIB };
    let resident = Resident { bytes: 40 * MIB, anonymous: 20 * MIB };
    let pool = Pool { total: 16 * 1024 * MIB, available: 12 * 1024 * MIB };
    Snapshot {
        memory: Some(Memory::of_process(held, 0.5, resident, pool)),
        resident: Some(resident.bytes),
        neighbours: Some(0.0),
        looks: 3,
        gpu: None,
    }
}

fn key(code: KeyCode) -> KeyEvent {
    KeyEvent::from(code)
}

fn control(letter: char) -> KeyEvent {
    KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL)
}

/// Types `text` and Enter.
fn send(app: &mut App, text: &str) -> Vec<Wish> {
    app.paste(text);
    app.key(key(KeyCode::Enter))
}

fn begun(prompt: usize) -> News {
    let prompt = (0..prompt).map(|id| u32::try_from(id).unwrap()).collect();
    News::Begun { prompt, sampling: Sampling::GREEDY }
}

fn token(text: &str, position: usize, ms: u64) -> News {
    let elapsed = Duration::from_millis(ms);
    News::Heard(Event::Token { token: 7, text: text.into(), position, elapsed })
}

fn finished(reason: StopReason, prompt: usize, tokens: usize) -> News {
    News::Heard(Event::Finished(Finished {
        reason,
        text: String::new(),
        prompt_tokens: prompt,
        reused_tokens: 0,
        tokens,
        prefill: Duration::from_millis(100),
        decode: Duration::from_millis(40 * tokens as u64),
    }))
}

/// Answers the question that was asked with `words`, one token each, up to its end.
fn answer(app: &mut App, words: &[&str]) -> Vec<Wish> {
    app.news(begun(20));
    app.news(News::Heard(Event::Prefill { done: 0, total: 20, reused: 0 }));
    app.news(News::Heard(Event::Prefill { done: 20, total: 20, reused: 0 }));
    for (number, word) in words.iter().enumerate() {
        let ms = if number == 0 { 110 } else { 35 + number as u64 % 7 };
        app.news(token(word, 20 + number, ms));
    }
    app.news(finished(StopReason::EndOfTurn, 20, words.len()))
}

const STORY: &[&str] = &[
    "# A ",
    "story\n",
    "\nOnce there was a **red",
    " balloon** that ",
    "spoke 日本",
    "語 and ",
    "`let",
    " x = 1;`.\n\n",
    "- it flew\n- it sang ",
    "all day long, and all night long, ",
    "until morning came\n\n```rust\nfn main() {\n    fly(",
    ");\n}\n```\n",
    "The end.",
];

/// What the screen shows, line by line, without spaces at the ends.
fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = app.chat.since + Duration::from_millis(12);
    terminal.draw(|frame| app.draw(frame, now)).unwrap();
    let cells = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut x = 0;
        while x < width {
            let symbol = cells[(x, y)].symbol();
            line.push_str(symbol);
            // What is two columns wide hides the cell after it.
            x += u16::try_from(symbol.width()).unwrap().max(1);
        }
        text += &format!("{}\n", line.trim_end());
    }
    text
}

#[track_caller]
fn snapshot(name: &str, got: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/snapshots/app");
    let path = folder.join(format!("{name}.txt"));
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, got).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(got == expected, "{name}: not as in {}:\n{got}", path.display());
}

/// Sizes of every tier: beside, strip, line, and hardly any room.
const SIZES: [(u16, u16); 8] =
    [(140, 45), (100, 30), (99, 24), (80, 24), (60, 18), (59, 20), (36, 12), (80, 8)];

#[test]
fn frames_of_a_chat_at_eight_sizes() {
    for (width, height) in SIZES {
        let mut text = String::new();
        let mut add = |what: &str, app: &mut App| {
            text += &format!("{what}\n{}", screen(app, width, height));
        };
        let mut app = app(&[]);
        app.news(News::Loading { done: 430 * MIB, total: 1000 * MIB });
        app.see(memory());
        add("---- loading", &mut app);

        app.news(ready());
        app.paste("/s");
        add("---- a command is being typed", &mut app);

        app.key(control('u'));
        send(&mut app, "Tell me a story.\nA short one.");
        app.news(begun(20));
        app.news(News::Heard(Event::Prefill { done: 8, total: 20, reused: 0 }));
        add("---- the prompt is being read", &mut app);

        answer(&mut app, &STORY[..9]);
        send(&mut app, "Go on.");
        app.news(begun(60));
        app.news(News::Heard(Event::Prefill { done: 60, total: 60, reused: 30 }));
        for (number, word) in STORY[9..].iter().enumerate() {
            app.news(token(word, 60 + number, if number == 2 { 300 } else { 40 }));
        }
        add("---- the second answer is being given", &mut app);

        app.key(key(KeyCode::PageUp));
        add("---- scrolled up", &mut app);
        snapshot(&format!("{width}x{height}"), &text);
    }
}

#[test]
fn every_small_size_draws() {
    let mut app = idle(&[]);
    send(&mut app, "Tell me a story.");
    answer(&mut app, STORY);
    app.paste("/set ");
    for width in 0..=64 {
        for height in 0..=20 {
            screen(&mut app, width, height);
        }
    }
}

/// The effects among `wishes`, as text.
fn effects(wishes: &[Wish]) -> String {
    wishes.iter().map(|wish| format!("{wish:?} ")).collect()
}

#[test]
fn escape_stops_an_answer_and_keeps_it() {
    let mut app = idle(&["--seed", "7"]);
    let asked = send(&mut app, "Tell me a story.");
    let [Wish::Remember(_), Wish::Chat(Effect::Ask(Ask::Answer(question)))] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!((question.seed, question.messages.len()), (7, 1));
    app.news(begun(20));
    app.news(token("Once ", 20, 100));
    let stop = app.key(key(KeyCode::Esc));
    assert!(matches!(stop[..], [Wish::Chat(Effect::Stop)]), "{stop:?}");
    // What was on its way still counts.
    app.news(token("upon", 21, 40));
    let saved = app.news(finished(StopReason::Cancelled, 20, 2));
    assert!(matches!(saved[..], [Wish::Chat(Effect::Save)]), "{saved:?}");
    let turns = app.chat.conversation.turns();
    assert_eq!((turns.len(), &*turns[0].answer, turns[0].seed), (1, "Once upon", 7));
    assert_eq!(turns[0].stop_reason, StopReason::Cancelled);
    assert!(!app.chat.is_busy());
}

#[test]
fn a_stop_before_the_first_word_gives_the_message_back() {
    let mut app = idle(&[]);
    send(&mut app, "Tell me a story.");
    app.news(begun(20));
    app.key(control('c'));
    app.news(finished(StopReason::Cancelled, 20, 0));
    assert_eq!(app.editor.text(), "Tell me a story.");
    assert!(app.chat.conversation.turns().is_empty() && !app.chat.is_busy());
}

#[test]
fn ctrl_c_stops_then_clears_then_quits() {
    let mut app = idle(&[]);
    send(&mut app, "Tell me a story.");
    app.news(begun(20));
    app.news(token("Once", 20, 100));
    assert!(effects(&app.key(control('c'))).contains("Stop"));
    app.news(finished(StopReason::Cancelled, 20, 1));
    app.paste("half a thought");
    assert_eq!(effects(&app.key(control('c'))), "");
    assert!(app.editor.is_empty());
    assert!(effects(&app.key(control('c'))).contains("Quit"));
    // Any other key in between, and it takes two again.
    let mut app = idle(&[]);
    app.paste("x");
    app.key(control('c'));
    app.paste("y");
    assert_eq!(effects(&app.key(control('c'))), "");
    // Where nothing is typed, one is enough; so is Ctrl-D.
    assert!(effects(&idle(&[]).key(control('c'))).contains("Quit"));
    assert!(effects(&idle(&[]).key(control('d'))).contains("Quit"));
}

#[test]
fn what_cannot_be_done_stays_in_the_editor() {
    let mut app = idle(&[]);
    assert_eq!(effects(&send(&mut app, "/nonsense")), "");
    assert_eq!(app.editor.text(), "/nonsense");
    app.key(control('u'));
    send(&mut app, "Tell me a story.");
    for text in ["another message", "/clear", "/regen"] {
        assert_eq!(effects(&send(&mut app, text)), "", "{text}");
        assert_eq!(app.editor.text(), text);
        app.key(control('u'));
    }
    // But help, and what is chosen from now on, can be had at any time.
    assert!(effects(&send(&mut app, "/set temp 0.1")).contains("Remember"));
    assert_eq!(app.chat.conversation.options.temp, Some(0.1));
}

#[test]
fn regen_edit_and_undo_change_the_last_turn() {
    let mut app = idle(&["--seed", "7"]);
    send(&mut app, "first");
    answer(&mut app, &["one"]);
    send(&mut app, "second");
    answer(&mut app, &["two"]);

    let regen = effects(&send(&mut app, "/regen"));
    assert!(regen.contains("seed: 8"), "another seed, another answer: {regen}");
    answer(&mut app, &["deux"]);
    let answers = |app: &App| -> Vec<_> {
        let turns = app.chat.conversation.turns().iter();
        turns.map(|turn| format!("{}: {}", turn.user, turn.answer)).collect()
    };
    assert_eq!(answers(&app), ["first: one", "second: deux"]);
    let shown = screen(&mut app, 140, 45);
    assert!(shown.contains("deux") && !shown.contains("two"), "{shown}");

    // `/edit` brings the message back; Escape leaves everything as it was.
    send(&mut app, "/edit");
    assert_eq!(app.editor.text(), "second");
    app.key(key(KeyCode::Esc));
    assert!(app.editor.is_empty());
    send(&mut app, "/edit");
    app.paste(" thought");
    app.key(key(KeyCode::Enter));
    answer(&mut app, &["three"]);
    assert_eq!(answers(&app), ["first: one", "second thought: three"]);

    let undo = send(&mut app, "/undo");
    assert!(effects(&undo).contains("Save"), "{undo:?}");
    assert_eq!(answers(&app), ["first: one"]);
    assert!(!screen(&mut app, 140, 45).contains("second thought"));

    send(&mut app, "third");
    answer(&mut app, &["tre"]);
    let dropped = send(&mut app, "/drop");
    assert!(effects(&dropped).contains("Save"), "{dropped:?}");
    assert_eq!(answers(&app), ["third: tre"]);
    let shown = screen(&mut app, 140, 45);
    assert!(shown.contains("> third") && !shown.contains("> first"), "{shown}");
    send(&mut app, "/undo");
    send(&mut app, "first");
    answer(&mut app, &["one"]);

    // What was to be replaced is there again when its replacement cannot be had.
    for command in ["/regen", "/edit something else"] {
        send(&mut app, command);
        let what = "the GPU has gone".to_owned();
        app.news(News::Refused(Refusal { what, hint: "look for it", is_too_long: false }));
        assert_eq!(answers(&app), ["first: one"]);
        let shown = screen(&mut app, 140, 45);
        for word in ["> first", "one", "hint: look for it"] {
            assert!(shown.contains(word), "{command}, {word}:\n{shown}");
        }
    }
    // The new words are still there to be sent in place of the old ones.
    assert_eq!(app.editor.text(), "something else");
    app.key(key(KeyCode::Enter));
    answer(&mut app, &["won"]);
    assert_eq!(answers(&app), ["something else: won"]);
}

#[test]
fn while_a_model_loads_one_question_waits() {
    let mut app = app(&[]);
    app.news(News::Loading { done: 1, total: 10 });
    assert!(effects(&send(&mut app, "first")).contains("Ask"));
    assert_eq!(effects(&send(&mut app, "second")), "");
    assert_eq!(app.editor.text(), "second");
    app.key(control('u'));
    // It can be stopped, too: it then ends as soon as it begins.
    assert!(effects(&app.key(key(KeyCode::Esc))).contains("Stop"));
    app.news(ready());
    assert!(app.chat.is_busy());
    app.news(begun(20));
    app.news(finished(StopReason::Cancelled, 20, 0));
    assert_eq!(app.editor.text(), "first");

    // A model that cannot be had leaves the question alone that was asked after it.
    app.key(control('u'));
    send(&mut app, "/model /nonexistent");
    send(&mut app, "first");
    let refusal = Refusal { what: "no such model".into(), hint: "x", is_too_long: false };
    app.news(News::NoModel { refusal, reloads: false });
    answer(&mut app, &["one"]);
    assert_eq!(app.chat.conversation.turns()[0].user, "first");
}

#[test]
fn notices_do_not_cut_an_answer() {
    let mut app = idle(&[]);
    send(&mut app, "hello");
    app.news(begun(20));
    app.news(token("a torn wo", 20, 10));
    send(&mut app, "/system");
    app.news(token("rd", 21, 10));
    app.news(finished(StopReason::EndOfTurn, 20, 2));
    let shown = screen(&mut app, 140, 45);
    assert!(shown.contains("a torn word") && shown.contains("no instructions"), "{shown}");
}

/// Leaving in the middle of an answer keeps what is there of it, and what it should have replaced.
#[test]
fn leaving_loses_nothing() {
    let mut app = idle(&[]);
    send(&mut app, "hello");
    answer(&mut app, &["one"]);
    send(&mut app, "/regen");
    app.news(begun(20));
    assert!(app.chat.conversation.is_replacing());
    assert!(!app.chat.conversation.interrupt(&app.chat.stats));
    assert_eq!(app.chat.conversation.turns()[0].answer, "one");

    let mut app = idle(&[]);
    send(&mut app, "hello");
    app.news(begun(20));
    app.news(token("half an ans", 20, 10));
    assert!(app.chat.conversation.interrupt(&app.chat.stats));
    let turn = &app.chat.conversation.turns()[0];
    assert_eq!((&*turn.answer, turn.stop_reason), ("half an ans", StopReason::Cancelled));
}

#[test]
fn hostile_answers_are_clean_on_the_screen_and_whole_in_the_record() {
    let mut app = idle(&[]);
    send(&mut app, "hello");
    answer(&mut app, &["a\x1b", "]52;c;eA", "==\x07b\x1b[", "2Jc\u{9b}", "31md"]);
    let shown = screen(&mut app, 140, 45);
    assert!(shown.contains("abcd"), "{shown}");
    assert_eq!(app.chat.conversation.turns()[0].answer, "a\x1b]52;c;eA==\x07b\x1b[2Jc\u{9b}31md");
}

#[test]
fn a_full_context_is_said() {
    let mut app = idle(&[]);
    send(&mut app, "hello");
    app.news(begun(760));
    app.news(token("x", 768, 10));
    app.news(finished(StopReason::ContextFull, 760, 1));
    let shown = screen(&mut app, 140, 45);
    assert!(shown.contains("768 tokens is full") && shown.contains("/clear"), "{shown}");
}

#[test]
fn history_and_completion_are_at_hand() {
    let mut app = idle(&[]);
    app.key(key(KeyCode::Up));
    assert_eq!(app.editor.text(), "an old message");
    app.key(control('u'));
    app.paste("/load ");
    app.key(key(KeyCode::Tab));
    assert_eq!(app.editor.text(), "/load 2026-11-22-101500");
}
