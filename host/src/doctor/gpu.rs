//! NVIDIA GPUs: the driver, every device, every kernel on every device, used as sessions use it.

use tercet_kernels_ptx::ptx::Ptx;

use super::{Area, Examiner, Finding, GpuReport, KernelReport, Outcome};
use crate::backend::cuda::driver::{Context, CudaError, Device, Driver, DriverVersion};
use crate::backend::cuda::kernels::{Hex, KernelSet, KernelText, Origin};
use crate::backend::cuda::trials::{Rig, TRIALS};

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
    let device_kernels = set.of_device(*capability);
    let mut context = None;
    examiner.check(Area::Cuda, format!("cuda:{number}"), || {
        if device_kernels.texts().is_empty() {
            let error = CudaError::DeviceTooOld { name: name.clone(), capability: *capability };
            return Finding { outcome: Outcome::Warning, ..refusal(&error) };
        }
        let made = Context::new(device).and_then(|context| Ok((context.memory()?, context)));
        match made {
            Ok((memory, made)) => {
                report.memory_free_bytes = Some(memory.free);
                context = Some(made);
                #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
                let gb = |bytes: u64| bytes as f64 / 1e9;
                let (free, total) = (gb(memory.free), gb(memory.total));
                Finding::ok(format!("{name}, {capability}: {free:.1} of {total:.1} GB free"))
            }
            Err(error) => refusal(&error),
        }
    });
    let Some(context) = context else { return report };
    report.usable = try_kernels(*number, &context, &device_kernels, examiner);
    report
}

/// Compiles every kernel, and lets models use them. Returns whether all is in order.
fn try_kernels(
    number: u32,
    context: &Context,
    kernels: &KernelSet,
    examiner: &mut Examiner<'_>,
) -> bool {
    let mut rig = None;
    examiner.check(Area::Cuda, format!("cuda:{number} modules"), || {
        match Rig::new(context, kernels) {
            Ok(made) => {
                let (count, time) = rig.insert(made).compiled();
                let seconds = time.as_secs_f64();
                Finding::ok(format!(
                    "{count} kernels, compiled or found compiled in {seconds:.1} s"
                ))
            }
            Err(error) => refusal(&error),
        }
    });
    let Some(rig) = rig else { return false };
    let mut usable = examiner.check(Area::Cuda, format!("cuda:{number} memory"), || {
        match rig.read_bandwidth() {
            Ok(bandwidth) => Finding::ok(format!("reads {:.2} TB/s", bandwidth / 1e12)),
            Err(error) => refusal(&error),
        }
    });
    for trial in TRIALS {
        let title = format!("cuda:{number} {}", trial.name());
        let passed = examiner.check(Area::Cuda, title, || match rig.run(trial) {
            Ok(passed) => Finding::ok(passed.to_string()),
            Err(error) => Finding {
                cuda_code: error.refusal().and_then(CudaError::code).map(|code| code.0),
                ..Finding::new(Outcome::Failed, error.to_string(), error.hint())
            },
        });
        usable &= passed;
        // Of a device that fails so, nothing more is to be learned.
        if !passed && context.synchronize().is_err() {
            return false;
        }
    }
    if usable {
        examiner.check(Area::Cuda, format!("cuda:{number} coverage"), || coverage(&rig));
    }
    usable
}

/// Whether the trials have reached every kernel.
fn coverage(rig: &Rig) -> Finding {
    let never = rig.never_launched();
    if never.is_empty() {
        return Finding::ok("every kernel for it was tried".into());
    }
    Finding::new(
        Outcome::Warning,
        format!("not reached by any trial: {}", never.join(", ")),
        "report this, with the GPU: its shape leads to other kernels than those that were foreseen",
    )
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
