//! NVIDIA GPUs: the driver, every device, every kernel on every device.

use tercet_kernels_ptx::ptx::Ptx;

use super::{Area, Examiner, Finding, GpuReport, KernelReport, Outcome};
use crate::backend::cuda::driver::{Context, CudaError, Device, Driver, DriverVersion, Module};
use crate::backend::cuda::kernels::{Hex, KernelSet, KernelText, Origin};
use crate::backend::cuda::trials::{self, Rig, TrialError};

/// What there is.
pub(super) struct Gpus {
    pub(super) driver: Option<DriverVersion>,
    pub(super) devices: Vec<GpuReport>,
}

pub(super) fn examine(set: &KernelSet, examiner: &mut Examiner<'_>) -> Gpus {
    let mut found = None;
    examiner.check(Area::Cuda, "driver".into(), || match open() {
        Ok((driver, devices)) => {
            let says = format!("CUDA {}, {} GPU(s)", driver.version(), devices.len());
            found = Some((driver, devices));
            Finding::ok(says)
        }
        Err(error) if error.is_absence() => Finding { outcome: Outcome::Absent, ..refusal(&error) },
        Err(error) => refusal(&error),
    });
    let Some((driver, devices)) = found else { return Gpus { driver: None, devices: Vec::new() } };
    let mut reports: Vec<_> =
        devices.iter().map(|device| examine_device(device, set, examiner)).collect();
    if !reports.iter().any(|gpu| gpu.usable) && !broken(examiner) {
        // All of them too old: nothing is broken, and nothing can be used.
        let says = "none of the GPUs can be used".to_owned();
        examiner.check(Area::Cuda, "result".into(), || {
            Finding::new(Outcome::Failed, says, "use --device cpu: that is what `auto` does here")
        });
    }
    reports.sort_by_key(|gpu| gpu.number);
    Gpus { driver: Some(driver.version()), devices: reports }
}

fn broken(examiner: &Examiner<'_>) -> bool {
    let failed =
        |check: &super::Check| check.area == Area::Cuda && check.outcome == Outcome::Failed;
    examiner.checks.iter().any(failed)
}

fn open() -> Result<(Driver, Vec<Device>), CudaError> {
    let driver = Driver::open()?;
    let devices = driver.devices()?;
    Ok((driver, devices))
}

fn refusal(error: &CudaError) -> Finding {
    Finding {
        outcome: Outcome::Failed,
        says: error.to_string(),
        hint: Some(error.hint()),
        cuda_code: error.code().map(|code| code.0),
    }
}

fn examine_device(device: &Device, set: &KernelSet, examiner: &mut Examiner<'_>) -> GpuReport {
    let mut report = GpuReport {
        number: device.number,
        name: device.name.clone(),
        bus: device.bus.clone(),
        compute_capability: device.capability.to_string(),
        memory_bytes: device.memory,
        memory_free_bytes: None,
        multiprocessors: device.multiprocessors,
        l2_bytes: device.l2_bytes,
        usable: false,
    };
    let Device { number, name, capability, .. } = device;
    let kernels = || set.texts().iter().filter(|kernel| kernel.target.runs_on(*capability));
    let mut rig = None;
    examiner.check(Area::Cuda, format!("cuda:{number}"), || {
        if kernels().next().is_none() {
            let error = CudaError::DeviceTooOld { name: name.clone(), capability: *capability };
            return Finding { outcome: Outcome::Warning, ..refusal(&error) };
        }
        let made = Context::new(device).and_then(|context| {
            let memory = context.memory()?;
            Ok((memory, Rig::new(context.clone())?, context))
        });
        match made {
            Ok((memory, made, context)) => {
                report.memory_free_bytes = Some(memory.free);
                rig = Some((made, context));
                #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
                let gb = |bytes: u64| bytes as f64 / 1e9;
                let (free, total) = (gb(memory.free), gb(memory.total));
                Finding::ok(format!("{name}, {capability}: {free:.1} of {total:.1} GB free"))
            }
            Err(error) => refusal(&error),
        }
    });
    let Some((rig, context)) = rig else { return report };
    report.usable = true;
    for kernel in kernels() {
        let title = format!("cuda:{number} {}", kernel.name);
        report.usable &=
            examiner.check(Area::Cuda, title, || examine_kernel(&rig, &context, kernel));
    }
    report
}

/// Compiles a kernel, runs it, compares.
fn examine_kernel(rig: &Rig, context: &Context, kernel: &KernelText) -> Finding {
    let tried = Module::load(context, &kernel.name, kernel.ptx())
        .map_err(TrialError::from)
        .and_then(|module| trials::run(rig, kernel.entry, &module));
    match tried {
        Ok(cases) => Finding::ok(format!("{cases} shapes equal the reference")),
        Err(TrialError::Cuda(error)) => refusal(&error),
        Err(error) => Finding::new(Outcome::Failed, error.to_string(), error.hint()),
    }
}

/// What the kernels are.
pub(super) fn reports(set: &KernelSet) -> Vec<KernelReport> {
    let origin = match set.origin() {
        Origin::Program => "program",
        Origin::Released | Origin::Trusted => "file",
    };
    let report = |kernel: &KernelText| {
        let version = Ptx::parse(kernel.ptx()).ok()?.version();
        Some(KernelReport {
            name: kernel.name.clone(),
            origin,
            sha256: Hex(kernel.sha256).to_string(),
            ptx_version: version.to_string(),
            cuda_needed: DriverVersion::for_ptx(version.major, version.minor).to_string(),
        })
    };
    set.texts().iter().filter_map(report).collect()
}
