#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod contract;
pub mod launch;
pub mod ptx;
pub mod released;

use contract::KernelSpec;
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

/// The committed PTX of the entries of a block, for each of its targets.
macro_rules! compiled {
    ($($block:ident: $($entry:literal for $($target:ident $name:literal),+;)+)+) => {
        &[$($($(
            Kernel {
                spec: contract::spec_of::<contract::$block>($entry),
                target: Target::$target,
                ptx: include_str!(concat!("../ptx/", $entry, ".", $name, ".ptx")),
            },
        )+)+)+]
    };
}

/// Every kernel of this crate.
#[must_use]
pub const fn kernels() -> &'static [Kernel] {
    const {
        compiled! {
            QuantizeArgs:
                "quantize" for SM_80 "sm_80", SM_90 "sm_90";
            LinearArgs:
                "linear_8" for SM_80 "sm_80", SM_90A "sm_90a";
                "linear_16" for SM_80 "sm_80", SM_90A "sm_90a";
                "linear_32" for SM_80 "sm_80";
                "linear_64" for SM_80 "sm_80";
                "linear_128" for SM_80 "sm_80";
                "linear_64x64" for SM_90A "sm_90a";
                "linear_128x64" for SM_90A "sm_90a";
                "linear_192x64" for SM_90A "sm_90a";
                "linear_64x128" for SM_90A "sm_90a";
                "linear_128x128" for SM_90A "sm_90a";
                "linear_192x128" for SM_90A "sm_90a";
                "linear_256x128" for SM_90A "sm_90a";
            ReadMemoryArgs:
                "read_memory" for SM_80 "sm_80";
            EmbedArgs:
                "embed" for SM_80 "sm_80", SM_90 "sm_90";
            NormalizeArgs:
                "normalize" for SM_80 "sm_80", SM_90 "sm_90";
            TileWeightsArgs:
                "tile_weights" for SM_80 "sm_80";
            FloatLinearArgs:
                "float_linear_f16" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_bf16" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_f32" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_i8" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_narrow_f16" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_narrow_bf16" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_narrow_f32" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_narrow_i8" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_wide_f16" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_wide_bf16" for SM_80 "sm_80", SM_90 "sm_90";
                "float_linear_wide_i8" for SM_80 "sm_80", SM_90 "sm_90";
            FloatLinearHopperArgs:
                "float_linear_hopper_f16" for SM_90A "sm_90a";
                "float_linear_hopper_bf16" for SM_90A "sm_90a";
                "float_linear_hopper_i8" for SM_90A "sm_90a";
            RopeStoreArgs:
                "rope_store" for SM_80 "sm_80", SM_90 "sm_90";
            AttendRowsExactArgs:
                "attend_rows_exact_f16" for SM_80 "sm_80";
                "attend_rows_exact_f32" for SM_80 "sm_80";
            AttendRowsArgs:
                "attend_rows_f16_64" for SM_80 "sm_80";
                "attend_rows_f16_96" for SM_80 "sm_80";
                "attend_rows_f16_100" for SM_80 "sm_80";
                "attend_rows_f16_128" for SM_80 "sm_80";
                "attend_rows_f16_256" for SM_80 "sm_80";
            AttendRowsHopperArgs:
                "attend_rows_hopper_f16_64" for SM_90A "sm_90a";
                "attend_rows_hopper_f16_96" for SM_90A "sm_90a";
                "attend_rows_hopper_f16_100" for SM_90A "sm_90a";
                "attend_rows_hopper_f16_128" for SM_90A "sm_90a";
            ChooseArgs:
                "choose" for SM_80 "sm_80", SM_90 "sm_90";
            DecodeLinearArgs:
                "decode_qkv_4" for SM_90 "sm_90";
                "decode_out_4" for SM_90 "sm_90";
                "decode_out_9" for SM_90 "sm_90";
                "decode_out_14" for SM_90 "sm_90";
                "decode_gate_up_4" for SM_90 "sm_90";
            DecodeAttendArgs:
                "decode_attend_f16_128_c4" for SM_90 "sm_90";
                "decode_attend_f16_128_c8" for SM_90 "sm_90";
                "decode_attend_f16_256_c8" for SM_90 "sm_90";
                "decode_attend_f32_256_c8" for SM_90 "sm_90";
                "decode_attend_many_f16_128_c4" for SM_90 "sm_90";
                "decode_attend_many_f16_128_c8" for SM_90 "sm_90";
            DecodeLayersArgs:
                "decode_layers_f16_128_c4" for SM_90A "sm_90a";
                "decode_layers_f16_128_c8" for SM_90A "sm_90a";
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
            kernel_for("read_memory", device).map(|kernel| kernel.target)
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
