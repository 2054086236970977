//! The loop on a device that only waits, and whole runs on the built-in model.

use core::time::Duration;
use std::ffi::OsString;
use std::io::Write;

use serde::Deserialize;
use tercet_host::backend::{Buffer, DeviceError, KvType, Ops, Row as StepRow, TokenId};
use tercet_host::error::ExitCode;
use tercet_host::forward::Cancel;
use tercet_host::measure::{Logits, Next, Stepper, Workload};
use tercet_host::sampler::Sampler;

use super::*;
use crate::args::{Cli, Command};

/// A device whose steps take scripted times, and which writes down what it was asked.
#[derive(Debug)]
struct Scripted<'s> {
    /// Milliseconds of each step; the last one holds for all that follow.
    delays: &'s [u64],
    steps: &'s mut Vec<Vec<StepRow>>,
    chosen: &'s mut Vec<(usize, usize)>,
    cancel_after: Option<(usize, Cancel)>,
    logit: f32,
}

impl Ops for Scripted<'_> {
    fn embed(&mut self, rows: &[StepRow]) -> Result<(), DeviceError> {
        let delay = self.delays.get(self.steps.len()).or(self.delays.last());
        std::thread::sleep(Duration::from_millis(*delay.unwrap_or(&0)));
        self.steps.push(rows.to_vec());
        match &self.cancel_after {
            Some((steps, cancel)) if self.steps.len() == *steps => cancel.request(),
            _ => {}
        }
        Ok(())
    }
    fn qkv(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn attend(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn attention_out(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn gate_up(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn down(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn logits(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
    fn choose(&mut self, asked: usize, _sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        self.chosen.push((self.steps.len(), asked));
        Ok(7)
    }
    fn read(&mut self, _buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        Ok(vec![self.logit; 10])
    }
    fn write(&mut self, _buffer: Buffer, _values: &[f32]) -> Result<(), DeviceError> {
        Ok(())
    }
}

const WORKLOAD: Workload = Workload {
    slots: 1,
    depth: 0,
    prompt: 0,
    generate: 0,
    logits: Logits::Last,
    next: Next::Given,
};

/// What a scripted device was asked, and what came of it.
struct Told {
    timings: Result<Vec<tercet_host::measure::Timing>, DeviceError>,
    steps: Vec<Vec<StepRow>>,
    chosen: Vec<(usize, usize)>,
}

fn run(
    workload: Workload,
    (warmup, runs): (u32, u32),
    delays: &[u64],
    cancel_after: Option<usize>,
    logit: f32,
) -> Told {
    let (mut steps, mut chosen) = (Vec::new(), Vec::new());
    let cancel = Cancel::default();
    let cancel_after = cancel_after.map(|steps| (steps, cancel.clone()));
    let ops = Scripted { delays, steps: &mut steps, chosen: &mut chosen, cancel_after, logit };
    let mut stepper = Stepper::new(ops, 1, 10, workload.limits(4, KvType::F16));
    let repeat = Repeat { warmup, runs };
    let timings = measure(&mut stepper, &workload, repeat, &cancel, &mut |_| {});
    Told { timings, steps, chosen }
}

fn places(step: &[StepRow]) -> Vec<(usize, usize, bool)> {
    step.iter().map(|row| (row.slot, row.position, row.logits)).collect()
}

#[test]
fn delays_become_times_and_warm_ups_do_not_count() {
    let workload = Workload { generate: 3, ..WORKLOAD };
    // One warm-up of one token, then two runs of three.
    let told = run(workload, (1, 2), &[60, 5, 10, 20, 1], None, 0.0);
    let timings = told.timings.unwrap();
    assert_eq!(told.steps.len(), 1 + 2 * 3);
    let least = [[5, 10, 20], [1, 1, 1]];
    for (timing, least) in timings.iter().zip(least) {
        let steps: Vec<_> = least.map(Duration::from_millis).into();
        assert!(timing.steps.iter().zip(&steps).all(|(step, least)| step >= least));
        assert!(timing.total >= steps.iter().sum() && timing.first_tokens.is_empty());
    }
    // A sleep may be long but not by an order: the warm-up's 60 ms are not in there.
    assert!(timings[1].total < Duration::from_millis(50), "{timings:?}");
    assert_eq!(told.chosen, []);
    let positions: Vec<_> = told.steps.iter().map(|step| places(step)[0].1).collect();
    assert_eq!(positions, [0, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn prompts_go_in_full_steps_and_only_last_tokens_ask() {
    let workload = Workload { slots: 2, depth: 3, prompt: 3, ..WORKLOAD };
    let told = run(workload, (0, 1), &[0], None, 0.0);
    assert_eq!(told.timings.unwrap().len(), 1);
    let steps: Vec<_> = told.steps.iter().map(|step| places(step)).collect();
    let rows = |rows: &[(usize, usize, bool)]| rows.to_vec();
    assert_eq!(
        steps,
        [
            rows(&[(0, 0, false), (0, 1, false), (0, 2, false), (1, 0, false)]),
            rows(&[(1, 1, false), (1, 2, false)]),
            rows(&[(0, 3, false), (0, 4, false), (0, 5, true), (1, 3, false)]),
            rows(&[(1, 4, false), (1, 5, true)]),
        ]
    );
    let all = run(Workload { logits: Logits::All, ..workload }, (0, 1), &[0], None, 0.0);
    assert!(all.steps[2..].iter().flatten().all(|row| row.logits));
}

#[test]
fn a_greedy_answer_takes_its_first_token_from_the_prompt() {
    let workload = Workload { slots: 2, prompt: 3, generate: 3, next: Next::Greedy, ..WORKLOAD };
    let told = run(workload, (0, 1), &[4, 8, 1], None, 0.0);
    let timing = told.timings.unwrap().remove(0);
    // Slot 0 ends in the first step, slot 1 in the second; then two steps of both.
    assert_eq!(told.chosen, [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1)]);
    assert_eq!(timing.steps.len(), 2);
    let [first, second] = timing.first_tokens[..] else { panic!("{timing:?}") };
    assert!(first >= Duration::from_millis(4) && second >= first + Duration::from_millis(8));
    // The chosen token is what goes in next.
    assert_eq!(places(&told.steps[2]), [(0, 3, true), (1, 3, true)]);
    assert!(told.steps[2].iter().all(|row| row.token == 7));
}

#[test]
fn cancelling_keeps_whole_runs_only() {
    let workload = Workload { generate: 3, ..WORKLOAD };
    let told = run(workload, (1, 5), &[0], Some(1 + 3 + 2), 0.0);
    assert_eq!(told.timings.unwrap().len(), 1);
    let early = run(workload, (1, 5), &[0], Some(1), 0.0);
    assert_eq!(early.timings.unwrap().len(), 0);
}

#[test]
fn a_model_that_computes_nonsense_is_not_measured() {
    let told = run(Workload { generate: 1, ..WORKLOAD }, (0, 1), &[0], None, f32::NAN);
    assert!(matches!(told.timings, Err(DeviceError::NotFinite { .. })));
}

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
    warnings: Vec<String>,
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
        assert_eq!((row.sampling.as_str(), row.ttft_ms.as_ref()), ("none", None));
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
fn json_lines_are_the_same_rows_and_csv_their_flat_form() {
    let lines = report("-p 3 -n 2 -r 1 --format jsonl");
    let rows: Vec<Schema> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);

    let csv = report("-p 3 -n 2 -r 1 --format csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    let names: Vec<_> = lines[0].split(',').collect();
    for name in ["n_prompt", "avg_ts", "itl_ms_p99", "warnings", "pct_of_bandwidth"] {
        assert!(names.contains(&name), "{name}");
    }
    assert!(!lines[0].contains("samples"));
    for line in &lines[1..] {
        assert_eq!(fields(line).len(), names.len(), "{line}");
    }
    let place = names.iter().position(|name| *name == "test").unwrap();
    assert_eq!(fields(lines[2])[place], "tg2");
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
