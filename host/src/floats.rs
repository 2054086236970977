//! Floats as files hold them: little-endian F32, F16 and BF16 at any address.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use tercet_core::Stored;

use crate::checkpoint::Dtype;

/// A float type that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
}

impl FloatType {
    /// The float type of a tensor, if it has one of the three.
    #[must_use]
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Name as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The numbers that `bytes` hold.
    ///
    /// # Panics
    ///
    /// When `bytes` is not whole elements.
    #[must_use]
    pub fn stored(self, bytes: &[u8]) -> Stored<'_> {
        assert_eq!(bytes.len() % self.bytes(), 0, "half an element");
        match self {
            Self::F32 => Stored::F32(bytes.as_chunks().0),
            Self::F16 => Stored::F16(bytes.as_chunks().0),
            Self::Bf16 => Stored::Bf16(bytes.as_chunks().0),
        }
    }

    /// Decodes `bytes` into `out`; exact, since every F16 and BF16 is a single.
    ///
    /// # Panics
    ///
    /// When `bytes` is not `out.len()` elements long.
    #[inline(always)]
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), out.len() * self.bytes(), "bytes and elements disagree");
        match self {
            Self::F32 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(*bytes);
                }
            }
            Self::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(halves) if cfg!(target_endian = "little") => halves.convert_to_f32_slice(out),
                _ => {
                    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *out = f16::from_le_bytes(*bytes).to_f32();
                    }
                }
            },
            Self::Bf16 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = bf16::from_le_bytes(*bytes).to_f32();
                }
            }
        }
    }
}
