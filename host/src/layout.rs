//! [`WeightLayout`]: how a `.tercet` file lays out its ternary matrices.

use tercet_core::{Base3, Layout, Rows128};

/// The layouts that the ternary matrices of a `.tercet` file may have; all of a file have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightLayout {
    /// Two-bit codes, which are multiplied as they are.
    #[default]
    Rows128,
    /// Five trits a byte: a fifth less to read. On a CPU few rows of values are multiplied by the
    /// digits as they are, more by codes that are made of them on the way.
    Base3,
}

impl WeightLayout {
    /// Every layout.
    pub const ALL: [Self; 2] = [Self::Rows128, Self::Base3];

    /// The name that stands in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows128 => Rows128::NAME,
            Self::Base3 => Base3::NAME,
        }
    }

    /// The layout called `name`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }

    /// Bytes of one row of `cols` columns.
    #[must_use]
    pub fn row_bytes(self, cols: usize) -> usize {
        match self {
            Self::Rows128 => Rows128::row_bytes(cols),
            Self::Base3 => Base3::row_bytes(cols),
        }
    }
}

/// `cols` rounded up to what kernels of either layout read of a row of activations.
pub(crate) fn padded_cols(cols: usize) -> usize {
    Rows128::padded_cols(cols).max(Base3::padded_cols(cols))
}
