//! Perplexity over 32 windows of a text, against what Hugging Face measured.

use std::path::Path;

use tercet_host::backend::{HeadType, KvType};
use tercet_host::evaluate::{PerplexityOptions, perplexity};
use tercet_tests::cpu::{Cpu, limits, with_session};
use tercet_tests::tolerance::{PERPLEXITY, PERPLEXITY_INT8_HEAD};
use tercet_tests::{require, shared};

use super::shared_model;

const OPTIONS: PerplexityOptions = PerplexityOptions { window: 768, windows_max: 32 };

fn read(name: &str) -> String {
    let data = shared().expect("required before").join("data/lm");
    std::fs::read_to_string(data.join(Path::new(name))).expect("a text")
}

/// The first 200,000 characters of TinyStories' validation text.
fn tiny_stories() -> String {
    read("tinystories/tinystories_valid_0.8MB.txt").chars().take(200_000).collect()
}

/// The raw test text of WikiText-2 as GPTQ joins its rows: every line is a row that ends in a line
/// feed, blank ones are empty, and two line feeds stand between rows. The first 260,000 characters.
fn wiki_text() -> String {
    let text = read("wikitext2/wiki.test.raw");
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    let row = |line: &str| if line.trim().is_empty() { String::new() } else { format!("{line}\n") };
    let rows: Vec<String> = lines.map(row).collect();
    rows.join("\n\n").chars().take(260_000).collect()
}

fn check(model: &str, text: &str, expected: f64) {
    let measured = measure(model, text, Cpu::fast());
    println!("{model}: perplexity {measured:.4}, recorded {expected}");
    PERPLEXITY.check(expected, measured, expected, &format!("{model}: perplexity"));
}

fn measure(model: &str, text: &str, cpu: Cpu) -> f64 {
    let package = shared_model(model);
    let tokenizer = package.tokenizer.as_ref().expect("a tokenizer");
    let tokens = tokenizer.encode_text(text).expect("token ids");
    let vocab = package.config.vocab;
    let limits = limits(OPTIONS.window, 128, KvType::F32);
    let measured = with_session(&package, cpu, limits, |mut session| {
        perplexity(&mut session, vocab, &tokens, OPTIONS, &mut |_, _| {}).expect("a perplexity")
    });
    let measured = measured.expect("a text of 32 windows");
    assert_eq!((measured.windows, measured.predictions), (32, 32 * 767));
    measured.perplexity
}

#[test]
fn stories_are_as_likely_as_to_the_reference() {
    if require("shared") {
        check("stories-bitnet-25m", &tiny_stories(), 19.9997);
    }
}

#[test]
fn stories_are_as_likely_to_the_packed_model() {
    if require("shared") {
        check("stories-bitnet-25m-packed", &tiny_stories(), 19.9971);
    }
}

#[test]
fn articles_are_as_likely_as_to_the_reference() {
    if require("shared") {
        check("stories-bitnet-25m", &wiki_text(), 137.0552);
    }
}

#[test]
fn articles_are_as_likely_to_the_packed_model() {
    if require("shared") {
        check("stories-bitnet-25m-packed", &wiki_text(), 137.4969);
    }
}

#[test]
fn stories_are_as_likely_to_the_float_models() {
    if require("shared") {
        check("stories-llama-12m", &tiny_stories(), 12.2726);
        check("stories-opt-12m", &tiny_stories(), 11.2791);
    }
}

#[test]
fn articles_are_as_likely_to_the_float_models() {
    if require("shared") {
        check("stories-llama-12m", &wiki_text(), 137.7001);
        check("stories-opt-12m", &wiki_text(), 96.2259);
    }
}

#[test]
fn an_int8_head_costs_next_to_nothing() {
    if require("shared") {
        let (model, expected) = ("stories-llama-12m", 12.2726);
        let measured = measure(model, &tiny_stories(), Cpu::fast().with_head(HeadType::Int8));
        let what = format!("{model}: perplexity with an INT8 head");
        println!("{what}: {measured:.4}, recorded {expected}");
        PERPLEXITY_INT8_HEAD.check(expected, measured, expected, &what);
    }
}
