//! `--device`: which device computes, and a word when it is not the one that was hoped for.

use core::fmt;

use tercet_host::backend::DeviceError;
use tercet_host::backend::cuda::driver::{CudaError, Device as CudaDevice, usable};
use tercet_host::error::Error;

use crate::args::{Device, DeviceArgs};
use crate::failure::Failure;

/// The device that computes.
#[derive(Debug, Clone)]
pub enum Chosen {
    /// The CPU.
    Cpu,
    /// A GPU.
    Cuda(CudaDevice),
}

/// Why a device was chosen. Shown, it is half a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// `--device` names it.
    Asked,
    /// The best there is.
    Best,
    /// There is no GPU.
    NoGpu,
    /// There is a GPU or a driver that cannot be used.
    Fallback {
        /// What is in the way.
        reason: String,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("as asked"),
            Self::Best => f.write_str("the best there is"),
            Self::NoGpu => f.write_str("no NVIDIA GPU here"),
            Self::Fallback { reason } => f.write_str(reason),
        }
    }
}

/// The device and the reason.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The device.
    pub device: Chosen,
    /// Why it is this one.
    pub why: Why,
}

impl Choice {
    /// What the user should know unasked: that a GPU is there and is not used.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let Why::Fallback { reason } = &self.why else { return None };
        Some(format!("computing on the CPU: {reason} (`tercet doctor` says more)"))
    }
}

/// Follows `--device`.
///
/// `cuda` is taken at its word: what is in the way is an error. `auto` goes on with the CPU.
///
/// # Errors
///
/// [`Failure`] when the device that was asked for cannot be used.
pub fn choose(args: &DeviceArgs) -> Result<Choice, Failure> {
    let asked = |device| Choice { device, why: Why::Asked };
    match args.device {
        Device::Cpu => Ok(asked(Chosen::Cpu)),
        Device::Cuda(number) => cuda(Some(number)).map(asked),
        Device::Auto => Ok(match cuda(None) {
            Ok(device) => Choice { device, why: Why::Best },
            Err(failure) if is_absence(&failure) => Choice { device: Chosen::Cpu, why: Why::NoGpu },
            Err(failure) => {
                let (reason, _) = failure.message();
                Choice { device: Chosen::Cpu, why: Why::Fallback { reason } }
            }
        }),
    }
}

fn cuda(number: Option<u32>) -> Result<Chosen, Failure> {
    Ok(Chosen::Cuda(usable(number).map_err(DeviceError::from)?))
}

/// Whether there is no GPU to speak of.
fn is_absence(failure: &Failure) -> bool {
    let Failure::Host(Error::Device(DeviceError::Cuda(error))) = failure else { return false };
    CudaError::is_absence(error)
}
