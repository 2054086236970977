//! [`CudaError`]: what the driver would not do, in the driver's own words and in ours.

#![allow(unsafe_code, reason = "asks the driver for its version where cust would ask in a circle")]

use core::fmt;

use tercet_kernels_ptx::ptx::{ComputeCapability, Target};

use super::codes::Code;
use super::shim::{self, Failed, Why};

/// A version of CUDA, as the driver counts: 12040 is 12.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverVersion(pub u32);

impl DriverVersion {
    /// The oldest driver whose interface has every function that is called here, and that reads
    /// the kernels' PTX: CUDA 12.0, branch 525.
    pub const MIN: Self = Self(12000);

    /// The oldest driver that reads PTX of instruction set `major.minor`, 7.0 or newer: release
    /// 11.x of CUDA brought 7.x, 12.x brought 8.x, and 12.6 brought nothing (PTX ISA, "Release
    /// Notes").
    #[must_use]
    pub const fn for_ptx(major: u32, minor: u32) -> Self {
        let skipped = if major == 8 && minor >= 6 { 1 } else { 0 };
        Self((major + 4) * 1000 + (minor + skipped) * 10)
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// What to do about a driver that is too old.
const UPDATE: &str = "install or update the NVIDIA driver (525 or newer); `nvidia-smi` shows what \
                      there is; until then, --device cpu";

/// What to do about a call that was refused.
fn call_hint(call: &str, code: Code) -> &'static str {
    match code.0 {
        34 => "remove the toolkit's stubs folder from LD_LIBRARY_PATH",
        46 => "another program holds the GPU: `nvidia-smi` lists them",
        802 => "start nvidia-fabricmanager, or wait until the system is up",
        803 => "reboot, or reload the kernel module: the driver was updated meanwhile",
        36 | 804 => UPDATE,
        999 if call == "cuInit" => {
            "reload the kernel module nvidia_uvm, or reboot: a suspend can leave it so"
        }
        _ if code.is_sticky() => {
            "the GPU cannot be used further by this process; start it again, run `tercet doctor`, \
             and report it if it comes back"
        }
        _ => "run `tercet doctor`; report it with the line above if the GPU is in order",
    }
}

/// Why the CUDA driver could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no driver on this machine.
    #[error("there is no NVIDIA driver: {reason}")]
    NoDriver {
        /// The dynamic linker's reason.
        reason: String,
    },
    /// The driver is older than what is needed of it.
    #[error("the NVIDIA driver {}; CUDA {} or newer is needed", too_old(*driver, *symbol), DriverVersion::MIN)]
    DriverTooOld {
        /// What it speaks; `None` when it does not even say.
        driver: Option<DriverVersion>,
        /// A function that it does not have.
        symbol: Option<&'static str>,
    },
    /// There is a driver, but no device.
    #[error("the NVIDIA driver finds no GPU: {call} answered {code}")]
    NoDevice {
        /// The function that said so.
        call: &'static str,
        /// Its answer.
        code: Code,
    },
    /// There are devices, but not this one.
    #[error("there is no GPU {number}: this machine has {count}, counted from 0")]
    NoSuchDevice {
        /// The number asked for.
        number: usize,
        /// Devices there are.
        count: usize,
    },
    /// The device is older than every kernel.
    #[error("{name} has compute capability {capability}; no kernel runs below {}", Target::SM_80.capability)]
    DeviceTooOld {
        /// The device.
        name: String,
        /// Its compute capability.
        capability: ComputeCapability,
    },
    /// The driver would not compile a kernel.
    #[error("the driver refused kernel `{kernel}`: {code}{}", in_words(log))]
    Ptx {
        /// Name of the kernel's module.
        kernel: String,
        /// Its answer.
        code: Code,
        /// What its compiler said; may be empty.
        log: String,
    },
    /// The kernel is of an instruction set that the driver does not know yet.
    #[error(
        "kernel `{kernel}` is PTX {ptx}, which needs a driver of CUDA {needed} or newer; this one \
         speaks CUDA {driver} ({code})"
    )]
    PtxTooNew {
        /// Name of the kernel's module.
        kernel: String,
        /// The version that the PTX states.
        ptx: String,
        /// The driver it needs.
        needed: DriverVersion,
        /// The driver there is.
        driver: DriverVersion,
        /// The driver's answer.
        code: Code,
    },
    /// The device's memory is full. The process can go on, with less.
    #[error(
        "{what} takes {:.2} GB of GPU memory, {:.2} of {:.2} GB are free ({} answered {})",
        gb(*needed), gb(*free), gb(*total), call, Code::OUT_OF_MEMORY
    )]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size in bytes.
        needed: u64,
        /// Bytes of the device that were free.
        free: u64,
        /// Bytes of the device.
        total: u64,
        /// The function that was refused.
        call: &'static str,
    },
    /// No kernel of that name runs on the device.
    #[error("kernel `{entry}` is not there for this device")]
    NoKernel {
        /// Name of the kernel.
        entry: &'static str,
    },
    /// Any other call that did not succeed.
    #[error("CUDA call {call} answered {code}")]
    Call {
        /// The function.
        call: &'static str,
        /// Its answer.
        code: Code,
    },
}

impl CudaError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoDriver { .. } => {
                "install the NVIDIA driver (525 or newer) if this machine has an NVIDIA GPU; in a \
                 container, start it with GPU access (--gpus all); else use --device cpu"
            }
            Self::DriverTooOld { .. } | Self::PtxTooNew { .. } => UPDATE,
            Self::NoDevice { .. } => {
                "check CUDA_VISIBLE_DEVICES and `nvidia-smi`; in a container, start it with GPU \
                 access; else use --device cpu"
            }
            Self::NoSuchDevice { .. } => "`tercet doctor` lists the devices there are",
            Self::DeviceTooOld { .. } => "use --device cpu: this GPU is older than every kernel",
            Self::Ptx { .. } => {
                "`tercet doctor` tries every kernel; update the driver, or leave --trust-kernels \
                 out if it was given"
            }
            Self::OutOfMemory { .. } => {
                "choose a shorter context (--ctx) or a smaller cache (--kv f16), or end other \
                 programs that use the GPU (`nvidia-smi` lists them)"
            }
            Self::NoKernel { .. } => {
                "leave --trust-kernels out if it was given: the model's file may lack kernels; else use \
                 --device cpu: kernels need compute capability 8.0 (Ampere) or later"
            }
            Self::Call { call, code } => call_hint(call, *code),
        }
    }

    /// Whether every later call of this process fails as well.
    #[must_use]
    pub fn is_sticky(&self) -> bool {
        // Nothing of ours has run before `cuInit`.
        matches!(self, Self::Call { call, code } if code.is_sticky() && *call != "cuInit")
    }

    /// Whether there simply is no NVIDIA GPU here to speak of: nothing that is broken.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            // A library that is there and cannot be loaded is broken, and has another reason.
            Self::NoDriver { reason } => {
                reason.starts_with("libcuda.so.1") && reason.contains("No such file")
            }
            Self::NoDevice { code, .. } => *code == Code::NO_DEVICE,
            _ => false,
        }
    }

    /// The driver's code, where a call was made and refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::NoDevice { code, .. }
            | Self::Ptx { code, .. }
            | Self::PtxTooNew { code, .. }
            | Self::Call { code, .. } => Some(*code),
            Self::OutOfMemory { .. } => Some(Code::OUT_OF_MEMORY),
            _ => None,
        }
    }
}

fn too_old(driver: Option<DriverVersion>, symbol: Option<&'static str>) -> String {
    let speaks = driver.map(|driver| format!("speaks CUDA {driver}"));
    let lacks = symbol.map(|symbol| format!("has no {symbol}"));
    speaks.into_iter().chain(lacks).collect::<Vec<_>>().join(" and ")
}

fn in_words(log: &str) -> String {
    let line = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    if line.is_empty() { String::new() } else { format!(": {}", line.join("; ")) }
}

/// Billions of bytes, to show.
#[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// The error of the call that just failed on this thread.
///
/// `otherwise` is for a failure that no trampoline saw, which only `cust` itself can make.
fn latest(otherwise: cust::error::CudaError) -> CudaError {
    match shim::last() {
        Some(failed) => from_failed(failed),
        None => CudaError::Call { call: "cust", code: Code(otherwise as u32) },
    }
}

fn from_failed(Failed { call, why }: Failed) -> CudaError {
    match why {
        Why::NoLibrary => {
            CudaError::NoDriver { reason: shim::no_library().unwrap_or("it went away").into() }
        }
        Why::NoFunction => {
            // Not through `cust`: were it this very function, it would be asked for ever.
            let mut version = 0_i32;
            // SAFETY: `version` is the `int` that the driver writes.
            let answer = unsafe { shim::cuDriverGetVersion((&raw mut version).cast()) };
            let driver = u32::try_from(version).ok().filter(|_| answer == 0).map(DriverVersion);
            CudaError::DriverTooOld { driver, symbol: Some(call) }
        }
        Why::Code(code) => match Code(code) {
            code @ Code::NO_DEVICE => CudaError::NoDevice { call, code },
            code => CudaError::Call { call, code },
        },
    }
}

/// Runs calls of `cust` and names the one that failed, with its true code.
pub(super) fn checked<T>(
    calls: impl FnOnce() -> cust::error::CudaResult<T>,
) -> Result<T, CudaError> {
    let _ = shim::last(); // what a destructor left there is nobody's business
    calls().map_err(latest)
}

/// The answer of a function of the shim.
pub(super) fn done(answer: u32) -> Result<(), CudaError> {
    match answer {
        0 => Ok(()),
        _ => Err(latest(cust::error::CudaError::UnknownError)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_the_driver_means_them() {
        assert_eq!(DriverVersion(12040).to_string(), "12.4");
        assert_eq!(DriverVersion(13000).to_string(), "13.0");
        // The table of NVIDIA's PTX ISA, release notes.
        let table = [(7, 0, 11000), (7, 8, 11080), (8, 0, 12000), (8, 4, 12040), (8, 7, 12080)];
        for (major, minor, driver) in table.into_iter().chain([(9, 0, 13000), (9, 1, 13010)]) {
            assert_eq!(DriverVersion::for_ptx(major, minor), DriverVersion(driver));
        }
    }

    #[test]
    fn raw_codes_reach_the_user() {
        let failed = Failed { call: "cuModuleLoadDataEx", why: Why::Code(919) };
        let error = from_failed(failed);
        assert!(error.to_string().contains("919"), "{error}");
        assert_eq!(error.code(), Some(Code(919)));
    }

    #[test]
    fn refused_kernels_say_what_the_compiler_said() {
        let error = CudaError::Ptx {
            kernel: "linear".into(),
            code: Code::INVALID_PTX,
            log: "ptxas application ptx input, line 9; fatal\n\n  second line\n".into(),
        };
        let said = error.to_string();
        assert!(said.contains("linear") && said.contains("218"), "{said}");
        assert!(said.ends_with("line 9; fatal; second line"), "{said}");
    }
}
