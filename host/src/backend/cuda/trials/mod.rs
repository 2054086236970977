//! Trials: every kernel by itself, on a device, beside what defines it.
//!
//! `TRIALS` has a line for every kernel of [`tercet_kernels_ptx::kernels`]; a new kernel gets
//! one, with its trial.

mod ternary_gemm;

use super::driver::{Context, CudaError, Module, Stream};

/// Where trials run.
#[derive(Debug)]
pub struct Rig {
    context: Context,
    stream: Stream,
}

impl Rig {
    /// A stream on `context`.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn new(context: Context) -> Result<Self, CudaError> {
        let stream = Stream::new(&context)?;
        Ok(Self { context, stream })
    }
}

/// Why a kernel did not pass.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It could not be run.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// It computed something else than its reference.
    #[error("{case}: element {index} is {got}, the reference says {expected}")]
    Wrong {
        /// Shape of the case.
        case: String,
        /// Position in the output.
        index: usize,
        /// Value of the reference.
        expected: i64,
        /// Value of the kernel.
        got: i64,
    },
    /// It wrote where it has no business.
    #[error("{case}: memory {side} the output was written to")]
    Guard {
        /// Shape of the case.
        case: String,
        /// `before` or `after`.
        side: &'static str,
    },
    /// Nothing to compare it with.
    #[error("kernel `{entry}` has no trial")]
    NoTrial {
        /// The kernel.
        entry: &'static str,
    },
}

impl TrialError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Cuda(error) => error.hint(),
            Self::Wrong { .. } | Self::Guard { .. } => {
                "use --device cpu, and report this with the GPU and the driver's version: answers \
                 of this GPU would be wrong"
            }
            Self::NoTrial { .. } => "report this: a kernel was released untested",
        }
    }
}

/// Runs a kernel of a loaded module on several inputs and compares; returns how many.
type Trial = fn(&Rig, &Module) -> Result<usize, TrialError>;

/// Kernel and trial.
const TRIALS: &[(&str, Trial)] = &[("ternary_gemm", ternary_gemm::trial)];

/// Runs the trial of kernel `entry`, which `module` holds. Returns the number of cases, all of
/// them equal.
///
/// # Errors
///
/// [`TrialError`] of the first case that failed.
pub fn run(rig: &Rig, entry: &'static str, module: &Module) -> Result<usize, TrialError> {
    let (_, trial) =
        TRIALS.iter().find(|(name, _)| *name == entry).ok_or(TrialError::NoTrial { entry })?;
    trial(rig, module)
}

#[cfg(test)]
mod tests {
    use tercet_kernels_ptx::kernels;

    use super::*;

    #[test]
    fn every_kernel_has_a_trial() {
        for kernel in kernels() {
            let entry = kernel.spec.entry;
            assert!(TRIALS.iter().any(|(name, _)| *name == entry), "no trial of `{entry}`");
        }
    }
}
