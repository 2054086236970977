//! Every exit code, each with a sentence, a hint, and nothing on stdout.

use std::fs;

use serde_json::json;

use super::models::{Altered, builtin, copy, hollow};
use super::support::{tercet, text};

/// The parser's own failures: it says what is wrong with the line, and where help is.
#[test]
fn a_wrong_command_line_is_2() {
    let wrong: [&[&str]; 17] = [
        &["--no-such-flag"],
        &["run", "--no-such-flag"],
        &["run", "-p", "x", "--temp", "hot"],
        &["run", "-p", "x", "--temp", "-1"],
        &["run", "-p", "x", "--temp", "nan"],
        &["run", "-p", "x", "--top-p", "1.5"],
        &["run", "-p", "x", "--threads", "0"],
        &["run", "-p", "x", "--ctx", "0"],
        &["run", "-p", "x", "--device", "tpu"],
        &["run", "-p", "x", "--greedy", "--temp", "1"],
        &["convert", "a", "b", "--to", "gguf2"],
        &["convert", "a", "b", "--to", "tercet", "--layout", "i2_s"],
        &["synth", "bitnet-3b", "a", "--to", "tercet", "--layout", "base4"],
        &["--bench", "--layout", "base3"],
        &["--bench", "a", "--layout", "base3"],
        &["--bench", "a", "--seed", "2"],
        &["completions", "tcsh"],
    ];
    for args in wrong {
        let ran = tercet(args).run();
        assert_eq!(ran.code, Some(2), "{args:?}: {ran}");
        assert!(ran.stdout.is_empty(), "{args:?}: {ran}");
        assert!(ran.stderr.starts_with("error: ") && !ran.stderr.contains('\x1b'), "{ran}");
    }
}

/// What only the model or the CPU can refuse is explained like every other failure.
#[test]
fn a_command_line_that_cannot_be_meant_is_2() {
    tercet(["run", "-p", "x", "--ctx", "769"]).fail(2, &["769", "768 positions"]);
    tercet(["inspect", "--ctx", "100000"]).fail(2, &["100000", "768"]);
    tercet(["run", "-p", "x", "--simd", "mmx"]).fail(2, &["mmx"]);
    for kind in ["hf", "native"] {
        let synth = ["synth", "bitnet-3b", "/no/x", "--to", kind, "--layout", "base3"];
        tercet(synth).fail(2, &["--layout", "folder"]);
    }
    tercet(["man", "no-such-command"]).fail(2, &["no-such-command"]);
}

#[test]
fn no_such_model_is_66() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    let absent = text(&absent);
    tercet(["run", absent, "-p", "x"]).fail(66, &["absent"]);
    tercet(["inspect", absent]).fail(66, &["absent"]);
    tercet(["eval", "ppl", "--text", absent]).fail(66, &["absent"]);
    tercet(["eval", "logits", "--tokens", absent, "--out", "x"]).fail(66, &["absent"]);
    tercet(["convert", absent, "x", "--to", "tercet"]).fail(66, &["absent"]);
    let empty = text(folder.path());
    tercet(["run", empty, "-p", "x"]).fail(66, &["no weights"]);
}

/// A name may hold anything; what is printed of it holds no control character.
#[test]
fn a_hostile_name_is_printed_harmless() {
    let name = "/no/\x1b]0;title\x07\u{9b}2J\u{202e}such\nmodel";
    let ran = tercet(["run", name, "-p", "x"]).fail(66, &["such", "model"]);
    assert!(!ran.stderr.contains('\u{202e}'), "{ran:?}");
}

#[test]
fn a_damaged_model_is_65() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy(folder.path());
    let whole = fs::read(&model).unwrap();
    let cases: [(&[u8], &str); 6] = [
        (&whole[..whole.len() / 2], "cut short"),
        (&whole[..1000], "header"),
        (&whole[..4], "4 bytes"),
        (b"", "0 bytes"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{", "header"),
    ];
    for (bytes, word) in cases {
        fs::write(&model, bytes).unwrap();
        tercet(["run", text(&model), "-p", "x"]).fail(65, &[word]);
        tercet(["inspect", text(&model)]).fail(65, &[word]);
    }
}

#[test]
fn a_tokenizer_that_is_none_is_65() {
    let folder = tempfile::tempdir().unwrap();
    let model = text(&hollow(folder.path(), |_| {})).to_owned();
    for garbage in ["", "no json", "{}", r#"{"model":{"type":"BPE","vocab":[],"merges":7}}"#] {
        fs::write(folder.path().join("tokenizer.json"), garbage).unwrap();
        tercet(["run", &model, "-p", "x"]).fail(65, &["tokenizer.json"]);
    }
    let altered = Altered::new().with_json("config.json", |config| {
        config["vocab_size"] = json!(4000);
    });
    let model = altered.write(folder.path());
    tercet(["run", text(&model), "-p", "x"]).fail(65, &["4095", "4000"]);
}

/// A weight that is missing, or has another shape than the config says.
#[test]
fn a_model_without_its_weights_is_65() {
    let folder = tempfile::tempdir().unwrap();
    let model = hollow(folder.path(), |_| {});
    tercet(["run", text(&model), "--ids", "-p", "1"]).fail(65, &["model."]);
    let altered = Altered::new().with_json("config.json", |config| {
        config["intermediate_size"] = json!(1536);
    });
    let model = altered.write(folder.path());
    tercet(["run", text(&model), "-p", "x"]).fail(65, &["1536"]);
}

#[test]
fn a_configuration_that_cannot_be_is_78() {
    let refused = |key: &str, value: serde_json::Value, words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let model = hollow(folder.path(), |config| config[key] = value);
        tercet(["run", text(&model), "-p", "x"]).fail(78, words);
    };
    refused("architectures", json!(["GPT5ForCausalLM"]), &["GPT5ForCausalLM"]);
    refused("architectures", json!([]), &["architectures"]);
    refused("architectures", json!(["\x1b[31mred"]), &["red"]);
    for absurd in [json!(0), json!(-1), json!(4_294_967_296_u64), json!("512"), json!(5.5)] {
        for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"] {
            refused(key, absurd.clone(), &[key]);
        }
    }
    refused("num_key_value_heads", json!(3), &["8", "3"]);
    refused("hidden_act", json!("gelu"), &["gelu"]);
    refused("rope_scaling", json!({"type": "yarn"}), &["yarn"]);
}

#[test]
fn a_device_that_is_not_there_is_69() {
    // A device number that no machine has, so that the test says the same where there is a GPU.
    tercet(["run", "-p", "x", "--device", "cuda:4000"]).fail(69, &["there is no"]);
    tercet(["run", "-p", "x", "--device", "auto", "-n", "1"]).succeed();
    tercet(["run", "-p", "x", "--device", "cpu", "-n", "1"]).succeed();
}

/// `/proc` refuses new files to everybody, an administrator included.
#[test]
fn a_result_that_cannot_be_written_is_73() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.txt");
    fs::write(&tokens, "1 2 3").unwrap();
    let missing = folder.path().join("missing/out");
    let onto = folder.path().join("folder");
    fs::create_dir(&onto).unwrap();
    fs::write(onto.join("kept"), "kept").unwrap();
    let source = builtin();
    for out in [text(&missing), "/proc/out", text(&onto)] {
        tercet(["eval", "logits", "--tokens", text(&tokens), "--out", out]).fail(73, &[out]);
        tercet(["convert", text(&source), out, "--to", "tercet"]).fail(73, &[out]);
    }
    assert_eq!(fs::read(onto.join("kept")).unwrap(), b"kept");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
}
