//! The same words on the same seed, whatever computes them; and every form of an answer.

use tercet_host::backend::cpu::Simd;

use super::models::Altered;
use super::support::{Ran, STORY, tercet, text};

/// What a script sees: the answer, nothing else.
fn assert_clean(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.is_empty(), "{ran}");
    assert!(ran.text().trim().len() > 20 && ran.text().ends_with('\n'), "{ran}");
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!ran.text().contains(control), "{:?}", ran.text());
}

fn story(args: &[&str]) -> Ran {
    tercet([&["run", "-p", STORY, "-n", "48"], args].concat()).run()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let whole = || tercet(["run", "-p", STORY, "--seed", "1"]).run();
    let first = whole();
    assert_clean(&first);
    assert_eq!(first.stdout, whole().stdout);

    let seeds = ["1", "2", "3"].map(|seed| story(&["--seed", seed]));
    seeds.iter().for_each(assert_clean);
    assert!(first.text().starts_with(seeds[0].text().trim_end()), "-n only ends it sooner");
    assert_ne!(seeds[0].stdout, seeds[1].stdout);
    assert_ne!(seeds[1].stdout, seeds[2].stdout);
}

/// Sums are exact, or in an order that no thread and no instruction set changes.
#[test]
fn threads_and_instructions_change_no_byte() {
    let levels: Vec<_> = Simd::available().collect();
    assert!(levels.iter().any(|level| level.name() == "portable"), "{levels:?}");
    for choice in [&["--greedy"][..], &["--seed", "5"]] {
        let expected = story(&[choice, &["--threads", "1"]].concat());
        assert_clean(&expected);
        let two = story(&[choice, &["--threads", "2"]].concat());
        assert_eq!(two.stdout, expected.stdout, "{choice:?}: 2 threads");
        for level in &levels {
            let ran = story(&[choice, &["--simd", level.name()]].concat());
            assert_eq!(ran.stdout, expected.stdout, "{choice:?}: {}", level.name());
        }
    }
    let temperature_0 = story(&["--temp", "0", "--seed", "9"]);
    assert_eq!(temperature_0.stdout, story(&["--greedy"]).stdout);
}

#[test]
fn json_says_everything_once() {
    let json = story(&["--seed", "1", "--json"]).json();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "model",
        "text",
        "tokens",
        "stop_reason",
        "seed",
        "n_prompt",
        "n_reused",
        "n_gen",
        "prefill_ms",
        "prefill_ts",
        "ttft_ms",
        "decode_ms",
        "decode_ts",
        "itl_ms",
    ];
    assert_eq!(keys, expected);
    assert_eq!(json["text"], story(&["--seed", "1"]).text().trim_end_matches('\n'));
    assert_eq!(json["tokens"].as_array().unwrap().len(), 48);
    assert_eq!((&json["n_gen"], &json["seed"]), (&48.into(), &1.into()));
    assert_eq!(json["stop_reason"], "max_tokens");
    assert!(json["model"].as_str().unwrap().contains("built in"));
    assert!(json["n_prompt"].as_u64().unwrap() > 5);
    let number = |name: &str| json[name].as_f64().unwrap();
    for time in ["prefill_ms", "prefill_ts", "ttft_ms", "decode_ms", "decode_ts"] {
        assert!(number(time) > 0.0, "{json}");
    }
    // The first token is chosen from the prompt's logits; 47 gaps follow.
    let between = &json["itl_ms"];
    let [mean, p50, p90, p99] =
        ["mean", "p50", "p90", "p99"].map(|name| between[name].as_f64().unwrap());
    assert!(p50 <= p90 && p90 <= p99 && mean > 0.0, "{json}");
    assert!((number("decode_ts") * mean / 1e3 - 1.0).abs() < 1e-9, "{json}");
    assert!(number("ttft_ms") >= number("prefill_ms"), "{json}");
    let both = number("prefill_ms") + number("decode_ms");
    assert!(number("ttft_ms") + 47.0 * mean <= both, "{json}");
}

/// The seed that was drawn is in the report, and gives the same answer again.
#[test]
fn a_drawn_seed_can_be_given_again() {
    let drawn = story(&["--json"]).json();
    let seed = drawn["seed"].as_u64().unwrap().to_string();
    assert_eq!(story(&["--json", "--seed", &seed]).json()["tokens"], drawn["tokens"]);
}

#[test]
fn n_bounds_the_answer() {
    let count = |n: &str| tercet(["run", "-p", STORY, "--greedy", "--json", "-n", n]).succeed();
    let none = count("0").json();
    assert_eq!((&none["n_gen"], &none["text"]), (&0.into(), &"".into()));
    assert_eq!(none["stop_reason"], "max_tokens");
    for number in ["decode_ts", "ttft_ms", "itl_ms"] {
        assert!(none[number].is_null(), "no step, no {number}: {none}");
    }
    let one = count("1").json();
    assert_eq!((&one["n_gen"], one["tokens"].as_array().unwrap().len()), (&1.into(), 1));
    let plain = tercet(["run", "-p", STORY, "--greedy", "-n", "0"]).succeed();
    assert!(plain.stdout.is_empty(), "{plain}");
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let whole = story(&["--greedy"]);
    let whole = whole.text().trim_end();
    // A text that the answer holds across the border of two words, so of two tokens.
    let stop: String = whole.chars().skip(20).take(9).collect();
    let expected = &whole[..whole.find(&stop).unwrap()];
    let stopped = story(&["--greedy", "--json", "--stop", &stop]).json();
    assert_eq!(stopped["text"], expected);
    assert_eq!(stopped["stop_reason"], "stop_text");
    let among = story(&["--greedy", "--stop", "no such text", "--stop", &stop]);
    assert_eq!(among.text().trim_end(), expected.trim_end());
}

/// Token ids in, token ids out: what another program needs to compare, with no text between.
#[test]
fn ids_go_in_and_come_out() {
    let told = story(&["--greedy", "--json"]).json();
    let words = |ids: &[u64]| ids.iter().map(|id| format!("{id} ")).collect::<String>();
    let told: Vec<_> =
        told["tokens"].as_array().unwrap().iter().flat_map(|id| id.as_u64()).collect();
    let ids = |prompt: &[u64], n: &str| {
        let ran = tercet(["run", "--ids", "--greedy", "-n", n, "-p", &words(prompt)]).succeed();
        ran.text().lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>()
    };
    // The beginning of a story, as it is: no token is put before it.
    let all = ids(&told[..8], "12");
    assert_eq!(all.len(), 12);
    assert_eq!(ids(&[&told[..8], &all[..6]].concat(), "6"), all[6..]);
    let piped = words(&told[..8]).replacen(' ', "\n\t", 3);
    let ran = tercet(["run", "--ids", "--greedy", "-n", "12"]).stdin(piped).succeed();
    assert_eq!(ran.text().replace('\n', " "), words(&all));
}

#[test]
fn raw_continues_the_text_itself() {
    let raw =
        |prompt: &str| tercet(["run", "--raw", "--greedy", "-n", "24", "-p", prompt]).succeed();
    let json = |args: &[&str]| {
        let args = [&["run", "--greedy", "-n", "24", "--json", "-p", "Once upon"], args].concat();
        tercet(args).succeed().json()
    };
    assert_eq!(raw("Once upon").text(), json(&["--raw"])["text"], "no line end is added in a pipe");
    let (with, without) = (json(&[]), json(&["--raw"]));
    assert!(with["n_prompt"].as_u64() > without["n_prompt"].as_u64(), "{with} {without}");
}

/// `--system` reaches the model, before the message.
#[test]
fn instructions_change_the_prompt() {
    let json = |args: &[&str]| story(&[&["--greedy", "--json"], args].concat()).json();
    let (with, without) = (json(&["--system", "Be brief."]), json(&[]));
    assert!(with["n_prompt"].as_u64() > without["n_prompt"].as_u64());
}

#[test]
fn a_model_without_tokenizer_answers_in_ids() {
    let folder = tempfile::tempdir().unwrap();
    let altered = Altered::new().without("tokenizer.json").without("tokenizer_config.json");
    let model = altered.write(folder.path());
    let args = ["run", "--ids", "--greedy", "-n", "12", "-p", "1 3 64 65 2 4"];
    let expected = tercet(args).succeed();
    assert_eq!(tercet(args).arg(&model).succeed().stdout, expected.stdout);
    let refused = tercet(["run", text(&model), "-p", "hello"]).run();
    assert_eq!(refused.code, Some(65), "{refused}");
    assert!(refused.stderr.contains("tokenizer.json"), "{refused}");
    assert!(refused.stderr.contains("--ids"), "the hint names the way: {refused}");
}
