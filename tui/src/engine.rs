//! From the command line's options to a session that answers.

use core::hash::{BuildHasher, Hasher};
use core::time::Duration;
use std::hash::RandomState;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tercet_host::backend::cpu::{CpuBackend, Simd};
use tercet_host::backend::cuda::driver::Device;
use tercet_host::backend::cuda::kernels::KernelSet;
use tercet_host::backend::cuda::{CudaBackend, GpuMeter};
use tercet_host::backend::{AnyOps, Backend, DeviceError, HeadType, KvType, Limits, OpsBytes};
use tercet_host::error::Error;
use tercet_host::measure::machine;
use tercet_host::measure::memory::Held;
use tercet_host::package::{Package, Source};
use tercet_host::sampler::Sampling;
use tercet_host::session::Session;
use tercet_host::text::{BuiltinForm, Renderer};

use crate::args::{ChatForm, DeviceArgs, Head, Kv, ModelArg, SamplingArgs};
use crate::builtin;
use crate::chat::record::{DeviceId, DeviceKind};
use crate::clean::OneLine;
use crate::device::{self, Chosen, Why};
use crate::failure::{Failure, note};

/// Longest context that is taken unasked: the cache of a model trained for 32,768 positions would
/// surprise.
const DEFAULT_CONTEXT: usize = 4096;

/// Rows of a prefill step on a GPU: where its tensor cores are busy, and buffers are still small.
pub const GPU_PREFILL_ROWS: usize = 1024;

/// Where the model named on the command line is.
#[must_use]
pub fn source(model: &ModelArg) -> Source {
    match &model.model {
        Some(path) => Source::Path(path.clone()),
        None => builtin::source(),
    }
}

/// Opens a model.
///
/// # Errors
///
/// As [`Package::open`].
pub fn open(model: &ModelArg) -> Result<Package, Failure> {
    Ok(Package::open(&source(model))?)
}

/// Opens a model to talk to, with the chat form that was asked for.
///
/// # Errors
///
/// As [`Package::open`]; [`Failure`] for a form whose tokens the model does not have.
pub fn open_to_chat(model: &ModelArg, form: ChatForm) -> Result<Package, Failure> {
    let mut package = open(model)?;
    let form = match form {
        ChatForm::Auto => return Ok(package),
        ChatForm::None => None,
        ChatForm::Vicuna => Some(BuiltinForm::Vicuna),
        ChatForm::Bitnet => Some(BuiltinForm::BitNet),
    };
    package.use_form(form).map_err(Error::from)?;
    Ok(package)
}

/// What to say about the chat form, in a sentence without a full stop, where it is neither the
/// model's own nor what was asked for.
#[must_use]
pub fn form_notice(package: &Package, asked: ChatForm) -> Option<String> {
    match &package.chat {
        _ if asked != ChatForm::Auto => None,
        None => Some("no chat template: messages are continued as text".into()),
        Some(chat) => {
            let name = chat.form()?.name();
            Some(format!("no chat template: using the built-in form for {name}"))
        }
    }
}

/// The context of a session: what was asked for, held against what the model can do.
///
/// # Errors
///
/// [`Failure::Usage`] for more positions than the model was trained for.
pub fn context(package: &Package, asked: Option<u32>) -> Result<usize, Failure> {
    let max = package.config.positions_max;
    match asked {
        None => Ok(max.min(DEFAULT_CONTEXT)),
        Some(asked) if asked as usize <= max => Ok(asked as usize),
        Some(asked) => Err(Failure::Usage {
            what: format!("--ctx {asked} is more than the {max} positions the model was made for"),
            hint: "beyond them its answers are noise; give a smaller --ctx",
        }),
    }
}

/// How a session is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// One row of logits at a time.
    Answer,
    /// Logits of every token.
    Evaluate,
}

/// A session on whichever device was chosen.
pub type AnySession<'w> = Session<AnyOps<'w>>;

/// Hears what happens until there is a session.
pub trait Watch {
    /// A line about the program, without a line end.
    fn note(&self, line: &str);

    /// `done` of `total` bytes of the model are where they are needed; equal at the end.
    fn loading(&self, done: u64, total: u64);
}

/// Notes and a bar on stderr, as headless commands give them.
#[derive(Debug)]
pub struct OnStderr {
    quiet: bool,
    progress: Progress,
}

impl OnStderr {
    /// Nothing at all with `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { quiet, progress: Progress::new("loading", quiet) }
    }
}

impl Watch for OnStderr {
    fn note(&self, line: &str) {
        if !self.quiet {
            note(format_args!("tercet: note: {}", OneLine(line)));
        }
    }

    fn loading(&self, done: u64, total: u64) {
        self.progress.show(done, total);
        if done == total {
            self.progress.done();
        }
    }
}

/// Where a session computes, for people and their panel.
#[derive(Debug, Clone)]
pub struct Place {
    /// The device as a session file names it.
    pub device: DeviceId,
    /// Why it is this one.
    pub why: Why,
    /// What the session holds there.
    pub held: Held,
    /// What looks at its memory; `None` for the CPU.
    pub meter: Option<GpuMeter>,
}

/// Chooses the device, uploads the model, makes a session and hands it to `work`; notes and
/// progress go to stderr.
///
/// # Errors
///
/// [`Failure`] of any stage, and of `work`.
pub fn with_session<R: Send>(
    package: &Package,
    args: &DeviceArgs,
    context: usize,
    purpose: Use,
    work: impl FnOnce(&mut AnySession<'_>) -> Result<R, Failure> + Send,
) -> Result<R, Failure> {
    let watch = OnStderr::new(args.quiet);
    with_watched_session(package, args, (context, purpose), &watch, |session, _| work(session))
}

/// The same for those who watch; `work` is told where it computes.
///
/// # Errors
///
/// [`Failure`] of any stage, and of `work`.
pub fn with_watched_session<R: Send>(
    package: &Package,
    args: &DeviceArgs,
    (context, purpose): (usize, Use),
    watch: &dyn Watch,
    work: impl FnOnce(&mut AnySession<'_>, Place) -> Result<R, Failure> + Send,
) -> Result<R, Failure> {
    let choice = device::choose(args)?;
    if let Some(note) = choice.note() {
        watch.note(&note);
    }
    let place = |device, held, meter| Place { device, why: choice.why, held, meter };
    match choice.device {
        Chosen::Cpu => {
            let backend = cpu(args)?;
            let limits = limits(args, context, purpose, prefill_rows(&backend, package));
            on_device(&backend, package, limits, watch, |session, held| {
                let place = place(cpu_id(&backend), held, None);
                // On a thread of the pool, which other threads would first have to wake.
                backend.run(|| work(session, place))
            })
        }
        Chosen::Cuda(device) => {
            let backend = gpu(&device, package, args, watch)?;
            let limits = limits(args, context, purpose, GPU_PREFILL_ROWS);
            on_device(&backend, package, limits, watch, |session, held| {
                work(session, place(gpu_id(&device), held, backend.meter()))
            })
        }
    }
}

fn cpu_id(backend: &CpuBackend) -> DeviceId {
    DeviceId {
        kind: DeviceKind::Cpu,
        name: machine::cpu_name().unwrap_or_else(|| "CPU".into()),
        simd: Some(backend.simd().to_string()),
        threads: Some(backend.threads()),
    }
}

fn gpu_id(device: &Device) -> DeviceId {
    let name = device.name.clone();
    DeviceId { kind: DeviceKind::Cuda, name, simd: None, threads: None }
}

/// The GPU backend that the options ask for, with the kernels of the model's file if they may be
/// used; tells `watch` if they may not.
///
/// # Errors
///
/// [`Failure`] when the device cannot be had.
pub fn gpu(
    device: &Device,
    package: &Package,
    args: &DeviceArgs,
    watch: &dyn Watch,
) -> Result<CudaBackend, Failure> {
    let kernels = KernelSet::of(&package.checkpoint, args.trust_kernels);
    if let Some(refusal) = kernels.refusal() {
        let hint = refusal.hint();
        watch.note(&format!("the model's own kernels are not used: {refusal}; {hint}"));
    }
    let backend = CudaBackend::new(device, kernels).map_err(DeviceError::from)?;
    Ok(backend.with_head(head_type(args.head)).with_deterministic(args.deterministic))
}

/// What a session may use.
fn limits(args: &DeviceArgs, context: usize, purpose: Use, rows_max: usize) -> Limits {
    let rows_max = rows_max.min(context);
    Limits {
        slots: 1,
        positions_max: context,
        rows_max,
        logits_max: if purpose == Use::Evaluate { rows_max } else { 1 },
        kv: kv_type(args.kv),
    }
}

fn on_device<B, R>(
    backend: &B,
    package: &Package,
    limits: Limits,
    watch: &dyn Watch,
    work: impl FnOnce(&mut AnySession<'_>, Held) -> Result<R, Failure>,
) -> Result<R, Failure>
where
    B: Backend,
    for<'w> B::Ops<'w>: Send,
{
    let mut model = package.bind()?;
    model.centre_keys(limits.kv, &mut |done, total| watch.loading(done, total))?;
    let weights = backend.upload(&model, &mut |done, total| watch.loading(done, total))?;
    let ops: AnyOps<'_> = Box::new(backend.ops(&weights, limits)?);
    let mut session = Session::new(ops, &package.config, limits);
    let OpsBytes { cache, work: buffers } = session.bytes();
    let held = Held { weights: backend.weights_bytes(&weights), cache, work: buffers };
    work(&mut session, held)
}

/// Rows of a prefill step, unless the user says otherwise: every thread multiplies a whole tile.
#[must_use]
pub fn prefill_rows(backend: &CpuBackend, package: &Package) -> usize {
    let layout = package.checkpoint.layout().unwrap_or_default();
    (backend.tile_rows(layout) * backend.threads()).max(64)
}

/// The host's name for how the head is held.
fn head_type(head: Head) -> HeadType {
    match head {
        Head::Stored => HeadType::Stored,
        Head::Int8 => HeadType::Int8,
    }
}

/// The host's name for the cache's number type.
#[must_use]
pub fn kv_type(kv: Kv) -> KvType {
    match kv {
        Kv::F32 => KvType::F32,
        Kv::F16 => KvType::F16,
    }
}

/// The CPU backend that the options ask for.
///
/// # Errors
///
/// [`Failure`] for an unknown SIMD level, and when there are no threads.
pub fn cpu(args: &DeviceArgs) -> Result<CpuBackend, Failure> {
    let simd = match &args.simd {
        None => Simd::detect(),
        Some(name) => Simd::by_name(name).map_err(|error| Failure::Usage {
            what: format!("--simd {name}: {error}"),
            hint: "leave --simd out to use the best level this CPU has",
        })?,
    };
    let threads = args.threads.map_or_else(CpuBackend::default_threads, usize::from);
    Ok(CpuBackend::new(threads, simd)?.with_head(head_type(args.head)))
}

/// The model's sampling with what the command line changes.
#[must_use]
pub fn sampling(package: &Package, args: &SamplingArgs) -> Sampling {
    let base = if args.greedy { Sampling::GREEDY } else { package.sampling };
    Sampling {
        repetition_penalty: args.repetition_penalty.unwrap_or(base.repetition_penalty),
        temperature: args.temp.unwrap_or(base.temperature),
        top_k: args.top_k.unwrap_or(base.top_k),
        // 0 keeps one token, as the smallest share does.
        top_p: args.top_p.unwrap_or(base.top_p).max(f32::MIN_POSITIVE),
        min_p: args.min_p.unwrap_or(base.min_p),
    }
}

/// The seed asked for, or one that nobody can guess.
#[must_use]
pub fn seed(args: &SamplingArgs) -> u64 {
    // Shown to the user and typed again: 32 bits are enough.
    args.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32)
}

/// Where chat templates of unknown models run: this program, in a process of its own.
#[must_use]
pub fn renderer() -> Renderer {
    match std::env::current_exe() {
        Ok(program) => Renderer::Child { program, args: vec!["__render".into()] },
        // Without a path to ourselves: fuel still bounds the time.
        Err(_) => Renderer::InProcess,
    }
}

/// A bar on stderr, on a terminal, for what takes longer than a moment.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar called `what`.
    #[must_use]
    pub fn new(what: &'static str, quiet: bool) -> Self {
        let hidden = quiet || !std::io::stderr().is_terminal();
        let target =
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target).with_message(what);
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {bar:30} {percent:>3} % {elapsed} (left: {eta})")
        {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Shows `done` of `total`.
    pub fn show(&self, done: u64, total: u64) {
        // Most models are there at once: no flash of a bar.
        if self.0.elapsed() > Duration::from_millis(300) {
            self.0.set_length(total);
            self.0.set_position(done);
        }
    }

    /// Removes the bar.
    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    /// Where work ended early.
    fn drop(&mut self) {
        self.done();
    }
}
