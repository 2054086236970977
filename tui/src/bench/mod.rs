//! `tercet --bench`: how fast, how steady, how far from the memory's pace.
//!
//! ```text
//! options ── plan ──▶ Test ── runs::measure on a Stepper ──▶ Timing ── Row::new ──▶ Report
//! ```

mod args;
mod device;
mod plan;
mod report;
mod row;
mod runs;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::io::Write;
use std::time::Instant;

use tercet_host::backend::Limits;
use tercet_host::inspect::{Description, describe};
use tercet_host::measure::{Stepper, Workload, machine};
use tercet_host::package::Package;
use tercet_host::synth;

pub use self::args::{BenchArgs, Format, Suite, preset_names, with_bench_as_command};
pub use self::device::Benched;
pub use self::plan::{Test, tests};
pub use self::report::Report;
pub use self::row::{Context, Gpu, Row};
pub use self::runs::{Repeat, measure};
use crate::args::DeviceArgs;
use crate::device::{self as choice, Chosen};
use crate::engine::{self, OnStderr, Progress, Watch};
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
    let checkpoint =
        synth::in_memory(crate::synth::preset(name)?, args.layout.into(), args.seed, &mut show)?;
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
        let choice = choice::choose(&options)?;
        let watch = OnStderr::new(options.quiet);
        if let Some(note) = choice.note() {
            watch.note(&note);
        }
        match choice.device {
            Chosen::Cpu => self.on_device(&engine::cpu(&options)?, &watch, tests, report),
            Chosen::Cuda(device) => {
                let backend = engine::gpu(&device, package, &options, &watch)?;
                self.on_device(&backend, &watch, tests, report)
            }
        }
    }

    /// All tests on one device. Returns whether to go on.
    fn on_device<B: Benched>(
        &self,
        backend: &B,
        watch: &dyn Watch,
        tests: &[Test],
        report: &mut Report<'_, impl Write>,
    ) -> Result<bool, Failure>
    where
        for<'w> B::Ops<'w>: Send,
    {
        let Self { package, .. } = *self;
        let mut model = package.bind()?;
        for test in tests {
            backend.room_for(&model, self.limits(&test.workload, backend))?;
        }
        let start = Instant::now();
        let kv = engine::kv_type(self.args.device.kv);
        model.centre_keys(kv, &mut |done, total| watch.loading(done, total))?;
        let weights = backend.upload(&model, &mut |done, total| watch.loading(done, total))?;
        let uploading = start.elapsed();
        let description = describe(package, package.config.positions_max)?;
        let mut context = self.context(description);
        context.step_bytes = backend.step_bytes(&weights);
        context.model_size += backend.added_bytes(&weights);
        backend.describe(&mut context);
        context.open = self.opening;
        context.load = self.opening + uploading;
        for test in tests {
            if self.signals.cancel.requested() {
                return Ok(false);
            }
            let (row, whole) = self.test(test, backend, &weights, context.clone())?;
            row.map_or(Ok(()), |row| report.row(row))?;
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a session for `workload` holds.
    fn limits(&self, workload: &Workload, backend: &impl Benched) -> Limits {
        let rows_max =
            self.args.ubatch.map_or(backend.prefill_rows(self.package), |rows| rows as usize);
        // No step has more rows than there are positions.
        let rows_max = rows_max.min(workload.slots * workload.positions());
        let mut limits = workload.limits(rows_max, engine::kv_type(self.args.device.kv));
        if let Some(context) = self.args.device.ctx {
            limits.positions_max = context as usize;
        }
        limits
    }

    fn context(&self, description: Description) -> Context {
        let halves = self.args.device.kv == crate::args::Kv::F16;
        let kv_bytes = description.memory.kv_bytes_per_token;
        Context {
            model: description.model,
            architecture: description.architecture,
            weights: description.weights,
            head: description.head,
            model_size: description.memory.weights_bytes,
            parameters: description.parameters,
            kv: if halves { "f16" } else { "f32" },
            kv_bytes: if halves { kv_bytes } else { 2 * kv_bytes },
            seed: self.args.preset.is_some().then_some(self.args.seed),
            cpu: machine::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.into()),
            ..Context::default()
        }
    }

    /// One test: bandwidth, then runs. Returns the row, if a run was finished, and whether all
    /// were.
    fn test<B: Benched>(
        &self,
        test: &Test,
        backend: &B,
        weights: &B::Weights<'_>,
        mut context: Context,
    ) -> Result<(Option<Row>, bool), Failure>
    where
        for<'w> B::Ops<'w>: Send,
    {
        let Self { args, package, signals, .. } = *self;
        let limits = self.limits(&test.workload, backend);
        context.ubatch = limits.rows_max;
        context.test_time = machine::utc_now();
        context.bandwidth = backend.bandwidth();
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
        let timings = backend
            .run(|| Ok(measure(&mut stepper, workload, repeat, &signals.cancel, &mut show)?))?;
        progress.done();
        context.neighbours = neighbours.cores();
        context.load_average = machine::load_average();
        backend.note_memory(weights, stepper.ops(), &mut context);

        let whole = timings.len() == args.repetitions as usize;
        if !whole {
            let (done, all) = (timings.len(), args.repetitions);
            context.warnings.push(format!("interrupted after {done} of {all} runs"));
        }
        Ok((Row::new(test, &timings, context), whole))
    }
}
