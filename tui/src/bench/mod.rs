//! `tercet --bench`: how fast, how steady, how far from the memory's pace.
//!
//! ```text
//! options ── plan ──▶ Test ── runs::measure on a Stepper ──▶ Timing ── Row::new ──▶ Report
//! ```

mod args;
mod plan;
mod report;
mod row;
mod runs;
mod stats;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::io::Write;
use std::time::Instant;

use tercet_host::backend::cpu::{CpuBackend, CpuWeights};
use tercet_host::backend::{Backend, DeviceError, HeadType, Limits};
use tercet_host::inspect::{Description, describe};
use tercet_host::measure::{
    Stepper, Workload, machine, read_bandwidth, session_bytes, upload_bytes,
};
use tercet_host::package::Package;
use tercet_host::synth;

pub use self::args::{BenchArgs, Format, Suite, preset_names, with_bench_as_command};
pub use self::plan::{Test, tests};
pub use self::report::Report;
pub use self::row::{Context, Row};
pub use self::runs::{Repeat, measure};
pub use self::stats::{Oddity, Percentiles, Summary, oddities, percentiles, summary};
use crate::args::DeviceArgs;
use crate::device::{self, Chosen};
use crate::engine::{self, Progress};
use crate::failure::{Failure, note};
use crate::signals::Signals;

/// Runs the command; the report goes to `out`.
///
/// # Errors
///
/// [`Failure`] of any stage; [`Failure::Interrupted`] after Ctrl-C, when what was measured is
/// reported.
pub fn bench(args: &BenchArgs, signals: &Signals, out: &mut impl Write) -> Result<(), Failure> {
    let tests = tests(args)?;
    let start = Instant::now();
    let package = open(args)?;
    // Making random weights is no loading.
    let opening = if args.preset.is_some() { Duration::ZERO } else { start.elapsed() };
    let tests = fitting(args, tests, &package)?;
    let format = if args.json { Format::Json } else { args.format };
    let mut report = Report::new(format, args.device.quiet, out);
    let threads = match &args.thread_counts {
        Some(counts) => counts.iter().copied().map(Some).collect(),
        None => vec![args.device.threads],
    };
    // From here on Ctrl-C ends the measuring and not the program: what is measured is reported.
    let whole = signals.during(|| {
        for threads in threads {
            let bench = Bench { args, package: &package, signals, opening };
            if !bench.with_threads(threads, &tests, &mut report)? {
                return Ok(false);
            }
        }
        Ok::<_, Failure>(true)
    })?;
    report.finish(!whole)?;
    if whole { Ok(()) } else { Err(Failure::Interrupted) }
}

/// The model, or the preset made in memory.
fn open(args: &BenchArgs) -> Result<Package, Failure> {
    let Some(name) = &args.preset else { return engine::open(&args.model) };
    let progress = Progress::new("making random weights", args.device.quiet);
    let mut show = |done, total| progress.show(done, total);
    let checkpoint = synth::in_memory(crate::synth::preset(name)?, args.seed, &mut show)?;
    progress.done();
    Ok(Package::from_checkpoint(checkpoint)?)
}

/// The tests whose positions the model and `--ctx` have. Tests that were asked for by number must
/// fit; those of a fixed suite are left out with a word.
fn fitting(args: &BenchArgs, tests: Vec<Test>, package: &Package) -> Result<Vec<Test>, Failure> {
    let max = package.config.positions_max;
    let max = args.device.ctx.map_or(max, |ctx| max.min(ctx as usize));
    let mut fitting = Vec::new();
    for test in tests {
        let positions = test.workload.positions();
        let what = format!("{} takes {positions} positions, there are {max}", test.name);
        if positions <= max {
            fitting.push(test);
        } else if test.suite == "llama-bench" {
            let hint = "give smaller numbers for -p, -n or -d";
            return Err(Failure::Usage { what, hint });
        } else if !args.device.quiet {
            note(format_args!("tercet: warning: left out: {what}"));
        }
    }
    Ok(fitting)
}

/// What the tests of one run of the program share.
struct Bench<'a> {
    args: &'a BenchArgs,
    package: &'a Package,
    signals: &'a Signals,
    /// How long opening the model took.
    opening: Duration,
}

impl Bench<'_> {
    /// All tests with one number of threads. Returns whether to go on.
    fn with_threads(
        &self,
        threads: Option<u16>,
        tests: &[Test],
        report: &mut Report<'_, impl Write>,
    ) -> Result<bool, Failure> {
        let Self { args, package, .. } = *self;
        let options = DeviceArgs { threads, ..args.device.clone() };
        let Chosen::Cpu = device::choose(&options)?;
        let backend = engine::cpu(&options)?;
        let model = package.bind()?;
        let most = tests.iter().map(|test| self.session(&test.workload, &backend).1).max();
        enough_memory(
            "the model with its session",
            upload_bytes(&model, backend.head()) + most.unwrap_or(0),
        )?;
        let progress = Progress::new("loading", args.device.quiet);
        let start = Instant::now();
        let weights = backend.upload(&model, &mut |done, total| progress.show(done, total))?;
        let uploading = start.elapsed();
        progress.done();
        let description = describe(package, package.config.positions_max)?;
        let mut context = self.context(&backend, &weights, description);
        context.load = self.opening + uploading;
        for test in tests {
            if self.signals.cancel.requested() {
                return Ok(false);
            }
            let (row, whole) = self.test(test, &backend, &weights, context.clone())?;
            row.map_or(Ok(()), |row| report.row(row))?;
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a session for `workload` holds, and the bytes it takes.
    fn session(&self, workload: &Workload, backend: &CpuBackend) -> (Limits, u64) {
        let rows_max = self.args.ubatch.map_or(engine::prefill_rows(backend), |rows| rows as usize);
        let mut limits = workload.limits(rows_max, engine::kv_type(self.args.device.kv));
        if let Some(context) = self.args.device.ctx {
            limits.positions_max = context as usize;
        }
        (limits, session_bytes(&self.package.config, &limits))
    }

    fn context(
        &self,
        backend: &CpuBackend,
        weights: &CpuWeights<'_>,
        description: Description,
    ) -> Context {
        let halves = self.args.device.kv == crate::args::Kv::F16;
        let kv_bytes = description.memory.kv_bytes_per_token;
        Context {
            model: description.model,
            architecture: description.architecture,
            weights: description.weights,
            head: match backend.head() {
                HeadType::Stored => description.head,
                HeadType::Int8 => "int8",
            },
            model_size: description.memory.weights_bytes + weights.head_bytes_added(),
            parameters: description.parameters,
            kv: if halves { "f16" } else { "f32" },
            kv_bytes: if halves { kv_bytes } else { 2 * kv_bytes },
            simd: backend.simd().to_string(),
            threads: backend.threads(),
            step_bytes: weights.bytes_per_step(),
            // The CPU knows no other way.
            deterministic: true,
            seed: self.args.preset.is_some().then_some(self.args.seed),
            cpu: machine::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.into()),
            ..Context::default()
        }
    }

    /// One test: bandwidth, then runs. Returns the row, if a run was finished, and whether all
    /// were.
    fn test(
        &self,
        test: &Test,
        backend: &CpuBackend,
        weights: &CpuWeights<'_>,
        mut context: Context,
    ) -> Result<(Option<Row>, bool), Failure> {
        let Self { args, package, signals, .. } = *self;
        let (limits, bytes) = self.session(&test.workload, backend);
        enough_memory("the test's session", bytes)?;
        context.ubatch = limits.rows_max;
        context.test_time = machine::utc_now();
        context.bandwidth = bandwidth(backend);
        if !machine::reset_peak_memory() {
            context.warnings.push("the peak of memory is that of the whole program".into());
        }

        let repeat = Repeat { warmup: args.warmup, runs: args.repetitions };
        let progress = Progress::new("measuring", args.device.quiet);
        let mut show =
            |done| progress.show(u64::from(done), u64::from(repeat.warmup + repeat.runs));
        let ops = backend.ops(weights, limits)?;
        let mut stepper = Stepper::new(ops, package.config.layers, package.config.vocab, limits);
        let neighbours = machine::Neighbours::watch();
        let workload = &test.workload;
        let timings =
            backend.run(|| measure(&mut stepper, workload, repeat, &signals.cancel, &mut show))?;
        progress.done();
        context.neighbours = neighbours.cores();
        context.load_average = machine::load_average();
        context.peak_memory = machine::peak_memory();

        let whole = timings.len() == args.repetitions as usize;
        if !whole {
            let (done, all) = (timings.len(), args.repetitions);
            context.warnings.push(format!("interrupted after {done} of {all} runs"));
        }
        Ok((Row::new(test, &timings, context), whole))
    }
}

/// Refuses what would take more memory than there is.
fn enough_memory(what: &'static str, needed: u64) -> Result<(), Failure> {
    match machine::available_memory() {
        Some(available) if available < needed => {
            Err(DeviceError::TooLarge { what, needed, available }.into())
        }
        _ => Ok(()),
    }
}

/// Reads a buffer several times as large as the last cache, with all threads; `None` where there is
/// no room for one.
fn bandwidth(backend: &CpuBackend) -> Option<f64> {
    const LEAST: u64 = 256 << 20;
    const MOST: u64 = 2 << 30;
    let wanted = machine::cache_bytes().unwrap_or(0).saturating_mul(4).clamp(LEAST, MOST);
    // No more than a quarter of what is free: measuring must not push others out.
    if machine::available_memory().is_some_and(|available| available / 4 < wanted) {
        return None;
    }
    read_bandwidth(backend.threads(), backend.simd(), usize::try_from(wanted).ok()?)
}
