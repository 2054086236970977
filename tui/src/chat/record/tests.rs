use std::fs::File;

use serde_json::{Value, json};

use super::*;

/// A setup with nothing in it that a test of text could not hold.
pub(in crate::chat) fn setup() -> Setup {
    Setup {
        program: "0.1.0".into(),
        model: ModelId {
            name: "a _model_".into(),
            place: Place::Path("/models/a".into()),
            content_hash: Some("blake3:00".into()),
        },
        form: Form::Template("11".into()),
        system: Some("Be brief.\nBe kind.".into()),
        device: DeviceId {
            kind: DeviceKind::Cpu,
            name: "a CPU".into(),
            simd: Some("portable".into()),
            threads: Some(2),
        },
        context: 256,
        kv: Kv::F16,
        head: Head::Stored,
        deterministic: false,
    }
}

/// A turn of three tokens.
pub(in crate::chat) fn turn(user: &str, answer: &str) -> Turn {
    Turn {
        setup: 0,
        user: user.into(),
        prompt: Prompt::default(),
        answer: answer.into(),
        tokens: vec![7, 8, 9],
        seed: 7,
        sampling: Sampling {
            repetition_penalty: 1.0,
            temperature: 0.7,
            top_k: 0,
            top_p: 0.95,
            min_p: 0.0,
        },
        max_tokens: None,
        stop_texts: vec!["\nUser:".into()],
        stop_reason: StopReason::EndOfTurn,
        numbers: Numbers { ttft_ms: Some(12.0), tokens_per_second: Some(12.34) },
    }
}

/// Two turns; the second repeats the first and its answer.
fn record() -> Record {
    let mut record = Record::new();
    record.set_up(setup());
    record.push(turn("Hello\u{1b}[31m,\nyou", "Hi \0\u{ffff} 世界"), &[1, 2, 3]);
    record.push(turn("More", ""), &[1, 2, 3, 7, 8, 9, 4, 5]);
    record
}

#[test]
fn a_session_comes_back_as_it_was() {
    let mut record = record();
    let json = record.renewed();
    assert_eq!(Record::parse(json.as_bytes()).unwrap(), record);
    assert!(json.ends_with("}\n"), "one object");
    let prompt = |turn: usize| json_of(&record)["turns"][turn]["prompt"].clone();
    assert_eq!(prompt(0), json!({ "tokens": 3, "shared": 0, "rest": [1, 2, 3], "dropped": 0 }));
    assert_eq!(prompt(1), json!({ "tokens": 8, "shared": 6, "rest": [4, 5], "dropped": 0 }));
}

/// The format is a contract: what an older program of version 1 wrote is read.
#[test]
fn the_fields_have_these_names() {
    let json = json_of(&record());
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().unwrap().keys().map(String::clone).collect()
    };
    assert_eq!(keys(&json), ["format", "version", "created", "updated", "setups", "turns"]);
    assert_eq!((&json["format"], &json["version"]), (&json!("tercet session"), &json!(1)));
    let expected = json!({
        "program": "0.1.0",
        "model": {
            "name": "a _model_",
            "place": { "path": "/models/a" },
            "content_hash": "blake3:00",
        },
        "form": { "template": "11" },
        "system": "Be brief.\nBe kind.",
        "device": { "kind": "cpu", "name": "a CPU", "simd": "portable", "threads": 2 },
        "context": 256,
        "kv": "f16",
        "head": "stored",
        "deterministic": false,
    });
    assert_eq!(json["setups"], json!([expected]));
    let expected = json!({
        "setup": 0,
        "user": "More",
        "prompt": { "tokens": 8, "shared": 6, "rest": [4, 5], "dropped": 0 },
        "answer": "",
        "tokens": [7, 8, 9],
        "seed": 7,
        "sampling": json["turns"][0]["sampling"],
        "max_tokens": null,
        "stop_texts": ["\nUser:"],
        "stop_reason": "end_of_turn",
        "numbers": { "ttft_ms": 12.0, "tokens_per_second": 12.34 },
    });
    assert_eq!(json["turns"][1], expected);
    assert_eq!(keys(&json["turns"][1]), keys(&expected));
    assert_eq!(json_value(&Place::BuiltIn), "built_in");
    assert_eq!(json_value(&Form::Completion), "completion");
    let form = Form::BuiltIn { name: "x".into(), template: "11".into() };
    assert_eq!(json_value(&form), json!({ "built_in": { "name": "x", "template": "11" } }));
}

fn json_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn json_of(record: &Record) -> Value {
    serde_json::from_str(&record.to_json()).unwrap()
}

/// Every number of the sampling comes back to the bit: a replay hangs on it.
#[test]
fn sampling_comes_back_to_the_bit() {
    let mut bits = 0x3f00_0001_u32;
    for _ in 0..20_000 {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // In 2^-24 to 1, of every mantissa.
        let number = f32::from_bits(0x3380_0000 + (bits % (0x3f80_0000 - 0x3380_0000)));
        let mut turn = turn("", "");
        turn.sampling.temperature = number * 3.0;
        turn.sampling.top_p = number;
        turn.sampling.min_p = number / 2.0;
        let json = serde_json::to_string(&turn).unwrap();
        let back: Turn = serde_json::from_str(&json).unwrap();
        let bits = |s: Sampling| [s.temperature, s.top_p, s.min_p].map(f32::to_bits);
        assert_eq!(bits(back.sampling), bits(turn.sampling), "{json}");
    }
    let mut turn = turn("", "");
    turn.seed = u64::MAX;
    let json = serde_json::to_string(&turn).unwrap();
    assert_eq!(serde_json::from_str::<Turn>(&json).unwrap().seed, u64::MAX);
}

/// `change` makes the file one that is refused, with words that say why.
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut json = json_of(&record());
    change(&mut json);
    match Record::parse(json.to_string().as_bytes()) {
        Err(ReadError::Damaged(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nonsense_is_refused_with_words() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 16] = [
        ("format is `poem`", |json| json["format"] = json!("poem")),
        ("missing field `format`", |json| drop(json.as_object_mut().unwrap().remove("format"))),
        ("unknown field `mood`", |json| json["mood"] = json!(1)),
        ("unknown field `mood`", |json| json["turns"][0]["mood"] = json!(1)),
        ("unknown field `mood`", |json| json["turns"][0]["sampling"]["mood"] = json!(1)),
        ("missing field `seed`", |json| {
            drop(json["turns"][0].as_object_mut().unwrap().remove("seed"))
        }),
        ("invalid type", |json| json["turns"][0]["tokens"] = json!([1, "two"])),
        ("invalid value", |json| json["turns"][0]["tokens"] = json!([-1])),
        ("invalid type", |json| json["turns"] = json!({})),
        ("no reason to stop", |json| json["turns"][0]["stop_reason"] = json!("boredom")),
        ("unknown variant `f8`", |json| json["setups"][0]["kv"] = json!("f8")),
        ("context of 0", |json| json["setups"][0]["context"] = json!(0)),
        ("turn 1 names setup 4 of 1", |json| json["turns"][0]["setup"] = json!(4)),
        ("out of its range", |json| json["turns"][1]["sampling"]["top_p"] = json!(0.0)),
        ("turn 2 has a prompt of 9", |json| json["turns"][1]["prompt"]["tokens"] = json!(9)),
        ("7 shared of 6", |json| {
            json["turns"][1]["prompt"] =
                json!({ "tokens": 9, "shared": 7, "rest": [1, 2], "dropped": 0 });
        }),
    ];
    for (words, change) in cases {
        let what = refused(change);
        assert!(what.contains(words), "`{words}` is not in: {what}");
    }
}

#[test]
fn any_bytes_are_read_or_refused() {
    let json = record().to_json();
    for length in 0..json.len() - 1 {
        assert!(
            matches!(Record::parse(&json.as_bytes()[..length]), Err(ReadError::Damaged(_))),
            "the first {length} bytes"
        );
    }
    // Every byte in turn made another: an error or another record, and no panic.
    let mut bytes = json.clone().into_bytes();
    for place in 0..bytes.len() {
        for other in [b'0', b'"', b'}', 0xff] {
            let byte = core::mem::replace(&mut bytes[place], other);
            if let Ok(record) = Record::parse(&bytes) {
                assert_eq!(record.prompts().count(), record.turns().len());
            }
            bytes[place] = byte;
        }
    }
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    assert!(matches!(Record::parse(&deep), Err(ReadError::Damaged(_))));
}

#[test]
fn other_versions_and_endless_files_are_refused() {
    let mut json = json_of(&record());
    json["version"] = json!(2);
    json["news"] = json!(true);
    assert!(matches!(Record::parse(json.to_string().as_bytes()), Err(ReadError::Version(2))));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.json");
    let file = File::create(&path).unwrap();
    file.set_len(RECORD_BYTES_MAX + 1).unwrap();
    let failure = Record::read(&path).unwrap_err();
    assert!(failure.message().0.contains("longer than"), "{failure:?}");
    let failure = Record::read(&folder.path().join("absent")).unwrap_err();
    assert!(failure.message().0.contains("cannot read"), "{failure:?}");
    let failure = Record::read(folder.path()).unwrap_err();
    assert!(failure.message().0.contains("not a regular file"), "{failure:?}");
}

/// Whatever was undone, asked again or changed: a prompt comes back whole.
#[test]
fn prompts_come_back_whole() {
    let mut record = Record::new();
    record.set_up(setup());
    let first = [1, 2, 3];
    let longer = [1, 2, 3, 7, 8, 9, 4];
    record.push(turn("a", "x"), &first);
    record.push(turn("b", "y"), &longer);
    // Asked again: the turn is replaced.
    assert_eq!(record.pop().unwrap().turn().user, "b");
    record.push(turn("c", "z"), &[1, 2, 3, 7, 5]);
    // Taken out and put back: nothing has changed.
    let before = record.clone();
    let popped = record.pop().unwrap();
    assert_eq!((popped.turn(), record.turns().len()), (&before.turns()[1], 1));
    record.put_back(popped);
    assert_eq!(record, before);
    // Another conversation altogether.
    record.push(turn("d", "w"), &[6]);
    record.push(turn("e", "v"), &[6, 7, 8, 9]);
    let expected = [vec![1, 2, 3], vec![1, 2, 3, 7, 5], vec![6], vec![6, 7, 8, 9]];
    assert_eq!(record.prompts().collect::<Vec<_>>(), expected);
    let shared: Vec<_> = record.turns().iter().map(|turn| turn.prompt.shared).collect();
    assert_eq!(shared, [0, 4, 0, 4]);
    let back = Record::parse(record.to_json().as_bytes()).unwrap();
    assert_eq!(back.prompts().collect::<Vec<_>>(), expected);

    // What is dropped is gone from the messages, not from the prompts.
    let dropped = |record: &Record| -> Vec<_> {
        record.turns().iter().map(|turn| turn.prompt.dropped()).collect()
    };
    record.drop_oldest(1);
    assert_eq!(record.prompts().collect::<Vec<_>>(), expected[1..]);
    record.push(turn("f", "u"), &[6, 7, 8, 9, 1]);
    assert_eq!(dropped(&record), [1, 1, 1, 0]);
    record.drop_oldest(2);
    assert_eq!(dropped(&record), [3, 2]);
    let popped = record.pop().unwrap();
    record.put_back(popped);
    assert_eq!(dropped(&record), [3, 2]);
    assert_eq!(record.prompts().last().unwrap(), [6, 7, 8, 9, 1]);
    record.drop_oldest(2);
    assert_eq!(record.prompts().count(), 0);
}

#[test]
fn messages_lead_to_a_turn() {
    let record = record();
    let said = |number| -> Vec<(String, String)> {
        record.messages(number).into_iter().map(|m| (m.role, m.content)).collect()
    };
    let pair = |role: &str, text: &str| (role.to_owned(), text.to_owned());
    let system = pair("system", "Be brief.\nBe kind.");
    let first = pair("user", "Hello\u{1b}[31m,\nyou");
    assert_eq!(said(0), [system.clone(), first.clone()]);
    let answer = pair("assistant", "Hi \0\u{ffff} 世界");
    assert_eq!(said(1), [system, first, answer, pair("user", "More")]);
    assert_eq!(said(2), []);
}

#[test]
fn the_title_is_the_first_line_made_harmless() {
    assert_eq!(record().title(), "Hello,");
    assert_eq!(Record::new().title(), "");
    let mut record = Record::new();
    record.set_up(setup());
    record.push(turn("\n long \nlonger", ""), &[1]);
    assert_eq!(record.title(), "long");
    record.pop();
    record.push(turn(&"ü".repeat(61), ""), &[1]);
    assert_eq!(record.title(), format!("{}…", "ü".repeat(60)));
}

/// One setup for all turns of a run; a model's hash comes late; what changes back is the same.
#[test]
fn setups_are_kept_once() {
    let mut bare = setup();
    bare.model.content_hash = None;
    let mut record = Record::new();
    record.set_up(bare.clone());
    record.push(turn("a", ""), &[1]);
    record.set_content_hash(&bare.model, "blake3:00");
    // Resumed: the model is the same, which is known later.
    record.set_up(bare.clone());
    record.push(turn("b", ""), &[2]);
    assert_eq!(record.setups().len(), 2);
    record.set_content_hash(&bare.model, "blake3:00");
    record.renewed();
    assert_eq!(record.setups(), [setup()]);

    let other = Setup { system: None, ..setup() };
    record.set_up(other.clone());
    record.set_up(setup());
    record.set_up(other.clone());
    assert_eq!((record.setups().len(), record.system()), (2, None));
    record.push(turn("c", ""), &[3]);
    record.set_up(setup());
    record.push(turn("d", ""), &[4]);
    record.set_up(other.clone());
    record.renewed();
    assert_eq!(record.setups(), [setup(), other]);
    let used = |record: &Record| record.turns().iter().map(|turn| turn.setup).collect::<Vec<_>>();
    assert_eq!(used(&record), [0, 0, 1, 0]);

    // A turn that is put back is still answered by what answered it.
    let popped = record.pop().unwrap();
    record.set_up(Setup { context: 99, ..setup() });
    record.renewed();
    record.put_back(popped);
    assert_eq!(record.setups()[record.turns()[3].setup], setup());
}

#[test]
fn prompts_stay_when_the_oldest_turn_goes() {
    let mut record = record();
    record.push(turn("Once more", "x"), &[4, 5, 7, 8, 9, 6]);
    let prompts: Vec<_> = record.prompts().collect();
    record.drop_oldest(1);
    assert_eq!(record.prompts().collect::<Vec<_>>(), prompts[1..]);
    assert_eq!(record.turns()[0].user, "More");
    let bytes = record.to_json();
    assert_eq!(Record::parse(bytes.as_bytes()).unwrap(), record);
    record.drop_oldest(2);
    assert_eq!((record.turns().len(), record.prompts().count()), (0, 0));
}
