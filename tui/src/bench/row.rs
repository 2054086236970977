//! [`Row`]: what is reported of one test. The field names are a contract.

use core::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tercet_host::measure::{Logits, Next, Timing};

use super::plan::Test;
use crate::stats::{NEIGHBOURS_MAX, Oddity, Percentiles, Stats, oddities, summary};

/// What all rows of a run have in common, and what was measured beside the clock.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "as in `Row`")]
pub struct Context {
    pub model: String,
    pub architecture: String,
    pub weights: String,
    pub head: &'static str,
    pub model_size: u64,
    pub parameters: u64,
    pub kv: &'static str,
    /// Bytes of keys and values of one position.
    pub kv_bytes: u64,
    pub backends: &'static str,
    pub gpu: Option<Gpu>,
    pub simd: String,
    pub threads: usize,
    pub ubatch: usize,
    /// Bytes of weights that a step reads.
    pub step_bytes: u64,
    /// The part of `load` that was opening the model.
    pub open: Duration,
    pub load: Duration,
    pub deterministic: bool,
    pub seed: Option<u64>,
    pub test_time: String,
    pub cpu: String,
    pub bandwidth: Option<f64>,
    pub peak_memory: Option<u64>,
    pub load_average: Option<f64>,
    pub neighbours: Option<f64>,
    /// Things to be said beside those that the samples say.
    pub warnings: Vec<String>,
}

/// What is known of a GPU and its memory, in bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Version of CUDA that the driver speaks.
    pub driver: String,
    /// Device memory of this process at the end of the test, or what came into use since its
    /// start where processes are hidden.
    pub memory_bytes: Option<u64>,
    /// The part of that which a context takes by itself.
    pub context_bytes: Option<u64>,
    /// Weights.
    pub weights_bytes: u64,
    /// Keys and values.
    pub cache_bytes: u64,
    /// Buffers between operations.
    pub work_bytes: u64,
    /// Bringing the weights to the device.
    pub upload_ms: f64,
    /// Compiling the kernels meanwhile, or finding them compiled.
    pub compile_ms: f64,
}

/// One test, measured. Names as in llama-bench where the meaning is the same; `null` where a number
/// means nothing for the test or the system does not tell it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Version of the program.
    pub build_commit: String,
    /// Processor.
    pub cpu_info: String,
    /// Accelerator; empty on the CPU.
    pub gpu_info: String,
    /// Backends in use.
    pub backends: String,
    /// The model as the user named it.
    pub model_filename: String,
    /// Architecture and size.
    pub model_type: String,
    /// Weights in memory, in bytes.
    pub model_size: u64,
    /// Number of weights.
    pub model_n_params: u64,
    /// Sequences at a time.
    pub n_batch: usize,
    /// Most prompt tokens of one step.
    pub n_ubatch: usize,
    /// Threads.
    pub n_threads: usize,
    /// Number type of cached keys.
    pub type_k: String,
    /// Number type of cached values.
    pub type_v: String,
    /// Prompt tokens of each sequence.
    pub n_prompt: usize,
    /// Generated tokens of each sequence.
    pub n_gen: usize,
    /// Positions filled before the clock started.
    pub n_depth: usize,
    /// When the test began (UTC).
    pub test_time: String,
    /// Mean time of a run.
    pub avg_ns: u64,
    /// Standard deviation of that.
    pub stddev_ns: u64,
    /// Mean of tokens per second, prompt and generated, of all sequences together.
    pub avg_ts: f64,
    /// Standard deviation of that.
    pub stddev_ts: f64,
    /// Time of every run.
    pub samples_ns: Vec<u64>,
    /// Tokens per second of every run.
    pub samples_ts: Vec<f64>,

    /// Name of the test.
    pub test: String,
    /// Suite of the test.
    pub suite: String,
    /// Median time of a run.
    pub median_ns: u64,
    /// Median absolute deviation of that.
    pub mad_ns: u64,
    /// Fastest run.
    pub min_ns: u64,
    /// Slowest run.
    pub max_ns: u64,
    /// Tokens per second at the median time.
    pub median_ts: f64,
    /// Generated tokens per second of the whole time, where a run has prompt and answer.
    pub new_ts: Option<f64>,
    /// Time to the first token of each sequence, choice included; where tokens are chosen.
    pub ttft_ms: Option<Percentiles>,
    /// Time between tokens: of every step of one token per sequence.
    pub itl_ms: Option<Percentiles>,
    /// Opening the model: its files mapped and checked, its tokenizer read.
    pub open_ms: f64,
    /// From opening the model to weights ready; random weights are made before that.
    pub load_ms: f64,
    /// Most memory held during the test, weights included.
    pub peak_rss_bytes: Option<u64>,
    /// Weights, head and cache read per generated token, each once per step.
    pub bytes_read_per_token: Option<u64>,
    /// The same per second, in GB/s.
    pub read_gbs: Option<f64>,
    /// What as many threads read with plain loads just before, in GB/s.
    pub read_bandwidth_gbs: Option<f64>,
    /// The former in percent of the latter.
    pub pct_of_bandwidth: Option<f64>,
    /// How the linears are stored.
    pub type_weights: String,
    /// Number type of the head.
    pub type_head: String,
    /// Processor instructions in use.
    pub simd: String,
    /// Positions of a prompt that have logits: `last` or `all`.
    pub logits: String,
    /// `none` (tokens are given) or `greedy` (choosing is part of the time).
    pub sampling: String,
    /// Whether the bits depend on nothing but model and tokens.
    pub deterministic: bool,
    /// Seed of random weights.
    pub seed: Option<u64>,
    /// Load average at the end of the test.
    pub load_average: Option<f64>,
    /// Processors that other processes kept busy during the test.
    pub foreign_cores: Option<f64>,
    /// The GPU and its memory, where there is one.
    pub gpu: Option<Gpu>,
    /// What makes the numbers doubtful.
    pub warnings: Vec<String>,
}

/// Fields of [`Gpu`] in a flat row; its name is `gpu_info`.
const GPU_FIELDS: [&str; 8] = [
    "driver",
    "memory_bytes",
    "context_bytes",
    "weights_bytes",
    "cache_bytes",
    "work_bytes",
    "upload_ms",
    "compile_ms",
];

impl Row {
    /// Sums up the runs of a test; `None` when none was finished.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "rates need no 53 bits")]
    pub fn new(test: &Test, timings: &[Timing], context: Context) -> Option<Self> {
        let workload = &test.workload;
        let seconds: Vec<f64> = timings.iter().map(|run| run.total.as_secs_f64()).collect();
        let time = summary(&seconds)?;
        let rates: Vec<f64> = seconds.iter().map(|time| workload.tokens() as f64 / time).collect();
        let rate = summary(&rates)?;

        let mut stats = Stats::default();
        timings.iter().for_each(|run| stats.hear_run(run));
        let itl = stats.gaps().percentiles();
        let step = context.step_bytes + cache_bytes_per_step(test, context.kv_bytes);
        let read = itl.map(|itl| step as f64 / itl.mean * 1e3);
        let share = read.zip(context.bandwidth).map(|(read, all)| 100.0 * read / all);
        let both = workload.prompt > 0 && workload.generate > 0;
        let mut warnings = context.warnings;
        warnings.extend(oddities(&seconds).into_iter().map(sentence));
        warnings.extend(context.neighbours.and_then(neighbours));
        if share.is_some_and(|share| share > 100.0) {
            warnings.push("more than the bandwidth was read: caches hold part of the model".into());
        }
        Some(Self {
            build_commit: format!("tercet {}", env!("CARGO_PKG_VERSION")),
            cpu_info: context.cpu,
            gpu_info: context.gpu.as_ref().map_or_else(String::new, |gpu| gpu.name.clone()),
            backends: context.backends.into(),
            model_filename: context.model,
            model_type: format!("{} {:.2}B", context.architecture, context.parameters as f64 / 1e9),
            model_size: context.model_size,
            model_n_params: context.parameters,
            n_batch: workload.slots,
            n_ubatch: context.ubatch,
            n_threads: context.threads,
            type_k: context.kv.into(),
            type_v: context.kv.into(),
            n_prompt: workload.prompt,
            n_gen: workload.generate,
            n_depth: workload.depth,
            test_time: context.test_time,
            avg_ns: nanos(time.mean),
            stddev_ns: nanos(time.stddev),
            avg_ts: rate.mean,
            stddev_ts: rate.stddev,
            samples_ns: seconds.iter().copied().map(nanos).collect(),
            samples_ts: rates,
            test: test.name.clone(),
            suite: test.suite.into(),
            median_ns: nanos(time.median),
            mad_ns: nanos(time.mad),
            min_ns: nanos(time.min),
            max_ns: nanos(time.max),
            median_ts: workload.tokens() as f64 / time.median,
            new_ts: both.then(|| (workload.slots * workload.generate) as f64 / time.mean),
            ttft_ms: stats.first_tokens().percentiles(),
            itl_ms: itl,
            open_ms: millis(&context.open),
            load_ms: millis(&context.load),
            peak_rss_bytes: context.peak_memory,
            bytes_read_per_token: itl.map(|_| step / workload.slots as u64),
            read_gbs: read.map(|read| read / 1e9),
            read_bandwidth_gbs: context.bandwidth.map(|all| all / 1e9),
            pct_of_bandwidth: share,
            type_weights: context.weights,
            type_head: context.head.into(),
            simd: context.simd,
            logits: if workload.logits == Logits::All { "all" } else { "last" }.into(),
            sampling: if workload.next == Next::Greedy { "greedy" } else { "none" }.into(),
            deterministic: context.deterministic,
            seed: context.seed,
            load_average: context.load_average,
            foreign_cores: context.neighbours,
            gpu: context.gpu,
            warnings,
        })
    }

    /// The row as a flat object: lists of samples left out, percentiles as `ttft_ms_p50` and so on
    /// (empty where there are none), warnings in one text.
    #[must_use]
    pub fn flat(&self) -> Map<String, Value> {
        let Ok(Value::Object(fields)) = serde_json::to_value(self) else { return Map::new() };
        let mut flat = Map::new();
        for (name, value) in fields {
            match name.as_str() {
                "samples_ns" | "samples_ts" => {}
                "warnings" => {
                    flat.insert(name, self.warnings.join("; ").into());
                }
                "ttft_ms" | "itl_ms" => {
                    for part in ["mean", "p50", "p90", "p99"] {
                        let number = value.get(part).cloned().unwrap_or_default();
                        flat.insert(format!("{name}_{part}"), number);
                    }
                }
                "gpu" => {
                    for part in GPU_FIELDS {
                        let field = value.get(part).cloned().unwrap_or_default();
                        flat.insert(format!("gpu_{part}"), field);
                    }
                }
                _ => {
                    flat.insert(name, value);
                }
            }
        }
        flat
    }
}

/// Keys and values that an average step of one token per sequence reads.
fn cache_bytes_per_step(test: &Test, per_position: u64) -> u64 {
    let workload = &test.workload;
    let middle = workload.depth + workload.prompt + workload.generate.div_ceil(2);
    (workload.slots * middle) as u64 * per_position
}

fn millis(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 584 years")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// What is odd, with what to do about it.
fn sentence(oddity: Oddity) -> String {
    match oddity {
        Oddity::SlowFirstRun(times) => format!(
            "the first run took {times:.1} times the median: caches or clocks were cold; raise \
             --warmup"
        ),
        Oddity::Outliers(count) => format!(
            "{count} of the runs are far from the rest: something else ran; repeat on a quiet \
             machine, or raise -r and read the median"
        ),
        Oddity::Noise(share) => format!(
            "runs differ by ±{:.0} %: repeat on a quiet machine, or raise -r and read the median",
            100.0 * share
        ),
    }
}

fn neighbours(cores: f64) -> Option<String> {
    (cores >= NEIGHBOURS_MAX)
        .then(|| format!("other processes kept {cores:.1} processors busy during the test"))
}
