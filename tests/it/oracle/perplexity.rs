//! Perplexity over 32 windows of a text, against what Hugging Face measured.

use std::path::Path;

use tercet_host::backend::{Backend, HeadType, KvType};
use tercet_host::evaluate::{PerplexityOptions, perplexity};
use tercet_tests::cpu::{Cpu, limits};
use tercet_tests::on::with_session;
use tercet_tests::tolerance::{PERPLEXITY, PERPLEXITY_INT8_HEAD};
use tercet_tests::{require, shared};

use super::shared_model;

const OPTIONS: PerplexityOptions = PerplexityOptions { window: 768, windows_max: 32 };

fn read(name: &str) -> String {
    let data = shared().expect("required before").join("data/lm");
    std::fs::read_to_string(data.join(Path::new(name))).expect("a text")
}

/// The first 200,000 characters of TinyStories' validation text.
pub(crate) fn tiny_stories() -> String {
    read("tinystories/tinystories_valid_0.8MB.txt").chars().take(200_000).collect()
}

/// The raw test text of WikiText-2 as GPTQ joins its rows: every line is a row that ends in a line
/// feed, blank ones are empty, and two line feeds stand between rows. The first 260,000 characters.
pub(crate) fn wiki_text() -> String {
    let text = read("wikitext2/wiki.test.raw");
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    let row = |line: &str| if line.trim().is_empty() { String::new() } else { format!("{line}\n") };
    let rows: Vec<String> = lines.map(row).collect();
    rows.join("\n\n").chars().take(260_000).collect()
}

/// Models with what Hugging Face measured: on stories, on articles.
pub(crate) const RECORDED: [(&str, [f64; 2]); 4] = [
    ("stories-bitnet-25m", [19.9997, 137.0552]),
    ("stories-bitnet-25m-packed", [19.9971, 137.4969]),
    ("stories-llama-12m", [12.2726, 137.7001]),
    ("stories-opt-12m", [11.2791, 96.2259]),
];

fn check(model: &str, text: &str, expected: f64) {
    let measured = measure(&Cpu::fast().backend(), model, text, KvType::F32);
    println!("{model}: perplexity {measured:.4}, recorded {expected}");
    PERPLEXITY.check(expected, measured, expected, &format!("{model}: perplexity"));
}

pub(crate) fn measure(backend: &impl Backend, model: &str, text: &str, kv: KvType) -> f64 {
    let package = shared_model(model);
    let tokenizer = package.tokenizer.as_ref().expect("a tokenizer");
    let tokens = tokenizer.encode_text(text).expect("token ids");
    let vocab = package.config.vocab;
    let limits = limits(OPTIONS.window, 128, kv);
    let measured = with_session(backend, &package, limits, |mut session| {
        perplexity(&mut session, vocab, &tokens, OPTIONS, &mut |_, _| {}).expect("a perplexity")
    });
    let measured = measured.expect("a text of 32 windows");
    assert_eq!((measured.windows, measured.predictions), (32, 32 * 767));
    measured.perplexity
}

/// Checks model `number` of the table on text `text`.
fn is_recorded(number: usize, text: usize) {
    if require("shared") {
        let (model, expected) = RECORDED[number];
        let read = [tiny_stories, wiki_text][text];
        check(model, &read(), expected[text]);
    }
}

#[test]
fn stories_are_as_likely_as_to_the_reference() {
    is_recorded(0, 0);
}

#[test]
fn stories_are_as_likely_to_the_packed_model() {
    is_recorded(1, 0);
}

#[test]
fn articles_are_as_likely_as_to_the_reference() {
    is_recorded(0, 1);
}

#[test]
fn articles_are_as_likely_to_the_packed_model() {
    is_recorded(1, 1);
}

#[test]
fn stories_are_as_likely_to_the_float_models() {
    is_recorded(2, 0);
    is_recorded(3, 0);
}

#[test]
fn articles_are_as_likely_to_the_float_models() {
    is_recorded(2, 1);
    is_recorded(3, 1);
}

#[test]
fn an_int8_head_costs_next_to_nothing() {
    if require("shared") {
        let (model, expected) = ("stories-llama-12m", 12.2726);
        let cpu = Cpu::fast().with_head(HeadType::Int8).backend();
        let measured = measure(&cpu, model, &tiny_stories(), KvType::F32);
        let what = format!("{model}: perplexity with an INT8 head");
        println!("{what}: {measured:.4}, recorded {expected}");
        PERPLEXITY_INT8_HEAD.check(expected, measured, expected, &what);
    }
}
