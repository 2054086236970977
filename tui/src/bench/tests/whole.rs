//! Whole runs, on the built-in model.

use std::ffi::OsString;
use std::io::Write;

use serde::Deserialize;
use tercet_host::error::ExitCode;
use tercet_host::measure::machine;

use crate::args::{Cli, Command};
use crate::bench::{BenchArgs, bench};
use crate::signals::Signals;

fn args(line: &str) -> BenchArgs {
    let words = ["tercet", "--bench"].into_iter().chain(line.split_whitespace());
    let cli = Cli::read(words.map(OsString::from)).unwrap();
    match cli.command {
        Some(Command::Bench(args)) => args,
        other => panic!("{other:?}"),
    }
}

fn report(line: &str) -> String {
    let mut out = Vec::new();
    // Not installed: the tests' process keeps its own Ctrl-C.
    let signals = Signals::detached();
    bench(&args(&format!("-q {line}")), &signals, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Numbers {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
}

/// The schema: a field more or less is an error here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "that they are there is what is tested")]
struct Schema {
    build_commit: String,
    cpu_info: String,
    gpu_info: String,
    backends: String,
    model_filename: String,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_batch: usize,
    n_ubatch: usize,
    n_threads: usize,
    type_k: String,
    type_v: String,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    test_time: String,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    test: String,
    suite: String,
    median_ns: u64,
    mad_ns: u64,
    min_ns: u64,
    max_ns: u64,
    median_ts: f64,
    new_ts: Option<f64>,
    ttft_ms: Option<Numbers>,
    itl_ms: Option<Numbers>,
    open_ms: f64,
    load_ms: f64,
    peak_rss_bytes: Option<u64>,
    bytes_read_per_token: Option<u64>,
    read_gbs: Option<f64>,
    read_bandwidth_gbs: Option<f64>,
    pct_of_bandwidth: Option<f64>,
    type_weights: String,
    type_head: String,
    simd: String,
    logits: String,
    sampling: String,
    deterministic: bool,
    seed: Option<u64>,
    load_average: Option<f64>,
    foreign_cores: Option<f64>,
    gpu: Option<Gpu>,
    warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "that they are there is what is tested")]
struct Gpu {
    name: String,
    driver: String,
    memory_bytes: Option<u64>,
    context_bytes: Option<u64>,
    weights_bytes: u64,
    cache_bytes: u64,
    work_bytes: u64,
    upload_ms: f64,
    compile_ms: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    version: String,
    interrupted: bool,
    results: Vec<Schema>,
}

#[test]
fn json_has_one_row_per_test_with_llama_benchs_names() {
    let text = report("-p 9 -n 0,4 -d 0,5 -b 1,2 -r 3 --kv f32 --json");
    let whole: Whole = serde_json::from_str(&text).unwrap();
    assert_eq!((whole.version.as_str(), whole.interrupted), (env!("CARGO_PKG_VERSION"), false));
    let tests: Vec<_> = whole.results.iter().map(|row| row.test.as_str()).collect();
    assert_eq!(
        tests,
        [
            "pp9",
            "tg4",
            "pp9 @ d5",
            "tg4 @ d5",
            "pp9 x 2",
            "tg4 x 2",
            "pp9 @ d5 x 2",
            "tg4 @ d5 x 2"
        ]
    );
    for row in &whole.results {
        assert!((row.n_prompt == 0) != (row.n_gen == 0));
        assert_eq!((row.samples_ns.len(), row.samples_ts.len()), (3, 3));
        let tokens = (row.n_batch * (row.n_prompt + row.n_gen)) as f64;
        for (time, rate) in row.samples_ns.iter().zip(&row.samples_ts) {
            assert!((tokens / (*time as f64 / 1e9) / rate - 1.0).abs() < 1e-3);
        }
        let mean = row.samples_ns.iter().sum::<u64>() / 3;
        assert!(row.avg_ns.abs_diff(mean) <= 2 && row.min_ns <= row.median_ns);
        assert_eq!((row.type_k.as_str(), row.type_v.as_str()), ("f32", "f32"));
        let sampling = if row.n_gen > 0 { "greedy" } else { "none" };
        assert_eq!((row.sampling.as_str(), row.ttft_ms.as_ref()), (sampling, None));
        assert_eq!(row.itl_ms.is_some(), row.n_gen > 0);
        assert_eq!(row.bytes_read_per_token.is_some(), row.n_gen > 0);
        assert!(row.deterministic && row.seed.is_none());
    }
    // Two sequences share the weights of a step, and a filled cache is read too.
    let bytes = |test: &str| {
        let row = whole.results.iter().find(|row| row.test == test).unwrap();
        row.bytes_read_per_token.unwrap()
    };
    assert!(bytes("tg4 x 2") < bytes("tg4") && bytes("tg4") < bytes("tg4 @ d5"));
}

#[test]
fn a_preset_is_measured_in_the_layout_that_was_asked_for() {
    let rows = ["rows128", "base3"].map(|layout| {
        let run = "--preset bitnet-700m -p 0 -n 1 -r 1 --warmup 0";
        let text = report(&format!("{run} --layout {layout} --format jsonl"));
        let row: Schema = serde_json::from_str(&text).unwrap();
        assert!(row.type_weights.ends_with(layout), "{}", row.type_weights);
        assert_eq!(row.seed, Some(1));
        row
    });
    let [codes, digits] = rows.each_ref().map(|row| row.bytes_read_per_token.unwrap() as f64);
    // 24 layers: 4 matrices of 1536 x 1536, 2 of 4096 x 1536, 1 of 1536 x 4096, whose rows take
    // 384 and 1024 bytes, or 320 and 832.
    let less = 24 * (4 * 1536 * 64 + 2 * 4096 * 64 + 1536 * 192);
    assert_eq!(codes - digits, f64::from(less));
    assert_eq!(rows[0].model_size - rows[1].model_size, less as u64);
    assert!(rows[1].type_weights.contains("1.6 bits"), "{}", rows[1].type_weights);
    let table = report("--preset bitnet-700m -p 0 -n 1 -r 1 --warmup 0 --layout base3");
    assert!(table.lines().next().unwrap().contains("layout base3"), "{table}");
}

#[test]
fn json_lines_are_the_same_rows_and_csv_their_flat_form() {
    let lines = report("-p 3 -n 2 -r 1 --format jsonl");
    let rows: Vec<Schema> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);

    let csv = report("-p 3 -n 2 -r 1 --format csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    let names: Vec<_> = lines[0].split(',').collect();
    for name in ["n_prompt", "avg_ts", "itl_ms_p99", "gpu_memory_bytes", "warnings"] {
        assert!(names.contains(&name), "{name}");
    }
    assert!(!lines[0].contains("samples"));
    for line in &lines[1..] {
        assert_eq!(fields(line).len(), names.len(), "{line}");
    }
    let place = names.iter().position(|name| *name == "test").unwrap();
    assert_eq!(fields(lines[2])[place], "tg2");
}

#[test]
fn an_int8_head_is_named_and_counted() {
    let row = |head: &str| {
        let text = report(&format!("-p 0 -n 4 -r 2 --format jsonl --head {head}"));
        serde_json::from_str::<Schema>(&text).unwrap()
    };
    let (stored, rounded) = (row("stored"), row("int8"));
    assert_eq!((stored.type_head.as_str(), rounded.type_head.as_str()), ("bf16", "int8"));
    // 4,096 tokens of 512 columns: a byte less for each weight, and a unit for each token.
    let saved = stored.bytes_read_per_token.unwrap() - rounded.bytes_read_per_token.unwrap();
    assert_eq!(saved, 4096 * (512 - 4));
    assert_eq!(rounded.model_size - stored.model_size, 4096 * (512 + 4));
}

/// Fields of a line of CSV, as RFC 4180 reads it.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
    }
    fields
}

#[test]
fn the_table_is_markdown_with_a_row_per_test() {
    let text = report("-p 3 -n 2 -r 2");
    let table: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(table.len(), 4, "{text}");
    let columns = |line: &str| line.matches('|').count();
    assert!(table.iter().all(|line| columns(line) == columns(table[0])), "{text}");
    assert!(table[2].contains("pp3") && table[3].contains("tg2") && text.contains("head "));
}

#[test]
fn fixed_suites_count_with_and_without_the_prompt() {
    // The built-in model has fewer positions than some of the tests take: those are left out.
    let text = report("--suite all -p 0 -n 1 -r 1 --warmup 0 -t 2 --format jsonl --ctx 160");
    let rows: Vec<Schema> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tests: Vec<_> = rows.iter().map(|row| row.test.as_str()).collect();
    assert_eq!(tests, ["tg1", "1x1", "128x1", "generate 16/32/128", "generate 32/32/128"]);
    assert!(rows[1..3].iter().all(|row| row.logits == "all" && row.n_gen == 0));
    for row in &rows[3..] {
        let new = row.new_ts.unwrap();
        assert!((row.avg_ts / new / (160.0 / 128.0) - 1.0).abs() < 1e-6);
        assert!(row.sampling == "greedy" && row.ttft_ms.is_some() && row.n_threads == 2);
    }
}

#[test]
fn what_cannot_be_meant_or_held_is_refused_with_numbers() {
    let refused = |line: &str| {
        let failure = bench(&args(&format!("-q {line}")), &Signals::detached(), &mut Vec::new());
        let failure = failure.unwrap_err();
        (failure.exit_code(), failure.message().0)
    };
    assert_eq!(refused("-p 0 -n 0").0, ExitCode::Usage);
    assert_eq!(refused("--suite bitblas -p 1").0, ExitCode::Usage);
    let (code, what) = refused("-p 9999 -n 0");
    assert!(code == ExitCode::Usage && what.contains("9999"), "{what}");
    // 4096 sequences of the whole context: far more than any machine has.
    if machine::available_memory().is_some_and(|available| available < 1 << 38) {
        let (code, what) = refused("-b 4096 -p 512 -n 0 --kv f32");
        assert!(code == ExitCode::Unavailable && what.matches(" GB").count() == 2, "{what}");
    }
}

#[test]
fn ctrl_c_reports_what_was_measured() {
    /// Asks for the stop when the first row arrives.
    struct Impatient(Vec<u8>, Signals);
    impl Write for Impatient {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.cancel.request();
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let signals = Signals::detached();
    let mut out = Impatient(Vec::new(), signals.clone());
    let args = args("-q -p 2,3,4 -n 0 -r 1 --format jsonl");
    let failure = bench(&args, &signals, &mut out).unwrap_err();
    assert_eq!(failure.exit_code(), ExitCode::Interrupted);
    assert_eq!(out.0.iter().filter(|byte| **byte == b'\n').count(), 1);
}
