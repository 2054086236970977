//! Tokenizers from strangers: garbage, absurd ids, long prompts.

use core::time::Duration;
use std::fs;
use std::io::Read;
use std::time::Instant;

use serde_json::{Value, json};
use tercet_host::text::{Tokenizer, TokenizerError};
use tercet_tests::{golden, require, shared};

use super::STOPWATCH;

type Named = (&'static str, Tokenizer);

fn tiny_json(name: &str) -> Vec<u8> {
    fs::read(golden().join("templates").join(name)).unwrap()
}

/// The two tokenizers in the repository: byte-level, then Metaspace with byte fallback.
pub(super) fn tiny() -> Vec<Named> {
    [("tiny_byte_level", "tiny_byte_level.json"), ("tiny_metaspace", "tiny_metaspace.json")]
        .map(|(name, file)| (name, Tokenizer::from_json(&tiny_json(file)).unwrap()))
        .into()
}

/// The three large ones; none when the shared folder is not here.
pub(super) fn large() -> Vec<Named> {
    if !require("shared") {
        return Vec::new();
    }
    let folder = shared().unwrap();
    [
        ("llama2", "data/tokenizers/llama2/tokenizer.json.zst"),
        ("neox", "data/tokenizers/gpt-neox/tokenizer.json.zst"),
        ("stories", "models/stories-bitnet-25m/tokenizer.json"),
    ]
    .map(|(name, file)| {
        let mut bytes = fs::read(folder.join(file)).unwrap();
        if file.ends_with(".zst") {
            let mut decoded = Vec::new();
            ruzstd::decoding::StreamingDecoder::new(bytes.as_slice())
                .unwrap()
                .read_to_end(&mut decoded)
                .unwrap();
            bytes = decoded;
        }
        (name, Tokenizer::from_json(&bytes).unwrap())
    })
    .into()
}

pub(super) fn all() -> Vec<Named> {
    tiny().into_iter().chain(large()).collect()
}

#[test]
fn garbage_is_an_error() {
    let good = tiny_json("tiny_byte_level.json");
    let empty: [&[u8]; 6] =
        [b"", b"{}", b"null", b"[1]", b"\xff\xfe", b"{\"model\":{\"type\":\"BPE\"}}"];
    for bytes in empty {
        assert!(Tokenizer::from_json(bytes).is_err(), "{bytes:?}");
    }
    for length in (0..good.len() - 2).step_by(7) {
        assert!(Tokenizer::from_json(&good[..length]).is_err(), "cut at {length}");
    }
    // Every single value replaced by something else: an error or a tokenizer, never a panic.
    let file: Value = serde_json::from_slice(&good).unwrap();
    let mut paths = Vec::new();
    collect(&file, String::new(), &mut paths);
    for path in paths {
        for replacement in [json!(null), json!(-1), json!(1e300), json!("x"), json!([]), json!({})]
        {
            let mut changed = file.clone();
            *changed.pointer_mut(&path).unwrap() = replacement;
            if let Ok(tokenizer) = Tokenizer::from_json(&serde_json::to_vec(&changed).unwrap()) {
                let _ = tokenizer.encode_text("Hello <s>");
            }
        }
    }
}

fn collect(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) if fields.len() < 50 => {
            for (name, field) in fields {
                collect(field, format!("{path}/{name}"), paths);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, format!("{path}/{index}"), paths);
            }
        }
        _ => {}
    }
    paths.push(path);
}

#[test]
fn absurd_ids_are_refused() {
    let good: Value = serde_json::from_slice(&tiny_json("tiny_byte_level.json")).unwrap();
    for id in [1_u64 << 24, u64::from(u32::MAX), u64::MAX] {
        for path in ["/model/vocab/He", "/added_tokens/0/id"] {
            let mut changed = good.clone();
            *changed.pointer_mut(path).unwrap() = json!(id);
            let error = Tokenizer::from_json(&serde_json::to_vec(&changed).unwrap()).unwrap_err();
            assert!(
                matches!(error, TokenizerError::Id { id: found, .. } if found == id),
                "{error}"
            );
            assert!(!error.hint().is_empty());
        }
    }
    let max = Tokenizer::from_json(&serde_json::to_vec(&good).unwrap()).unwrap().max_id();
    assert_eq!(max, 270);
}

#[test]
fn what_would_cut_or_scatter_a_prompt_is_switched_off() {
    let mut file: Value = serde_json::from_slice(&tiny_json("tiny_byte_level.json")).unwrap();
    let plain = Tokenizer::from_json(&serde_json::to_vec(&file).unwrap()).unwrap();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"});
    file["model"]["dropout"] = json!(0.9);
    let changed = Tokenizer::from_json(&serde_json::to_vec(&file).unwrap()).unwrap();
    let text = "Hello, World and all the rest";
    assert_eq!(changed.encode_text(text).unwrap(), plain.encode_text(text).unwrap());
}

#[test]
fn unknown_split_patterns_are_reported() {
    let mut file: Value = serde_json::from_slice(&tiny_json("tiny_byte_level.json")).unwrap();
    let evil = r"(a+)+$";
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": evil}, "behavior": "Isolated", "invert": false},
        file["pre_tokenizer"].clone()]});
    let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&file).unwrap()).unwrap();
    assert_eq!(tokenizer.unusual_patterns(), [evil]);
    let begin = Instant::now();
    let _ = tokenizer.encode_text(&("a".repeat(50_000) + "b"));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(tiny()[0].1.unusual_patterns().is_empty());
}

/// 10 MB of one word, of white space, and of sentences.
#[test]
fn long_prompts_take_seconds() {
    let tokenizers = large();
    let Some((name, tokenizer)) = tokenizers.iter().find(|(name, _)| *name == "stories") else {
        return;
    };
    let _alone = STOPWATCH.lock();
    const LENGTH: usize = 10 << 20;
    for unit in ["a", "ab", " ", "Once upon a time, 12 cats.\n", "\u{1f600}"] {
        let text = unit.repeat(LENGTH / unit.len());
        let (begin, begin_cpu) = (Instant::now(), thread_seconds());
        let ids = tokenizer.encode_text(&text).unwrap();
        let wall = begin.elapsed().as_secs_f64();
        // Where the system tells it, what this thread computed: the machine may be busy.
        let seconds = thread_seconds().zip(begin_cpu).map_or(wall, |(end, begin)| end - begin);
        println!("{name}: 10 MB of {unit:?}: {} tokens in {seconds:.1} s", ids.len());
        assert!(seconds < 10.0, "{unit:?} took {seconds} s");
    }
}

/// Processor time of this thread.
fn thread_seconds() -> Option<f64> {
    let line = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = line.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds).as_secs_f64())
}
