//! [`KvLayout`]: where the key/value cache keeps what, the same on every device.

use crate::backend::Limits;
use crate::config::ModelConfig;

/// Positions of a block of keys.
pub const KEY_BLOCK: usize = 32;

/// Sizes and offsets of the cache, in elements. Both halves have the same size:
/// - values: `(layer, slot, kv_head, position, head_dim)`;
/// - keys: `(layer, slot, kv_head, position / 32, head_dim, position % 32)`, so that 32 positions
///   are scored at once without folding a vector.
///
/// Positions are rounded up to whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayout {
    layers: usize,
    slots: usize,
    kv_heads: usize,
    positions: usize,
    head_dim: usize,
}

impl KvLayout {
    /// The layout for a model under `limits`.
    #[must_use]
    pub fn new(config: &ModelConfig, limits: &Limits) -> Self {
        Self {
            layers: config.layers,
            slots: limits.slots,
            kv_heads: config.kv_heads,
            positions: limits.positions_max.next_multiple_of(KEY_BLOCK),
            head_dim: config.head_dim,
        }
    }

    /// Elements of the keys (and of the values) of all layers, or `None` when that is more than the
    /// address space.
    #[must_use]
    pub fn elements(&self) -> Option<usize> {
        [self.layers, self.slots, self.kv_heads, self.positions, self.head_dim]
            .into_iter()
            .try_fold(1_usize, usize::checked_mul)
    }

    /// Positions of a slot: a whole number of blocks.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Elements of one layer.
    #[must_use]
    pub fn layer_elements(&self) -> usize {
        self.slots * self.kv_heads * self.head_elements()
    }

    /// Elements of one head of one slot of one layer.
    #[must_use]
    pub fn head_elements(&self) -> usize {
        self.positions * self.head_dim
    }

    /// Where head `head` of slot `slot` begins in its layer.
    #[must_use]
    pub fn head_start(&self, slot: usize, head: usize) -> usize {
        (slot * self.kv_heads + head) * self.head_elements()
    }

    /// Where the key of `position` begins in its head; element `i` follows at `i * KEY_BLOCK`.
    #[must_use]
    pub fn key_start(&self, position: usize) -> usize {
        position / KEY_BLOCK * KEY_BLOCK * self.head_dim + position % KEY_BLOCK
    }
}
