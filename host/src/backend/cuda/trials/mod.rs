//! Trials: small models with random weights on a device, every operation beside the CPU's.
//!
//! A kernel is tried by letting a model use it: a [`Trial`] is a shape of model, and its steps are
//! those at which the device takes another kernel. What was launched is noted, so that a kernel
//! that no trial reaches is found out ([`Rig::never_launched`]).
//!
//! ```text
//! models    the shapes          steps    the steps of a trial
//! watch     notes the kernels of an operation
//! ```

mod models;
mod steps;
#[cfg(test)]
mod tests;
mod watch;

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::AtomicUsize;
use core::time::Duration;
use std::collections::BTreeSet;

use tercet_core::Simd;
use tercet_kernels_ptx::contract::{ArgumentBlock as _, DecodeLayersArgs, LinearArgs};
use tercet_kernels_ptx::launch;

pub use self::models::{TRIALS, Trial};
use self::watch::Watched;
use super::driver::{Context, CudaError, Overrun};
use super::kernels::KernelSet;
use super::launches::{is_replaced, linear_target};
use super::layers;
use super::modules::Modules;
use super::{CudaBackend, CudaOps, CudaWeights};
use crate::backend::cpu::{CpuBackend, CpuOps};
use crate::backend::lock_step::{LockStep, Operation, Tolerance};
use crate::backend::{Backend, Buffer, DeviceError, HeadType, KvType, Ops, Row};
use crate::config::LinearKind;
use crate::error::Error;
use crate::forward::{Cancel, forward};
use crate::layout::WeightLayout;
use crate::package::Package;
use crate::sampler::{Sampler, Sampling};
use crate::synth;

/// Attention on tensor cores, and that of single rows, over values of about 1: products of halves
/// summed as singles, in another order than the CPU's. The worst seen of a kernel by itself is
/// 3e-6.
const ATTEND: Tolerance = Tolerance::Within { absolute: 5e-5, relative: 2e-5 };
/// A float linear over inputs of about 1: the CPU sums singles in 32 lanes, the device products of
/// 16-bit terms, which together hold 22 bits or more of an input. The worst seen is 6e-7 of the sum
/// of the products' magnitudes, which here is below 50.
const LINEAR: Tolerance = Tolerance::Within { absolute: 5e-5, relative: 2e-5 };
/// Two of these multiplied, one perhaps with itself.
const GATED: Tolerance = Tolerance::Within { absolute: 2e-4, relative: 1e-4 };
/// As `LINEAR`; of the widest stream that is tried the magnitudes add up to 200.
const LOGITS: Tolerance = Tolerance::Within { absolute: 2e-4, relative: 2e-5 };

/// How tokens are drawn in trials: by every rule there is.
const SAMPLING: Sampling =
    Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.01, repetition_penalty: 1.1 };

/// Bytes over which the kernel that measures memory is run.
const BANDWIDTH_BYTES: usize = 64 << 20;

/// How attention of a step is done, which says how near it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attends {
    /// In the CPU's order.
    Exactly,
    /// In an order of its own.
    Nearly,
}

/// What each operation may differ by.
fn policy(linears: LinearKind, attends: Attends) -> fn(Operation) -> Tolerance {
    use Operation::{Attend, AttentionOut, Choose, Down, Embed, GateUp, Logits, Qkv};
    fn ternary(operation: Operation) -> Tolerance {
        match operation {
            Embed | Qkv | Attend | AttentionOut | GateUp | Down | Choose => Tolerance::Exact,
            Logits => LOGITS,
        }
    }
    fn float(operation: Operation) -> Tolerance {
        match operation {
            Embed | Attend | Choose => Tolerance::Exact,
            Qkv | AttentionOut | Down => LINEAR,
            Logits => LOGITS,
            GateUp => GATED,
        }
    }
    match (linears, attends) {
        (LinearKind::Ternary, Attends::Exactly) => ternary,
        (LinearKind::Float, Attends::Exactly) => float,
        (LinearKind::Ternary, Attends::Nearly) => |operation| match operation {
            Attend => ATTEND,
            other => ternary(other),
        },
        (LinearKind::Float, Attends::Nearly) => |operation| match operation {
            Attend => ATTEND,
            other => float(other),
        },
    }
}

/// A device with all of its kernels compiled, and the CPU that it is compared with.
#[derive(Debug)]
pub struct Rig {
    context: Context,
    kernels: KernelSet,
    modules: Modules,
    /// Kernels launched so far.
    launched: RefCell<BTreeSet<&'static str>>,
}

/// What a trial that went well has to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Passed {
    /// Steps in lock step.
    pub steps: usize,
    /// Inputs of linears that were equal as INT8 values, units and sums.
    pub quantized: usize,
    /// The operation that took the largest part of its tolerance, and that part; the others are
    /// equal to the bit.
    pub worst: Option<(Operation, f32)>,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps as on the CPU", self.steps)?;
        if self.quantized > 0 {
            write!(f, ", {} quantised inputs to the bit", self.quantized)?;
        }
        match self.worst {
            Some((operation, part)) => {
                write!(f, ", {} within {:.0} % of its tolerance", operation.name(), part * 100.0)
            }
            None => f.write_str(" to the bit"),
        }
    }
}

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The model could not be made, or brought to a device.
    #[error(transparent)]
    Model(#[from] Error),
    /// A step could not be done, or an operation of it computed something else than the CPU's.
    #[error("{step}: {source} (kernels: {})", list(.kernels))]
    Step {
        /// Which step of the trial.
        step: String,
        /// What the operation had launched.
        kernels: Vec<&'static str>,
        /// What happened.
        source: Box<DeviceError>,
    },
    /// A kernel of a step wrote beside what is the step's.
    #[error("{step}: {overrun}")]
    Overrun {
        /// Which step of the trial.
        step: String,
        /// Where.
        overrun: Overrun,
    },
    /// Two ways to the same logits do not lead to the same bits.
    #[error("{ways}: logit {index} of row {row} is {got}, and {expected} the other way")]
    Bits {
        /// Both ways.
        ways: &'static str,
        /// Row of the step.
        row: usize,
        /// Place in the row.
        index: usize,
        /// One way.
        expected: f32,
        /// The other.
        got: f32,
    },
}

fn list(kernels: &[&str]) -> String {
    if kernels.is_empty() { "none".into() } else { kernels.join(", ") }
}

impl TrialError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        const WRONG: &str = "use --device cpu, and report this with the GPU and the driver's \
                             version: answers of this GPU would be wrong";
        match self {
            Self::Step { source, .. } if matches!(**source, DeviceError::Divergence { .. }) => {
                WRONG
            }
            Self::Step { source, .. } => source.hint(),
            Self::Bits { .. } | Self::Overrun { .. } => WRONG,
            Self::Model(error) => error.hint(),
        }
    }

    /// What the driver refused, if that was it.
    #[must_use]
    pub fn refusal(&self) -> Option<&CudaError> {
        let source = match self {
            Self::Step { source, .. } => &**source,
            Self::Model(Error::Device(source)) => source,
            Self::Model(_) | Self::Bits { .. } | Self::Overrun { .. } => return None,
        };
        match source {
            DeviceError::Cuda(error) => Some(error),
            _ => None,
        }
    }
}

impl Rig {
    /// Compiles what `kernels` has for the device of `context`.
    ///
    /// # Errors
    ///
    /// What the driver answered, or what its compiler said to a kernel.
    pub fn new(context: &Context, kernels: &KernelSet) -> Result<Self, CudaError> {
        context.watch_launches();
        context.guard_memory();
        let kernels = kernels.clone().with_whole_families();
        let entries: BTreeSet<_> = kernels.texts().iter().map(|text| text.entry).collect();
        let modules =
            Modules::load(context, &kernels, &Vec::from_iter(entries), &AtomicUsize::new(0))?;
        Ok(Self { context: context.clone(), kernels, modules, launched: RefCell::default() })
    }

    /// The device, which runs operations one by one if that is `direct`, else as sessions do.
    fn backend(&self, direct: bool, head: HeadType) -> CudaBackend {
        CudaBackend {
            context: self.context.clone(),
            kernels: self.kernels.clone(),
            meter: None,
            context_bytes: 0,
            head,
            deterministic: false,
            direct,
            modules: Some(self.modules.clone()),
        }
    }

    /// Kernels that were compiled, and how long that took.
    #[must_use]
    pub fn compiled(&self) -> (usize, Duration) {
        (self.modules.entries().count(), self.modules.compiled_in)
    }

    /// Reads memory as fast as the device can, in bytes a second.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn read_bandwidth(&self) -> Result<f64, CudaError> {
        let bandwidth = self.backend(true, HeadType::Stored).read_bandwidth(BANDWIDTH_BYTES)?;
        self.note();
        Ok(bandwidth)
    }

    /// The kernels of the device that nothing has launched so far; without those of all layers that
    /// it is too small for, whatever the trial, and linears in whose place it has others.
    #[must_use]
    pub fn never_launched(&self) -> Vec<&'static str> {
        let launched = self.launched.borrow();
        let entries = self.modules.entries();
        entries.filter(|entry| !launched.contains(entry) && self.is_reachable(entry)).collect()
    }

    /// Whether a trial may lead to `entry` on this device.
    fn is_reachable(&self, entry: &str) -> bool {
        if LinearArgs::SPECS.iter().any(|spec| spec.entry == entry) {
            let target = linear_target(|entry| self.modules.target(entry));
            return launch::linear_entries(target).contains(&entry);
        }
        if is_replaced(entry, |entry| self.modules.target(entry)) {
            return false;
        }
        let leads = |trial: &Trial| {
            let config = trial.model.parse();
            config.is_ok_and(|config| layers::entry(&self.context, &config) == Some(entry))
        };
        DecodeLayersArgs::SPECS.iter().all(|spec| spec.entry != entry) || TRIALS.iter().any(leads)
    }

    /// Adds what was launched to what ever was, and returns it.
    fn note(&self) -> Vec<&'static str> {
        let launched = self.context.launched();
        self.launched.borrow_mut().extend(&launched);
        launched
    }

    /// Runs `trial`: its steps in lock step with the CPU, for both number types of the cache; then
    /// the ways to the same logits that have to lead to the same bits.
    ///
    /// # Errors
    ///
    /// [`TrialError`] of the first step that went wrong.
    pub fn run(&self, trial: &Trial) -> Result<Passed, TrialError> {
        let checkpoint =
            synth::in_memory(&trial.model, WeightLayout::Rows128, trial.seed(), &mut |_, _| {})?;
        let package = Package::from_checkpoint(checkpoint)?;
        let mut model = package.bind().map_err(Error::from)?;
        model.centre_keys(KvType::F16, &mut |_, _| {}).map_err(Error::from)?;
        let (direct, recorded) = (self.backend(true, trial.head), self.backend(false, trial.head));
        let cpu = CpuBackend::new(CpuBackend::default_threads(), Simd::detect());
        let cpu = cpu.map_err(Error::from)?.with_head(trial.head);
        let reference = cpu.upload(&model, &mut |_, _| {}).map_err(Error::from)?;
        let weights = direct.upload(&model, &mut |_, _| {}).map_err(|source| TrialError::Step {
            step: "upload".into(),
            kernels: self.note(),
            source: Box::new(source),
        })?;
        self.note();
        let mut passed = Passed { steps: 0, quantized: 0, worst: None };
        for kv in [KvType::F16, KvType::F32] {
            let steps = steps::lock_step(package.config.vocab, trial.is_wide());
            let limits = steps::limits(&steps, kv);
            let reference = cpu.ops(&reference, limits).map_err(Error::from)?;
            let candidate = direct.ops(&weights, limits).map_err(Error::from)?;
            let one = self.in_lock_step(&steps, reference, candidate, &weights, kv)?;
            passed.steps += one.steps;
            passed.quantized += one.quantized;
            let part = |worst: Option<(Operation, f32)>| worst.map_or(0.0, |(_, part)| part);
            if part(one.worst) > part(passed.worst) {
                passed.worst = one.worst;
            }
            self.ways(&direct, &recorded, &weights, kv)?;
        }
        Ok(passed)
    }

    fn in_lock_step(
        &self,
        steps: &[Vec<Row>],
        reference: CpuOps<'_>,
        candidate: CudaOps<'_>,
        weights: &CudaWeights,
        kv: KvType,
    ) -> Result<Passed, TrialError> {
        let config = &weights.config;
        let candidate = Watched { rig: self, ops: candidate };
        let exactly = policy(config.linears, Attends::Exactly);
        let mut both = LockStep::new(reference, candidate, exactly);
        let mut samplers = [Sampler::new(Sampling::GREEDY, 1), Sampler::new(SAMPLING, 1)];
        for (number, rows) in (1..).zip(steps) {
            let attends = weights.attends(&self.context, kv, CudaOps::is_batch(rows));
            both.judge_by(policy(config.linears, attends));
            let done = both.candidate_mut().ops.paint().and_then(|()| {
                forward(&mut both, config.layers, rows, &Cancel::default())?;
                samplers.iter_mut().try_for_each(|s| both.choose(0, s).map(|_| ()))?;
                Ok(self.context.overrun()?.or(both.candidate_mut().ops.overrun()?))
            });
            let kv = if kv == KvType::F16 { "halves" } else { "singles" };
            let step = || format!("step {number} of {} rows, cache of {kv}", rows.len());
            let overrun = done.map_err(|source| TrialError::Step {
                step: step(),
                kernels: self.note(),
                source: Box::new(source),
            })?;
            if let Some(overrun) = overrun {
                return Err(TrialError::Overrun { step: step(), overrun });
            }
            self.note();
        }
        Ok(Passed { steps: steps.len(), quantized: both.quantized(), worst: both.worst() })
    }

    /// Logits that must not depend on the way to them.
    fn ways(
        &self,
        direct_steps: &CudaBackend,
        recorded_steps: &CudaBackend,
        weights: &CudaWeights,
        kv: KvType,
    ) -> Result<(), TrialError> {
        let vocab = weights.config.vocab;
        let (prompts, batches) = (steps::prompts(vocab), steps::batches(vocab));
        let both: Vec<_> = prompts.iter().chain(&batches).cloned().collect();
        let direct = self.logits(direct_steps, weights, kv, &both)?;
        let recorded = self.logits(recorded_steps, weights, kv, &both)?;
        same_bits("recorded steps and direct ones", vocab, &direct, &recorded)?;

        let alone = batches.iter().flatten().map(|&row| vec![row]);
        let alone: Vec<_> = prompts.iter().cloned().chain(alone).collect();
        let alone = self.logits(recorded_steps, weights, kv, &alone)?;
        same_bits("a batch and its rows alone", vocab, &recorded, &alone)?;

        let [whole, chunks] = steps::chunked(vocab, 7);
        let whole = self.logits(direct_steps, weights, kv, &whole)?;
        let chunks = self.logits(direct_steps, weights, kv, &chunks)?;
        same_bits("a prompt at once and in chunks", vocab, &whole, &chunks)?;

        let [_, rows] = steps::chunked(vocab, 1);
        let deterministic = self.backend(true, direct_steps.head).with_deterministic(true);
        let rows = self.logits(&deterministic, weights, kv, &rows)?;
        same_bits("a prompt at once and row by row, deterministic", vocab, &whole, &rows)
    }

    /// Logits of all rows of `steps`, all of which ask, in a session of their own.
    fn logits(
        &self,
        backend: &CudaBackend,
        weights: &CudaWeights,
        kv: KvType,
        steps: &[Vec<Row>],
    ) -> Result<Vec<f32>, TrialError> {
        let mut ops = backend.ops(weights, steps::limits(steps, kv)).map_err(Error::from)?;
        self.note();
        let mut logits = Vec::new();
        for rows in steps {
            let done = forward(&mut ops, weights.config.layers, rows, &Cancel::default())
                .and_then(|_| ops.read(Buffer::Logits));
            logits.extend(done.map_err(|source| {
                let step = format!("a step of {} rows", rows.len());
                TrialError::Step { step, kernels: self.note(), source: Box::new(source) }
            })?);
            self.note();
        }
        let step = format!("{} steps", steps.len());
        match self.context.overrun().map_err(DeviceError::from).map_err(Error::from)? {
            None => Ok(logits),
            Some(overrun) => Err(TrialError::Overrun { step, overrun }),
        }
    }
}

fn same_bits(
    ways: &'static str,
    vocab: usize,
    expected: &[f32],
    got: &[f32],
) -> Result<(), TrialError> {
    assert_eq!(expected.len(), got.len(), "{ways}: logits of the same rows");
    let differs = |(expected, got): (&f32, &f32)| expected.to_bits() != got.to_bits();
    match expected.iter().zip(got).position(differs) {
        None => Ok(()),
        Some(at) => Err(TrialError::Bits {
            ways,
            row: at / vocab,
            index: at % vocab,
            expected: expected[at],
            got: got[at],
        }),
    }
}

impl CudaWeights {
    /// How the attention of a step is done.
    fn attends(&self, context: &Context, kv: KvType, batch: bool) -> Attends {
        let exactly = super::attention::is_exact(&self.config, kv)
            && !(batch && super::decode::attends(context, &self.modules, &self.config, kv));
        if exactly { Attends::Exactly } else { Attends::Nearly }
    }
}
