#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod contract;
pub mod launch;
pub mod ptx;

use contract::{ArgumentBlock, KernelSpec, LinearArgs, QuantizeArgs, TernaryGemmArgs};
use ptx::{ComputeCapability, Target, Version};

/// The newest instruction set that a PTX of this crate is written in: what CUDA 12.0 brought.
///
/// A driver refuses PTX newer than itself, so this is what makes 525 the least driver.
pub const PTX_VERSION_MAX: Version = Version { major: 8, minor: 0 };

/// A kernel, compiled and with its contract.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// How to call it.
    pub spec: KernelSpec,
    /// The GPUs it runs on.
    pub target: Target,
    /// PTX text, one entry.
    pub ptx: &'static str,
}

macro_rules! kernels {
    ($($entry:literal($block:ident): $($target:ident $file:literal),+;)+) => {
        &[$($(Kernel {
            spec: $block::SPEC.named($entry),
            target: Target::$target,
            ptx: include_str!(concat!("../ptx/", $entry, ".", $file, ".ptx")),
        }),+),+]
    };
}

/// Every kernel of this crate.
#[must_use]
pub const fn kernels() -> &'static [Kernel] {
    const {
        kernels! {
            "ternary_gemm"(TernaryGemmArgs): SM_80 "sm_80";
            "quantize"(QuantizeArgs): SM_80 "sm_80", SM_90 "sm_90";
            "linear_8"(LinearArgs): SM_80 "sm_80", SM_90A "sm_90a";
            "linear_16"(LinearArgs): SM_80 "sm_80", SM_90A "sm_90a";
            "linear_32"(LinearArgs): SM_80 "sm_80", SM_90A "sm_90a";
            "linear_64"(LinearArgs): SM_80 "sm_80", SM_90A "sm_90a";
            "linear_128"(LinearArgs): SM_80 "sm_80", SM_90A "sm_90a";
        }
    }
}

/// The PTX of kernel `entry` for `device`, of several the one for the highest target.
///
/// `None` when there is no such kernel or the device is below every target.
#[must_use]
pub fn kernel_for(entry: &str, device: ComputeCapability) -> Option<&'static Kernel> {
    kernels()
        .iter()
        .filter(|kernel| kernel.spec.entry == entry && kernel.target.runs_on(device))
        .max_by_key(|kernel| (kernel.target.capability, kernel.target.exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_since_2020_are_served() {
        let served = |major, minor| {
            let device = ComputeCapability { major, minor };
            kernel_for("ternary_gemm", device).map(|kernel| kernel.target)
        };
        assert_eq!(served(7, 5), None);
        for (major, minor) in [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)] {
            assert_eq!(served(major, minor), Some(Target::SM_80));
        }
    }

    #[test]
    fn each_device_gets_the_best_it_runs() {
        let best = |entry, major, minor| {
            kernel_for(entry, ComputeCapability { major, minor }).map(|kernel| kernel.target)
        };
        for (major, minor) in [(8, 0), (8, 9)] {
            assert_eq!(best("linear_8", major, minor), Some(Target::SM_80));
            assert_eq!(best("quantize", major, minor), Some(Target::SM_80));
        }
        assert_eq!(best("linear_8", 9, 0), Some(Target::SM_90A));
        assert_eq!(best("linear_8", 10, 0), Some(Target::SM_80));
        assert_eq!(best("quantize", 9, 0), Some(Target::SM_90));
        assert_eq!(best("quantize", 12, 0), Some(Target::SM_90));
    }

    #[test]
    fn unknown_kernel_is_none() {
        let device = ComputeCapability { major: 9, minor: 0 };
        assert!(kernel_for("ternary", device).is_none(), "a prefix of a name is no name");
    }
}
