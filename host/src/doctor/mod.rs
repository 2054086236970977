//! What works on this machine: every device is tried by doing with it what a session would do.
//!
//! A list of properties would not find a driver that compiles a kernel wrongly; running the kernel
//! beside its reference does. So each [`Check`] did something, and says what came of it.

mod cpu;
mod gpu;

use std::time::Instant;

use serde::Serialize;

use crate::backend::cuda::kernels::KernelSet;
use crate::package::Package;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It works.
    Ok,
    /// There is nothing to check, and nothing is broken.
    Absent,
    /// It works, but somebody should know this.
    Warning,
    /// It does not work.
    Failed,
}

/// The part of the machine a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The CPU path.
    Cpu,
    /// NVIDIA's driver, devices and kernels.
    Cuda,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What part it belongs to.
    pub area: Area,
    /// What was tried: `avx2`, `driver`, `cuda:0 modules`.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What came of it, in one sentence.
    pub says: String,
    /// What the user can do; only where something is wrong.
    pub hint: Option<&'static str>,
    /// The driver's code, where it refused.
    pub cuda_code: Option<u32>,
    /// How long it took.
    pub milliseconds: f64,
}

/// A GPU as `doctor` reports it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuReport {
    /// Its number, as in `--device cuda:N`.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its place on the bus.
    pub bus: String,
    /// Its compute capability.
    pub compute_capability: String,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes that were free when it was looked at, with our context on it.
    pub memory_free_bytes: Option<u64>,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of its second-level cache.
    pub l2_bytes: u32,
    /// Whether all that was tried on it worked.
    pub usable: bool,
}

/// A kernel that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelReport {
    /// Entry and least GPU: `embed.sm_80`.
    pub name: String,
    /// `program`, or `file`.
    pub origin: &'static str,
    /// SHA-256 of its PTX.
    pub sha256: String,
    /// The instruction set it is written in.
    pub ptx_version: String,
    /// The oldest driver that reads it, as a version of CUDA.
    pub cuda_needed: String,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of this program.
    pub version: &'static str,
    /// The version of CUDA that the driver speaks.
    pub cuda_driver: Option<String>,
    /// The GPUs.
    pub gpus: Vec<GpuReport>,
    /// The kernels.
    pub kernels: Vec<KernelReport>,
    /// Whether answers can be computed on the CPU.
    pub cpu_usable: bool,
    /// Whether at least one GPU passed everything.
    pub cuda_usable: bool,
    /// In the order in which they were tried.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether something that is there does not work.
    #[must_use]
    pub fn is_broken(&self, area: Area) -> bool {
        let failed = |check: &Check| check.area == area && check.outcome == Outcome::Failed;
        self.checks.iter().any(failed)
    }
}

/// Tries everything: lets the small model `package` answer, and has models use every kernel of
/// `kernels`. `tell` hears every check when it is done.
pub fn examine(package: &Package, kernels: &KernelSet, tell: &mut dyn FnMut(&Check)) -> Report {
    let mut examiner = Examiner { checks: Vec::new(), tell };
    cpu::examine(package, &mut examiner);
    if let Some(refusal) = kernels.refusal() {
        examiner.check(Area::Cuda, "kernels".into(), || {
            let says = format!("those of the file are not used: {refusal}");
            Finding::new(Outcome::Warning, says, refusal.hint())
        });
    }
    let gpus = gpu::examine(kernels, &mut examiner);
    let checks = examiner.checks;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        cuda_driver: gpus.driver.map(|version| version.to_string()),
        cuda_usable: gpus.devices.iter().any(|gpu| gpu.usable),
        gpus: gpus.devices,
        kernels: gpu::reports(kernels),
        cpu_usable: false,
        checks,
    };
    report.cpu_usable = !report.is_broken(Area::Cpu);
    report
}

/// Collects checks and tells of them.
struct Examiner<'t> {
    checks: Vec<Check>,
    tell: &'t mut dyn FnMut(&Check),
}

/// What a check found, before it has a name.
struct Finding {
    outcome: Outcome,
    says: String,
    hint: Option<&'static str>,
    cuda_code: Option<u32>,
}

impl Finding {
    fn ok(says: String) -> Self {
        Self { outcome: Outcome::Ok, says, hint: None, cuda_code: None }
    }

    fn new(outcome: Outcome, says: String, hint: &'static str) -> Self {
        Self { outcome, says, hint: Some(hint), cuda_code: None }
    }
}

impl Examiner<'_> {
    /// Makes a check of what `work` finds. Returns whether it is in order.
    fn check(&mut self, area: Area, name: String, work: impl FnOnce() -> Finding) -> bool {
        let start = Instant::now();
        let Finding { outcome, says, hint, cuda_code } = work();
        let milliseconds = (start.elapsed().as_secs_f64() * 1e4).round() / 10.0;
        let check = Check { area, name, outcome, says, hint, cuda_code, milliseconds };
        (self.tell)(&check);
        self.checks.push(check);
        matches!(outcome, Outcome::Ok | Outcome::Warning)
    }
}
