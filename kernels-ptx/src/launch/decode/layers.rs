//! Launch of the kernel that does all layers of a step of one row.

use super::{DecodeAttendShape, DeviceShape};
use crate::contract::{DecodeAttendArgs, DecodeLayersArgs};
use crate::launch::Grid;

/// Sizes of a model, as far as the launch depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayersModel {
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Width of the feed-forward block.
    pub ffn: u32,
}

/// Launch of all layers of a step of one row. It has to be a cooperative one: every thread block
/// waits for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLayersShape {
    entry: &'static str,
    blocks: u32,
    slots: u32,
    shared_bytes: u32,
    room_words: u32,
}

impl DecodeLayersShape {
    /// Static shared memory of every entry at most.
    const STATIC_BYTES: u32 = 25 * 1024;
    const TILE_ROWS: u32 = 16;
    const TILE_COLS: u32 = 128;
    /// Bytes of a pair of tiles.
    const PAIR_BYTES: u32 = 2 * 512;
    /// Bytes of the sums of a pair of row tiles.
    const SUM_BYTES: u32 = 2 * Self::TILE_ROWS * 4;
    /// With one slot nothing would be fetched while it is multiplied.
    const SLOTS_MIN: u32 = 2;

    /// The launch for `model`, or `None` where no entry serves it: its layers have to be done
    /// kernel by kernel. The bits are the same.
    ///
    /// `halves`: the cache holds halves, not singles.
    #[must_use]
    pub fn new(model: LayersModel, halves: bool, device: DeviceShape) -> Option<Self> {
        let LayersModel { layers, hidden, heads, kv_heads, head_dim, ffn } = model;
        // What splits attention of a long row has to split it here as well.
        let attend = DecodeAttendShape::new(heads, kv_heads, head_dim, halves, 1, device)?;
        let (entry, ranks) = match attend.entry() {
            "decode_attend_f16_128_c4" => ("decode_layers_f16_128_c4", 4),
            "decode_attend_f16_128_c8" => ("decode_layers_f16_128_c8", 8),
            _ => return None,
        };
        let fits = |cols: u32, most: u32| (4..=most).contains(&cols) && cols.is_multiple_of(4);
        let query = heads.checked_mul(head_dim)?;
        // A slot holds a pair of row tiles as wide as a row of the model, so one of the
        // feed-forward block takes several.
        let slot_tiles = hidden.max(query).div_ceil(Self::TILE_COLS);
        let narrow =
            fits(hidden, DecodeLayersArgs::HIDDEN_MAX) && fits(query, DecodeLayersArgs::HIDDEN_MAX);
        let served = narrow
            && fits(ffn, DecodeLayersArgs::FFN_SLOTS * slot_tiles * Self::TILE_COLS)
            && (2..=DecodeLayersArgs::COUNT_MAX).contains(&layers);
        if !served {
            return None;
        }
        let blocks = device.multiprocessors;
        let group = heads / kv_heads;
        let heads_of = group.min(DecodeAttendArgs::HEADS_MAX);
        let parts = kv_heads * group.div_ceil(DecodeAttendArgs::HEADS_MAX) * ranks;
        if parts > blocks {
            return None;
        }
        let qkv = query + 2 * kv_heads * head_dim;
        // Pairs of row tiles of the busiest block; such a pair has 32 features, or 16 of the gate
        // and 16 of up.
        let pairs = |features: u32| features.div_ceil(2 * Self::TILE_ROWS).div_ceil(blocks);
        let wide = pairs(qkv).max(pairs(hidden));
        let gated = ffn.div_ceil(Self::TILE_ROWS).div_ceil(blocks);
        let features = (wide * 2 * Self::TILE_ROWS).max(gated * Self::TILE_ROWS);
        if features > DecodeLayersArgs::FEATURES_MAX {
            return None;
        }
        let slabs = DecodeAttendShape::WARPS * DecodeAttendShape::slab_bytes(head_dim);
        let sums = wide.max(gated) * Self::SUM_BYTES;
        let left = device.shared_bytes.checked_sub(Self::STATIC_BYTES + slabs + sums)?;
        let slot_bytes = slot_tiles * Self::PAIR_BYTES;
        let slots = (left / slot_bytes).min(DecodeLayersArgs::SLOTS_MAX);
        if slots < Self::SLOTS_MIN {
            return None;
        }
        // Queries, keys and values; the mix; the parts of it, with peak and total of each head;
        // the residual stream in the middle of the layer; the feed-forward block; the residual
        // stream.
        let of_part = heads_of * head_dim + 2 * DecodeAttendArgs::HEADS_MAX;
        let room_words = qkv + query + parts * of_part + hidden + ffn + hidden;
        let shared_bytes = slots * slot_bytes + slabs + sums;
        Some(Self { entry, blocks, slots, shared_bytes, room_words })
    }

    /// The kernel.
    #[must_use]
    pub const fn entry(self) -> &'static str {
        self.entry
    }

    /// The grid to launch: a thread block for each multiprocessor.
    #[must_use]
    pub const fn grid(self) -> Grid {
        Grid { x: self.blocks, y: 1, z: 1 }
    }

    /// Dynamic shared memory in bytes: slots of weights, slabs of attention, sums.
    #[must_use]
    pub const fn shared_bytes(self) -> u32 {
        self.shared_bytes
    }

    /// [`DecodeLayersArgs::slots_of_weights`].
    #[must_use]
    pub const fn slots_of_weights(self) -> u32 {
        self.slots
    }

    /// Words of [`DecodeLayersArgs::rooms`]: sets of a multiple of 4 words each, and four more.
    #[must_use]
    pub const fn rooms_words(self) -> u32 {
        DecodeLayersArgs::SETS * self.room_words + 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::Target;

    const H200: DeviceShape = DeviceShape { multiprocessors: 132, shared_bytes: 232_448 };
    /// 1bitLLM's bitnet_b1_58-3B.
    const BITNET_3B: LayersModel =
        LayersModel { layers: 26, hidden: 3200, heads: 32, kv_heads: 32, head_dim: 100, ffn: 8640 };
    /// Microsoft's bitnet-b1.58-2B-4T.
    const BITNET_2B: LayersModel =
        LayersModel { layers: 30, hidden: 2560, heads: 20, kv_heads: 5, head_dim: 128, ffn: 6912 };

    fn of(model: LayersModel) -> Option<DecodeLayersShape> {
        DecodeLayersShape::new(model, true, H200)
    }

    #[test]
    fn known_models_are_served() {
        let shape = of(BITNET_3B).unwrap();
        assert_eq!(shape.entry(), "decode_layers_f16_128_c4");
        assert_eq!(shape.grid(), Grid { x: 132, y: 1, z: 1 });
        let slabs = 8 * (3200 + 16 * 208);
        // Gate and up: 540 pairs, 5 of them in some blocks.
        let sums = 5 * 128;
        assert_eq!(shape.slots_of_weights(), 6);
        assert_eq!(shape.shared_bytes(), 6 * 25 * 1024 + slabs + sums);
        // A key head for each query head: 32 · 4 parts of one head.
        let room = 9600 + 3200 + 128 * (100 + 16) + 3200 + 8640 + 3200;
        assert_eq!(shape.rooms_words(), 4 * room + 4);

        let shape = of(BITNET_2B).unwrap();
        assert_eq!(shape.entry(), "decode_layers_f16_128_c8");
        assert_eq!(shape.grid(), Grid { x: 132, y: 1, z: 1 });
        let (slabs, sums) = (8 * (4096 + 16 * 272), 4 * 128);
        assert_eq!(shape.slots_of_weights(), 6);
        assert_eq!(shape.shared_bytes(), 6 * 20 * 1024 + slabs + sums);
        // Five key heads of four query heads: 5 · 8 parts of four heads.
        let room = 3840 + 2560 + 40 * (4 * 128 + 16) + 2560 + 6912 + 2560;
        assert_eq!(shape.rooms_words(), 4 * room + 4);
    }

    #[test]
    fn whatever_is_served_fits() {
        let mut served = 0;
        for head_dim in (4..=128).step_by(4) {
            for (heads, kv_heads) in [(1, 1), (8, 2), (20, 5), (32, 32), (28, 1)] {
                for (hidden, ffn) in [(4, 4), (260, 1100), (3200, 8640), (3584, 10752)] {
                    for multiprocessors in [0, 1, 8, 16, 78, 132, 148] {
                        let model =
                            LayersModel { layers: 2, hidden, heads, kv_heads, head_dim, ffn };
                        let device = DeviceShape { multiprocessors, ..H200 };
                        let Some(shape) = DecodeLayersShape::new(model, true, device) else {
                            continue;
                        };
                        served += 1;
                        let total = shape.shared_bytes() + DecodeLayersShape::STATIC_BYTES;
                        assert!(total <= H200.shared_bytes, "{model:?} {shape:?}");
                        let slots = shape.slots_of_weights();
                        assert!((2..=DecodeLayersArgs::SLOTS_MAX).contains(&slots), "{shape:?}");
                        // Sets are cleared four words at a time.
                        assert!(
                            (shape.rooms_words() - 4).is_multiple_of(16),
                            "{model:?} {shape:?}"
                        );
                        // The bits are those of attention by itself, so its entry has the ranks.
                        let alone =
                            DecodeAttendShape::new(heads, kv_heads, head_dim, true, 1, device);
                        let few = |entry: &str| entry.ends_with("_c4");
                        assert_eq!(few(alone.unwrap().entry()), few(shape.entry()));
                        let ranks = if few(shape.entry()) { 4 } else { 8 };
                        let sets = kv_heads * (heads / kv_heads).div_ceil(8);
                        assert!(sets * ranks <= shape.grid().x, "a block has one part at most");
                    }
                }
            }
        }
        assert!(served > 500, "{served}");
    }

    #[test]
    fn other_models_take_a_kernel_for_each_operation() {
        let known = BITNET_3B;
        assert!(of(LayersModel { layers: 2, ..known }).is_some());
        assert_eq!(of(LayersModel { layers: 1, ..known }), None, "sets of rooms take turns");
        assert!(of(LayersModel { layers: 64, ..known }).is_some());
        assert_eq!(of(LayersModel { layers: 65, ..known }), None);
        assert_eq!(DecodeLayersShape::new(known, false, H200), None, "a cache of singles");
        assert_eq!(of(LayersModel { hidden: 3198, ..known }), None, "columns in fours");
        assert_eq!(of(LayersModel { ffn: 8642, ..known }), None, "columns in fours");
        assert_eq!(of(LayersModel { head_dim: 102, ..known }), None);
        assert_eq!(of(LayersModel { heads: 16, kv_heads: 16, head_dim: 132, ..known }), None);
        assert_eq!(of(LayersModel { kv_heads: 5, ..known }), None, "no whole groups");
        assert_eq!(of(LayersModel { kv_heads: 0, ..known }), None);
        assert_eq!(of(LayersModel { hidden: 0, ..known }), None);
        assert_eq!(of(LayersModel { ffn: 0, ..known }), None);
        assert!(of(LayersModel { hidden: 3584, ..known }).is_some());
        assert_eq!(of(LayersModel { hidden: 3588, ..known }), None);
        // 25 tiles of columns in a slot.
        assert!(of(LayersModel { ffn: 3 * 3200, ..known }).is_some());
        assert_eq!(of(LayersModel { ffn: 3 * 3200 + 4, ..known }), None);
        assert!(of(LayersModel { heads: 28, kv_heads: 2, head_dim: 128, ..known }).is_some());
        assert_eq!(of(LayersModel { heads: 29, kv_heads: 1, head_dim: 128, ..known }), None);
        assert_eq!(of(LayersModel { heads: u32::MAX, kv_heads: 1, ..known }), None);
    }

    #[test]
    fn other_devices_take_a_kernel_for_each_operation() {
        let on = |model, multiprocessors, shared_bytes| {
            let device = DeviceShape { multiprocessors, shared_bytes };
            DecodeLayersShape::new(model, true, device)
        };
        assert!(on(BITNET_3B, 128, 232_448).is_some());
        assert_eq!(on(BITNET_3B, 127, 232_448), None, "32 heads of four parts");
        assert_eq!(on(BITNET_3B, 0, 232_448), None);
        let slot = 25 * 1024;
        let least = DecodeLayersShape::STATIC_BYTES + 8 * (3200 + 16 * 208) + 5 * 128;
        assert_eq!(on(BITNET_3B, 132, least + 2 * slot).unwrap().slots_of_weights(), 2);
        assert_eq!(on(BITNET_3B, 132, least + 2 * slot - 1), None, "one slot");
        // On eight multiprocessors: 14 pairs of 32 features of the stream, 28 of 16 of the gate.
        let one = LayersModel { heads: 1, kv_heads: 1, head_dim: 128, ..BITNET_2B };
        let one = LayersModel { hidden: 3584, ffn: 3584, ..one };
        assert!(on(one, 8, 232_448).is_some());
        assert_eq!(on(LayersModel { ffn: 3588, ..one }, 8, 232_448), None, "29 pairs of a block");
        assert!(on(LayersModel { ffn: 3588, ..one }, 9, 232_448).is_some());
        assert_eq!(on(one, 7, 232_448), None, "a head of eight parts");
    }

    /// What the compiler made of a block's own variables.
    #[test]
    fn static_shared_memory_is_what_launches_leave() {
        for entry in ["decode_layers_f16_128_c4", "decode_layers_f16_128_c8"] {
            let ptx = crate::kernel_for(entry, Target::SM_90.capability).unwrap().ptx;
            let own = ptx.lines().filter(|line| line.trim_start().starts_with(".shared "));
            let bytes: u32 = own
                .map(|line| {
                    let (_, size) = line.rsplit_once('[').unwrap();
                    size.trim_end_matches("];").parse::<u32>().unwrap()
                })
                .sum();
            assert!(bytes > 0, "{entry}");
            assert!(bytes <= DecodeLayersShape::STATIC_BYTES, "{entry}: {bytes}");
        }
    }
}
