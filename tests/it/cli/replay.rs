//! `tercet replay`: a session gives the same bytes again; where it does not, it says where.

use core::ops::ControlFlow;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tercet::args::{Cli, DeviceArgs};
use tercet::chat::record::{Form, Numbers, Prompt, Record, Setup, Turn};
use tercet::chat::store::Store;
use tercet::engine::{OnStderr, Use, with_watched_session};
use tercet_host::content_hash::model_hash;
use tercet_host::event::{Event, StopReason};
use tercet_host::forward::Cancel;
use tercet_host::package::{Package, Source};
use tercet_host::sampler::Sampling;
use tercet_host::session::Request;
use tercet_host::text::Renderer;

use super::models::{Altered, builtin};
use super::support::{STORY, Tercet, tercet, text};

/// What one turn of a session is made from.
#[derive(Debug, Clone)]
struct Asked {
    user: String,
    sampling: Sampling,
    max_tokens: usize,
    stop: Vec<String>,
    /// Somebody stops it after so many tokens.
    stopped_after: Option<usize>,
}

fn asked(user: &str) -> Asked {
    let sampling = Sampling { temperature: 0.9, ..Sampling::GREEDY };
    let user = user.into();
    Asked { user, sampling, max_tokens: 24, stop: Vec::new(), stopped_after: None }
}

fn device(options: &[&str]) -> DeviceArgs {
    let options = [&["tercet", "--device", "cpu", "--quiet"], options].concat();
    Cli::read(options.into_iter().map(Into::into)).unwrap().chat.device
}

/// Has a conversation with the engine, as the chat does.
fn had(
    record: &mut Record,
    package: &Package,
    source: &Source,
    (context, device): (usize, &DeviceArgs),
    turns: &[Asked],
) {
    let system = Some("Be kind.");
    let purpose = (context, Use::Answer);
    with_watched_session(package, device, purpose, &OnStderr::new(true), |session, place| {
        record.set_up(Setup::new((package, source), place.device, context, device, system));
        for (asked, seed) in turns.iter().zip(7..) {
            let turn = Turn {
                setup: 0,
                user: asked.user.clone(),
                prompt: Prompt::default(),
                answer: String::new(),
                tokens: Vec::new(),
                seed,
                sampling: asked.sampling,
                max_tokens: Some(asked.max_tokens),
                stop_texts: asked.stop.clone(),
                stop_reason: StopReason::Cancelled,
                numbers: Numbers { ttft_ms: None, tokens_per_second: None },
            };
            // To have its messages.
            record.push(turn.clone(), &[]);
            let messages = record.messages(record.turns().len() - 1);
            record.pop();
            let tokenizer = package.tokenizer.as_ref().unwrap();
            let prompt = match &package.chat {
                Some(chat) => chat.encode(tokenizer, &Renderer::InProcess, &messages).unwrap(),
                None => tokenizer.encode_text(&asked.user).unwrap(),
            };
            let mut turn = turn;
            let (mut tokens, mut answer) = (Vec::new(), String::new());
            let mut sink = |event: Event| {
                match event {
                    Event::Token { token, text, .. } => {
                        tokens.push(token);
                        answer.push_str(&text);
                    }
                    Event::Finished(finished) => answer.push_str(&finished.text),
                    _ => {}
                }
                if asked.stopped_after.is_some_and(|count| tokens.len() >= count) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let request = Request {
                prompt: &prompt,
                max_tokens: asked.max_tokens,
                sampling: asked.sampling,
                seed,
                stop_tokens: &package.stop_tokens,
                stop_texts: &asked.stop,
            };
            let finished = session
                .generate(&request, package.tokenizer.as_ref(), &Cancel::default(), &mut sink)
                .unwrap();
            (turn.tokens, turn.answer, turn.stop_reason) = (tokens, answer, finished.reason);
            record.push(turn, &prompt);
        }
        Ok(())
    })
    .unwrap();
    let model = record.setups().last().unwrap().model.clone();
    record.set_content_hash(&model, &model_hash(&package.checkpoint).unwrap());
}

/// Four turns with the built-in model, each ended by something else.
fn session() -> Record {
    let source = tercet::builtin::source();
    let package = Package::open(&source).unwrap();
    let mut record = Record::new();
    let mut stopped = asked("Tell me a story about a cat.");
    stopped.stopped_after = Some(9);
    let mut never = asked("Why?");
    never.stopped_after = Some(0);
    let mut greedy = asked("Tell me a story about a dog and the sea.");
    greedy.sampling = Sampling::GREEDY;
    let device = device(&["--threads", "1"]);
    let go_on = |record: &mut Record, turns: &[Asked]| {
        had(record, &package, &source, (768, &device), turns);
    };
    go_on(&mut record, &[asked(STORY), stopped, never]);
    // A text that the last answer would have.
    let mut whole = record.clone();
    go_on(&mut whole, core::slice::from_ref(&greedy));
    greedy.stop = vec![whole.turns()[3].answer.chars().skip(20).take(9).collect(), "zzz".into()];
    go_on(&mut record, &[greedy]);
    let reasons: Vec<_> = record.turns().iter().map(|turn| turn.stop_reason.name()).collect();
    assert_eq!(reasons, ["max_tokens", "cancelled", "cancelled", "stop_text"]);
    assert!(record.turns()[2].tokens.is_empty() && record.turns()[3].prompt.tokens() > 40);
    record
}

/// `record` as a file in `folder`, after `change`.
fn write(folder: &Path, record: &Record, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut json = serde_json::from_str(&record.to_json()).unwrap();
    change(&mut json);
    let path = folder.join("session.json");
    fs::write(&path, json.to_string()).unwrap();
    path
}

fn replay(session: &Path, options: &[&str]) -> Tercet {
    tercet([&["replay", text(session)], options].concat())
}

#[test]
fn a_session_gives_the_same_bytes_again() {
    let folder = tempfile::tempdir().unwrap();
    let record = session();
    let path = write(folder.path(), &record, |_| {});
    let tokens: usize = record.turns().iter().map(|turn| turn.tokens.len()).sum();
    for options in [&["--threads", "1"][..], &["--threads", "2"], &["--simd", "portable"]] {
        let ran = replay(&path, options).succeed();
        let said = format!("tercet: 4 turns, {tokens} tokens: all as recorded\n");
        assert_eq!(ran.stderr, said, "{options:?}");
        let mut rest = ran.text();
        for turn in record.turns() {
            let line = format!("> {}\n", turn.user);
            rest = rest.strip_prefix(line.as_str()).unwrap_or_else(|| panic!("{line}{ran}"));
            rest = rest.strip_prefix(turn.answer.as_str()).unwrap_or_else(|| panic!("{ran}"));
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
        assert!(rest.is_empty(), "{ran}");
    }
    let ran = replay(&path, &["--quiet", "--json"]).succeed();
    assert!(ran.stderr.is_empty(), "{ran}");
    let report = ran.json();
    assert_eq!((&report["same"], &report["notes"]), (&json!(true), &json!([])));
    let turn = &report["turns"][0];
    assert_eq!((&turn["turn"], &turn["difference"]), (&json!(1), &json!(null)));
    assert_eq!(turn["text"], record.turns()[0].answer);
    assert_eq!(turn["tokens"], json!(record.turns()[0].tokens));
    assert_eq!(report["turns"][3]["stop_reason"], "stop_text");
}

#[test]
fn what_was_changed_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let record = session();
    let first = record.turns()[0].tokens[5];
    let other = first ^ 1;
    let token = format!("turn 1 differs at token 6 of the answer: {first} instead of {other}");
    type Change = Box<dyn Fn(&mut Value)>;
    let change = |pointer: &'static str, value: Value| -> Change {
        Box::new(move |json: &mut Value| *json.pointer_mut(pointer).unwrap() = value.clone())
    };
    let cases: [(&str, &str, Change); 9] = [
        ("token", &token, change("/turns/0/tokens/5", json!(other))),
        ("token", "turn 1 differs at token", change("/turns/0/seed", json!(8))),
        ("token", "turn 1 differs at token", change("/turns/0/sampling/temperature", json!(0.5))),
        ("token", "turn 1 ends before token 21", change("/turns/0/max_tokens", json!(20))),
        ("token", "turn 4 goes on with token", change("/turns/3/stop_texts", json!(["zzz"]))),
        ("text", "another text from byte 1 on", change("/turns/1/answer", json!("?"))),
        (
            "stop_reason",
            "turn 1 was ended by max_tokens instead of end_of_turn",
            change("/turns/0/stop_reason", json!("end_of_turn")),
        ),
        (
            "prompt",
            "turn 1 has messages that no longer become its prompt",
            change("/turns/0/user", json!("Tell me a story about a red house.")),
        ),
        (
            "prompt",
            "turn 1 has messages that no longer become its prompt",
            change("/setups/0/system", json!("Be unkind.")),
        ),
    ];
    for (kind, words, change) in cases {
        let path = write(folder.path(), &record, change);
        let ran = replay(&path, &["--json", "--quiet"]).run();
        assert_eq!(ran.code, Some(65), "{ran}");
        ran.assert_explained(&[words]);
        let report = ran.json();
        assert_eq!(report["same"], false, "{words}");
        let turns = report["turns"].as_array().unwrap();
        let first = turns.iter().find(|turn| turn["same"] == false).unwrap();
        assert_eq!(first["difference"]["kind"], kind, "{words}: {first}");
        assert_eq!(turns.len(), 4, "all turns are replayed");
    }
}

#[test]
fn another_model_is_refused_unless_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let record = session();
    let path = write(folder.path(), &record, |_| {});
    // The same content elsewhere.
    replay(&path, &[text(&builtin())]).succeed();
    // The same weights and words in a file that vouches for nothing: another content.
    let altered = Altered::new().write(folder.path());
    let model = text(&altered);
    replay(&path, &[model, "--quiet"]).fail(65, &["the model is another", "blake3:"]);
    let ran = replay(&path, &[model, "--force"]).succeed();
    assert!(ran.stderr.contains("note: the model is another"), "{ran}");
    // Another one indeed.
    let changed = Altered::new()
        .with_bytes("model.layers.3.mlp.down_proj.weight", |codes| codes[..4096].fill(0x55))
        .write(folder.path());
    let ran = replay(&path, &[text(&changed), "--force", "--json"]).run();
    assert_eq!(ran.code, Some(65), "{ran}");
    assert!(ran.stderr.contains("differs at token"), "{ran}");
    assert!(ran.json()["notes"][0].as_str().unwrap().contains("the model is another"), "{ran}");

    let path = write(folder.path(), &record, |json| {
        json["setups"][0]["form"] = json!({ "template": "00" });
    });
    replay(&path, &["--quiet"]).fail(65, &["the chat form is another", "SHA-256 00"]);
    let path = write(folder.path(), &record, |json| {
        json["setups"][0]["model"]["content_hash"] = Value::Null;
    });
    let ran = replay(&path, &[]).succeed();
    assert!(ran.stderr.contains("does not say which content"), "{ran}");
}

/// Resumed with other instructions, another context, other numbers: every turn has its own.
#[test]
fn every_turn_is_answered_by_what_answered_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = tercet::builtin::source();
    let mut package = Package::open(&source).unwrap();
    let mut record = Record::new();
    let once = [asked(STORY)];
    had(&mut record, &package, &source, (200, &device(&[])), &once);
    let other = device(&["--kv", "f32", "--head", "int8"]);
    had(&mut record, &package, &source, (300, &other), &[asked("More!")]);
    // Without a form, text is continued.
    package.chat = None;
    had(&mut record, &package, &source, (200, &device(&[])), &[asked("Once upon a")]);
    assert_eq!(record.setups().len(), 3);
    assert_eq!(record.setups()[2].form, Form::Completion);
    let path = write(folder.path(), &record, |_| {});
    replay(&path, &[]).succeed();
    let path = write(folder.path(), &record, |json| json["turns"][2]["setup"] = json!(0));
    let ran = replay(&path, &["--quiet"]).run();
    assert_eq!(ran.code, Some(65), "{ran}");
    ran.assert_explained(&["turn 3"]);
}

/// A template that tells the date becomes another prompt every day; the recorded one counts.
#[test]
fn a_dated_session_can_be_replayed_on_another_day() {
    let folder = tempfile::tempdir().unwrap();
    let model = |date: &str, name: &str| {
        let template = format!("{{{{ {date} }}}} {{{{ messages[-1].content }}}} ");
        let altered = Altered::new()
            .with_json("tokenizer_config.json", |json| json["chat_template"] = json!(template))
            .write(folder.path());
        let path = folder.path().join(name);
        fs::rename(altered, &path).unwrap();
        Source::Path(path)
    };
    let (then, today) = (model("'1999'", "then.tercet"), model("strftime_now('%Y')", "today"));
    let mut record = Record::new();
    let package = Package::open(&then).unwrap();
    had(&mut record, &package, &then, (200, &device(&[])), &[asked("Hello")]);
    let package = Package::open(&today).unwrap();
    let hash = model_hash(&package.checkpoint).unwrap();
    let path = write(folder.path(), &record, |json| {
        json["setups"][0]["model"]["content_hash"] = json!(hash);
        json["setups"][0]["form"] = json!(Form::of(&package));
    });
    let Source::Path(today) = today else { unreachable!("it was written") };
    let ran = replay(&path, &[text(&today)]).succeed();
    assert!(ran.stderr.contains("the chat template tells the date"), "{ran}");
}

/// What was said is gone, what the model read is not.
#[test]
fn dropped_turns_do_not_keep_the_others_from_being_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let mut record = session();
    record.drop_oldest(1);
    let path = write(folder.path(), &record, |_| {});
    let ran = replay(&path, &[]).succeed();
    assert!(ran.stderr.contains("turns were dropped"), "{ran}");
    assert!(ran.stderr.contains("3 turns"), "{ran}");
}

#[test]
fn another_device_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &session(), |json| {
        json["setups"][0]["device"]["kind"] = json!("cuda");
        json["setups"][0]["device"]["name"] = json!("NVIDIA H200");
        json["setups"][0]["program"] = json!("0.0.1");
    });
    let ran = replay(&path, &["--device", "cpu"]).succeed();
    assert!(ran.stderr.contains("note: NVIDIA H200 answered, this is"), "{ran}");
    assert!(ran.stderr.contains("note: tercet 0.0.1 answered"), "{ran}");
    // The kind that answered is what is asked for, as far as it is there.
    replay(&path, &["--quiet", "--device", "cuda:99"]).fail(69, &[]);
}

#[test]
fn sessions_are_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut record = session();
    record.created = "2026-11-22T03:41:09Z".into();
    store.create().save(&mut record).unwrap();
    for name in ["2026-11-22-034109", "2026"] {
        let ran = tercet(["replay", name]).env("TERCET_STATE_DIR", folder.path());
        assert!(ran.succeed().stderr.contains("all as recorded"));
    }
    let in_folder = |name: &str| tercet(["replay", name]).env("TERCET_STATE_DIR", folder.path());
    tercet(["replay", "2026"])
        .env("TERCET_STATE_DIR", folder.path().join("none"))
        .fail(66, &["cannot read", "2026"]);
    assert!(!folder.path().join("none").exists(), "looking for a session makes no folder");
    in_folder("2027").fail(66, &["there is no session of that name"]);
    in_folder("../x").fail(66, &["cannot read", "../x"]);
    in_folder("\x1b[2J").fail(2, &["is no name for a session"]);
}

#[test]
fn what_is_no_session_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let record = session();
    let json = record.to_json();
    let path = folder.path().join("x.json");
    for (bytes, words) in [
        (&b"{}"[..], "no whole session file"),
        (&json.as_bytes()[..json.len() / 2], "no whole session file"),
        (b"\xff\xfe\0", "no whole session file"),
        (br#"{"format":"tercet session","version":2}"#, "format version 2"),
    ] {
        fs::write(&path, bytes).unwrap();
        replay(&path, &[]).fail(65, &[words]);
    }
    let path = write(folder.path(), &record, |json| json["turns"] = json!([]));
    replay(&path, &[]).fail(66, &["the session has no turns"]);
    let path = write(folder.path(), &record, |json| json["setups"][0]["context"] = json!(9000));
    replay(&path, &[]).fail(65, &["the session had 9000 positions, the model 768"]);
    let path = write(folder.path(), &record, |json| {
        json["setups"][0]["model"]["place"] = json!({ "path": "/nowhere/model.tercet" });
    });
    replay(&path, &[]).fail(66, &["/nowhere/model.tercet"]);
    let path = write(folder.path(), &record, |json| {
        json["turns"][1]["prompt"]["rest"][0] = json!(4_000_000)
    });
    let ran = replay(&path, &["--quiet"]).run();
    assert_eq!(ran.code, Some(65), "{ran}");
    ran.assert_explained(&["4000000"]);
}
