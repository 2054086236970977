//! `--device`: which device computes, and a word when it is not the one that was hoped for.

use tercet_host::backend::DeviceError;
use tercet_host::backend::cuda::driver::{CudaError, Device as CudaDevice, usable};
use tercet_host::error::Error;

use crate::args::{Device, DeviceArgs};
use crate::clean::OneLine;
use crate::failure::{Failure, note};

/// The device that computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// The CPU.
    Cpu,
    /// A GPU.
    Cuda(CudaDevice),
}

/// Follows `--device`.
///
/// `cuda` is taken at its word: what is in the way is an error. `auto` goes on with the CPU, and
/// says why in one line on stderr if there is a GPU or a driver that cannot be used; where there is
/// none there is nothing to say.
///
/// # Errors
///
/// [`Failure`] when the device that was asked for cannot be used.
pub fn choose(args: &DeviceArgs) -> Result<Chosen, Failure> {
    match args.device {
        Device::Cpu => Ok(Chosen::Cpu),
        Device::Cuda(number) => cuda(Some(number)),
        Device::Auto => cuda(None).or_else(|failure| {
            if !args.quiet && !is_absence(&failure) {
                let (why, _) = failure.message();
                note(format_args!(
                    "tercet: note: computing on the CPU: {} (`tercet doctor` says more)",
                    OneLine(&why)
                ));
            }
            Ok(Chosen::Cpu)
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
