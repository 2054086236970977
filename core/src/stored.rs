//! Numbers as files and caches hold them.

/// Numbers in memory, little-endian and at any address. Each is exactly a single: reading rounds
/// nothing.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// IEEE single precision.
    F32(&'a [[u8; 4]]),
    /// IEEE half precision.
    F16(&'a [[u8; 2]]),
    /// The upper half of a single.
    Bf16(&'a [[u8; 2]]),
    /// Whole numbers.
    I8(&'a [i8]),
}

impl<'a> Stored<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F16(x) | Self::Bf16(x) => x.len(),
            Self::I8(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The number at `place`.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn get(self, place: usize) -> f32 {
        match self {
            Self::F32(x) => f32::from_le_bytes(x[place]),
            Self::F16(x) => from_half(x[place]),
            Self::Bf16(x) => from_upper_half(x[place]),
            Self::I8(x) => f32::from(x[place]),
        }
    }

    /// The numbers of a range of places.
    ///
    /// # Panics
    ///
    /// When the range reaches beyond the end.
    pub fn range(self, places: core::ops::Range<usize>) -> Stored<'a> {
        match self {
            Self::F32(x) => Self::F32(&x[places]),
            Self::F16(x) => Self::F16(&x[places]),
            Self::Bf16(x) => Self::Bf16(&x[places]),
            Self::I8(x) => Self::I8(&x[places]),
        }
    }
}

/// The single that an IEEE half is. NaN comes out quiet with its payload, as processors have it.
#[inline(always)]
pub(crate) fn from_half(bytes: [u8; 2]) -> f32 {
    const INFINITY: u32 = f32::INFINITY.to_bits();
    let half = u32::from(u16::from_le_bytes(bytes));
    // Exponent and fraction of a single, 2^112 too small; the product makes up for it, and
    // normalises what was subnormal.
    let shifted = (half & 0x7fff) << 13;
    let magnitude = match shifted {
        0x0f80_0001.. => shifted | INFINITY | 1 << 22,
        0x0f80_0000 => INFINITY,
        _ => (f32::from_bits(shifted) * f32::from_bits((127 + 112) << 23)).to_bits(),
    };
    f32::from_bits(magnitude | (half & 0x8000) << 16)
}

/// The single whose upper half is stored.
#[inline(always)]
pub(crate) fn from_upper_half(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}
