//! `tercet inspect`: what a model is, and whether its bytes are in order.

use std::fs;

use super::models::{Altered, builtin, copy};
use super::support::{Ran, tercet, text};

#[test]
fn text_says_what_the_model_is() {
    let ran = tercet(["inspect"]).succeed();
    assert!(ran.stderr.is_empty(), "{ran}");
    let line = |name: &str| {
        let found = ran.text().lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no `{name}`: {ran}")).to_owned()
    };
    assert!(line("model ").contains("built in"));
    assert!(line("architecture").contains("BitNetForCausalLM"));
    assert!(line("format").contains("rows128"));
    assert!(line("shape").contains("8 layers, hidden 512, ffn 1408, 8 heads (4 "));
    assert!(line("vocabulary").contains("4096"));
    assert!(line("bits a weight").contains("1.585 by information, 2.000 in the file"));
    assert!(line("tokenizer").contains("4096"));
    assert!(line("stop tokens").contains("[2]"));
}

/// The numbers of the report, against the file and arithmetic done here.
#[test]
fn json_adds_up() {
    let json = tercet(["inspect", "--json", "--ctx", "100"]).succeed().json();
    let number = |pointer: &str| json.pointer(pointer).unwrap().as_u64().unwrap();
    let (layers, hidden, ffn, kv, vocab) = (8, 512, 1408, 256, 4096);
    let ternary = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * ffn);
    assert_eq!(number("/ternary_parameters"), ternary);
    let norms = layers * (3 * hidden + ffn) + hidden;
    assert_eq!(number("/parameters"), ternary + vocab * hidden + norms);
    assert_eq!(number("/file_bytes"), fs::metadata(builtin()).unwrap().len());
    assert_eq!(number("/memory/context"), 100);
    assert_eq!(number("/memory/kv_bytes_per_token"), 2 * 2 * layers * kv);
    assert!(number("/memory/kv_bytes") >= 100 * number("/memory/kv_bytes_per_token"));
    assert!(number("/memory/weights_bytes") > ternary / 4 + 2 * vocab * hidden);
    assert_eq!(json["chat_template"].as_str().unwrap().len(), 64);
    assert!(json.get("check").is_none(), "nobody asked: {json}");
}

#[test]
fn check_passes_what_is_whole() {
    let json = tercet(["inspect", "--check", "--json"]).succeed().json();
    assert_eq!(json["check"]["problems"], serde_json::json!([]));
    assert!(json["check"]["digests_matching"].as_u64().unwrap() > 100, "{json}");
    let ran = tercet(["inspect", "--check", text(&builtin())]).succeed();
    assert!(ran.text().contains("every weight is in order"), "{ran}");
}

/// The report stays on stdout, the failure goes to stderr.
fn assert_damaged(ran: &Ran, word: &str) {
    assert_eq!(ran.code, Some(65), "{ran}");
    ran.assert_explained(&["damaged", word]);
    assert!(ran.text().contains("problems") && ran.text().contains(word), "{ran}");
}

/// One bit, wherever it is: the digest of its tensor differs.
#[test]
fn check_finds_one_flipped_bit() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy(folder.path());
    let whole = fs::read(&model).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for (place, word) in [
        (header + 5, "model.layers.0.self_attn.q_proj.weight"),
        (whole.len() / 2, "model."),
        (header + 10_153_984 + 7, "model.norm.weight"),
        // A line end of the config becomes a space: the same JSON, another file.
        (header + 10_155_008 + 1, "tercet.file.config.json"),
    ] {
        let mut bytes = whole.clone();
        let flipped = if word.ends_with("json") { b'\n' ^ b' ' } else { 1 };
        bytes[place] ^= flipped;
        fs::write(&model, &bytes).unwrap();
        assert_damaged(&tercet(["inspect", "--check", text(&model)]).run(), word);
        assert_damaged(&tercet(["inspect", "--check", "--json", text(&model)]).run(), word);
        tercet(["inspect", text(&model)]).succeed();
    }
}

/// Numbers that are none, found by reading them: these files record no digests.
#[test]
fn check_finds_one_number_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let write = |tensor: &str, bits: u16| {
        let none = |bytes: &mut [u8]| bytes[6..8].copy_from_slice(&bits.to_le_bytes());
        Altered::new().with_bytes(tensor, none).write(folder.path())
    };
    for bits in [0x7fc0, 0x7f80, 0xff80] {
        let model = write("model.embed_tokens.weight", bits);
        let ran = tercet(["inspect", "--check", text(&model)]).run();
        assert_damaged(&ran, "model.embed_tokens.weight");
        assert!(ran.text().contains("element 3"), "{ran}");
    }
    // Norms are few and decoded early: nobody has to ask.
    for (tensor, bits, word) in [
        ("model.norm.weight", 0x7fc0, "NaN"),
        ("model.layers.4.mlp.ffn_sub_norm.weight", 0xff80, "-inf"),
    ] {
        let model = write(tensor, bits);
        tercet(["inspect", "--check", text(&model)]).fail(65, &[tensor, word]);
        tercet(["run", text(&model), "-p", "hello"]).fail(65, &[tensor, word]);
    }
    let whole = Altered::new().write(folder.path());
    let json = tercet(["inspect", "--check", "--json", text(&whole)]).succeed().json();
    assert_eq!(json["check"]["digests_matching"], 0, "the checks above were not of digests");
}

/// A model that computes nonsense says so instead of writing it: token 7 is in the prompt.
#[test]
fn a_model_that_is_not_finite_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let nan = |bytes: &mut [u8]| {
        bytes[7 * 512 * 2..][..2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    };
    let model = Altered::new().with_bytes("model.embed_tokens.weight", nan).write(folder.path());
    tercet(["run", text(&model), "--ids", "-p", "1 7 9"]).fail(65, &["NaN"]);
}
