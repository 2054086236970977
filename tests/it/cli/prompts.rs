//! Where a prompt comes from: `-p`, standard input, both, neither.

use core::time::Duration;
use std::time::Instant;

use super::models::Altered;
use super::support::{Ran, STORY, Tercet, tercet, text};

const GREEDY: [&str; 6] = ["run", "--greedy", "--json", "-n", "8", "--threads=1"];

fn run(args: &[&str]) -> Tercet {
    tercet([&GREEDY, args].concat())
}

/// Token ids of the answer, and how many the prompt had: equal for equal prompts.
fn outcome(ran: &Ran) -> (serde_json::Value, serde_json::Value) {
    let json = ran.json();
    (json["tokens"].clone(), json["n_prompt"].clone())
}

#[test]
fn standard_input_is_the_message_or_follows_it() {
    let whole = outcome(&run(&["-p", "Tell me a story.\nAbout a dog."]).succeed());
    let piped = run(&[]).stdin("Tell me a story.\nAbout a dog.\n").succeed();
    assert_eq!(outcome(&piped), whole);
    let both = run(&["-p", "Tell me a story."]).stdin("About a dog.\r\n").succeed();
    assert_eq!(outcome(&both), whole);
    let nothing = run(&["-p", "Tell me a story.\nAbout a dog."]).stdin("").succeed();
    assert_eq!(outcome(&nothing), whole);
}

/// Without a command, too: `echo hello | tercet`.
#[test]
fn the_program_alone_answers_standard_input() {
    let ran = tercet(["--greedy", "-n", "16"]).stdin("Tell me a story.\n").succeed();
    let same = tercet(["run", "--greedy", "-n", "16", "-p", "Tell me a story."]).succeed();
    assert_eq!(ran.stdout, same.stdout);
    assert!(ran.stderr.is_empty(), "{ran}");
}

#[test]
fn no_prompt_is_an_error_and_not_a_wait() {
    let start = Instant::now();
    for args in [&["run"][..], &[], &["run", "--ids"], &["run", "--raw"], &["run", "-p", " "]] {
        tercet(args).fail(66, &[]);
        tercet(args).stdin("").fail(66, &[]);
        tercet(args).stdin(" \n\n").fail(66, &[]);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    for bytes in [&b"\xff\xfe"[..], b"caf\xe9", b"cut \xf0\x9f\x8e"] {
        run(&[]).stdin(bytes).fail(65, &["UTF-8"]);
        tercet([""; 0]).stdin(bytes).fail(65, &["UTF-8"]);
    }
}

#[test]
fn the_chat_form_is_known_chosen_or_absent_and_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let without = |config: &mut serde_json::Value| {
        config.as_object_mut().unwrap().remove("chat_template");
    };
    let renamed = |tokenizer: &mut serde_json::Value| {
        let json = tokenizer.to_string().replace("\"<|end|>\"", "\"</s>\"");
        *tokenizer = serde_json::from_str(&json).unwrap();
    };
    let altered = Altered::new()
        .with_json("tokenizer_config.json", without)
        .with_json("tokenizer.json", renamed);
    let model = altered.write(folder.path());
    let ask = |args: &[&str]| run(&[&[text(&model), "-p", "Hello"], args].concat());

    let plain = ask(&[]).succeed();
    let notice = "tercet: no chat template: messages are continued as text\n";
    assert_eq!(plain.stderr, notice);
    assert!(ask(&["--quiet"]).succeed().stderr.is_empty());
    let raw = ask(&["--raw"]).succeed();
    assert_eq!(outcome(&plain), outcome(&raw));
    let none = ask(&["--chat-form", "none"]).succeed();
    assert_eq!((outcome(&none), none.stderr.as_str()), (outcome(&raw), ""), "it was asked for");

    let vicuna = ask(&["--chat-form", "vicuna"]).succeed();
    assert!(vicuna.stderr.is_empty(), "{vicuna}");
    let prompt = |ran: &Ran| ran.json()["n_prompt"].as_u64().unwrap();
    assert!(prompt(&vicuna) > prompt(&raw) + 20, "{vicuna}");
    let instructed = ask(&["--chat-form", "vicuna", "--system", "Be brief."]).succeed();
    assert!(prompt(&instructed) < prompt(&vicuna), "instead of Vicuna's own: {instructed}");

    ask(&["--chat-form", "bitnet"]).fail(65, &["BitNet", "<|begin_of_text|>"]);
    assert_eq!(ask(&["--chat-form", "bitnet", "--raw"]).run().code, Some(2));
}

/// The limit is on what is read, so an endless pipe ends.
#[test]
fn a_prompt_has_a_longest_length() {
    run(&["--max-prompt-bytes", "6"]).stdin("Hello!").succeed();
    run(&["--max-prompt-bytes", "5"]).stdin("Hello!").fail(65, &["5 bytes"]);
    run(&["--max-prompt-bytes", "1000000"]).stdin(vec![b'a'; 4 << 20]).fail(65, &["1000000"]);
}

/// Never cut in silence: both counts are in the message, and nothing is answered.
#[test]
fn a_prompt_longer_than_the_context_is_refused_with_both_counts() {
    let ids = |count: usize| "7 ".repeat(count);
    let given = |count| run(&["--ids", "--ctx", "64"]).stdin(ids(count));
    given(63).succeed();
    given(64).fail(65, &["64 tokens", "holds 64"]);
    given(1000).fail(65, &["1000 tokens", "holds 64"]);
    // The text of a megabyte is counted, too, not cut.
    let start = Instant::now();
    let text = "once upon a time there was a dog ".repeat(30_000);
    run(&[]).stdin(text).fail(65, &["tokens", "holds 768"]);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// A full context ends the answer and says so.
#[test]
fn an_answer_ends_where_the_context_does() {
    let json = tercet(["run", "--greedy", "--json", "--ctx", "64", "-p", STORY]).succeed().json();
    assert_eq!(json["stop_reason"], "context_full", "{json}");
    let [prompt, answer] = ["n_prompt", "n_gen"].map(|key| json[key].as_u64().unwrap());
    assert_eq!(prompt + answer, 64 + 1, "the last token needs no place: {json}");
}

#[test]
fn ids_that_are_none_are_refused() {
    run(&["--ids", "-p", "1 two 3"]).fail(65, &["`two`"]);
    run(&["--ids", "-p", "1 -2"]).fail(65, &["`-2`"]);
    run(&["--ids", "-p", "1 4096"]).fail(65, &["4096", "vocabulary"]);
    run(&["--ids", "-p", "99999999999"]).fail(65, &["99999999999"]);
}
