//! Argument blocks of the kernels that decode one row: a layer is five of them.

use super::{
    Argument, ArgumentBlock, Constant, DevicePtr, DevicePtrMut, Field, KernelSpec, sealed,
};

kernels! {
    /// A ternary linear of one row, from the norm before it to what follows it: exact up to the
    /// last roundings and equal to the CPU to the bit.
    ///
    /// `value[f] = (Σ_c values[c] · trit(f, c) · row_unit) · units[f] + bias[f]`, where values and
    /// row unit are those of the normed row. `decode_qkv` stores it, `decode_out` adds it to what
    /// is in `out`, `decode_gate_up` stores `activation(gate) · up`. The number in an entry's name
    /// is the widest row in units of 1024 columns.
    ///
    /// Grid, entry, shared memory and the scalars of a launch: `launch::DecodeLinearShape`.
    fn decode_qkv_4, decode_out_4, decode_out_9, decode_out_14,
        decode_gate_up_4[544](DecodeLinearArgs {
        /// `(cols)`, 16-byte aligned.
        x: DevicePtr<f32>,
        /// `(cols)`: weight of an RMS norm, 16-byte aligned; null: no norm.
        norm: DevicePtr<f32>,
        /// `(row_tiles, col_tiles, 128)` words, layout `mma16x128`, 16-byte aligned. For
        /// `decode_gate_up` row tile `2i` holds 16 rows of the gate, `2i + 1` those of up.
        codes: DevicePtr<u32>,
        /// `(16 · row_tiles)`: what trit 1 is worth, to multiply by.
        units: DevicePtr<f32>,
        /// `(16 · row_tiles)`; null: no bias.
        bias: DevicePtr<f32>,
        /// `(features)`; every element is written.
        out: DevicePtrMut<f32>,
        /// Row tiles of `codes`; even for `decode_gate_up`.
        row_tiles: u32,
        /// Column tiles of `codes`: `cols / 128`, rounded up.
        col_tiles: u32,
        /// Multiple of 4, at most 1024 times the number in the entry's name.
        cols: u32,
        /// Features of the output.
        features: u32,
        /// Pairs of row tiles that a thread block multiplies.
        block_pairs: u32,
        /// Pairs of row tiles that shared memory holds at a time; at most `STAGES_MAX`.
        stages: u32,
        /// `SILU`, `RELU2` or `RELU`; read by `decode_gate_up`.
        activation: u32,
        /// Added to the mean square.
        eps: f32,
    }) where {
        /// Most pairs of row tiles in shared memory.
        STAGES_MAX = 16,
        /// `x / (1 + exp(-x))`.
        SILU = 0,
        /// `max(x, 0)²`.
        RELU2 = 1,
        /// `max(x, 0)`.
        RELU = 2,
    }

    /// Attention of rows that each stand alone in their slot: turns queries and key, stores key and
    /// value, and mixes the values of all positions up to the row's own. Keys and values in the
    /// cache are equal to the CPU's to the bit; the mix is near single precision.
    ///
    /// Element `i` of a head turns with element `i + head_dim / 2`. Keys stand in the cache as
    /// `(slot, kv_head, position / 32, head_dim, position % 32)`, values as `(slot, kv_head,
    /// position, head_dim)`; halves are rounded to nearest even. How a row is split depends on its
    /// position alone, so its bits do not depend on the rows beside it.
    ///
    /// The entry's name gives the numbers of the cache, the widest head and the thread blocks of a
    /// cluster. `decode_attend_many` has no clusters, but the bits of the kernel that has those of
    /// its name; it is for many rows, and `awaited` has to be 0. Keys behind a row's own
    /// position may be lost, up to the next multiple of 16.
    ///
    /// The row is awaited in one of two ways. `awaited` 0: until the kernels ahead in the stream
    /// have ended. `awaited` 1: until no word of it is `UNWRITTEN`, while its producer may still
    /// run. No kernel writes `UNWRITTEN`, so a row that consisted of it before the producer started
    /// is complete once none is left.
    ///
    /// Grid, entry and shared memory: `launch::DecodeAttendShape`.
    fn decode_attend_f16_128_c4, decode_attend_f16_128_c8, decode_attend_f16_256_c8,
        decode_attend_f32_256_c8, decode_attend_many_f16_128_c4,
        decode_attend_many_f16_128_c8[256](DecodeAttendArgs {
        /// `(rows, query + 2 kv)`: queries, keys, values.
        qkv: DevicePtr<f32>,
        /// Keys of the layer, 16-byte aligned.
        keys: DevicePtrMut<u8>,
        /// Values of the layer, 16-byte aligned.
        values: DevicePtrMut<u8>,
        /// `(positions, head_dim / 2)`; or null where positions are not rotary.
        cos: DevicePtr<f32>,
        /// As `cos`.
        sin: DevicePtr<f32>,
        /// `(rows)`; `NONE` marks a row that only fills up the batch. Not written by the kernels
        /// between the start of the step and this one.
        positions: DevicePtr<u32>,
        /// `(rows)`, as `positions`; no two rows have the same.
        slots: DevicePtr<u32>,
        /// `(rows, query)`; a row that is none is left alone, or zero where `awaited` is 1.
        mixed: DevicePtrMut<f32>,
        /// Query heads: a multiple of `kv_heads`.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
        /// Multiple of 4, at most the entry's.
        head_dim: u32,
        /// Positions of a slot, a multiple of `KEY_BLOCK`.
        capacity: u32,
        /// 0 or 1.
        awaited: u32,
        /// What a score is multiplied by: `1 / √head_dim`.
        factor: f32,
    }) where {
        /// Position of a row that is none.
        NONE = 4294967295,
        /// Positions of a block of keys.
        KEY_BLOCK = 32,
        /// Query heads of one key head that a cluster takes.
        HEADS_MAX = 8,
        /// What a word that is awaited holds until it is written: a NaN that no kernel writes.
        UNWRITTEN = 4294967295,
    }

    /// All layers of a step of one row: what `decode_qkv`, `decode_attend`, `decode_out`,
    /// `decode_gate_up` and `decode_out` once more do for each, and the same bits.
    ///
    /// The blocks wait for each other, so the launch has to be a cooperative one. The entry's name
    /// gives the numbers of the cache, the widest head and the ranks that attention of a long row
    /// is split into: those of the `decode_attend` that does the same.
    ///
    /// The grid has at least a thread block for each part of attention: sets of at most
    /// `DecodeAttendArgs::HEADS_MAX` query heads of a key head, times ranks.
    ///
    /// Grid, entry, shared memory, rooms and the scalars of a launch: `launch::DecodeLayersShape`.
    fn decode_layers_f16_128_c4, decode_layers_f16_128_c8[512](DecodeLayersArgs {
        /// `(count, WORDS)` addresses of 8 bytes, for each layer: codes, units and norms of qkv,
        /// attention out, gate and up, down. Codes and units as in [`DecodeLinearArgs`], norms as
        /// there, null for none. 8-byte aligned.
        layers: DevicePtr<u8>,
        /// `(hidden_cols)`: the row, before and after; 16-byte aligned.
        hidden: DevicePtrMut<f32>,
        /// `(SETS, words)` and four words: `launch::DecodeLayersShape::rooms_words` in all; 16-byte
        /// aligned. Before the first launch all `UNWRITTEN`; between launches left as they are.
        rooms: DevicePtrMut<f32>,
        /// Keys of the first layer, as in [`DecodeAttendArgs`].
        keys: DevicePtrMut<u8>,
        /// Values of the first layer.
        values: DevicePtrMut<u8>,
        /// As in [`DecodeAttendArgs`].
        cos: DevicePtr<f32>,
        /// As `cos`.
        sin: DevicePtr<f32>,
        /// The row's position, below `capacity`.
        positions: DevicePtr<u32>,
        /// The row's slot.
        slots: DevicePtr<u32>,
        /// Layers, `2..=COUNT_MAX`.
        count: u32,
        /// Width of the model: a multiple of 4, at most `HIDDEN_MAX`.
        hidden_cols: u32,
        /// Query heads: a multiple of `kv_heads`; `heads · head_dim` is at most `HIDDEN_MAX`.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
        /// Multiple of 4, at most the entry's.
        head_dim: u32,
        /// Width of the feed-forward block: a multiple of 4, at most `FFN_SLOTS` slots of columns.
        ffn: u32,
        /// Positions of a slot, a multiple of `DecodeAttendArgs::KEY_BLOCK`.
        capacity: u32,
        /// From layer to layer of keys and of values, in units of 16 bytes.
        layer_stride: u32,
        /// Slots that weights pass through, `1..=SLOTS_MAX`: pairs of row tiles with as many
        /// tiles of columns as `hidden_cols` and `heads · head_dim` have at most.
        slots_of_weights: u32,
        /// `SILU`, `RELU2` or `RELU`, as in [`DecodeLinearArgs`].
        activation: u32,
        /// Added to the mean square.
        eps: f32,
        /// What a score is multiplied by: `1 / √head_dim`.
        factor: f32,
    }) where {
        /// Addresses of a layer.
        WORDS = 12,
        /// Sets of rooms.
        SETS = 4,
        /// Slots of weights.
        SLOTS_MAX = 16,
        /// Most features of a linear that a thread block makes.
        FEATURES_MAX = 448,
        /// Most layers.
        COUNT_MAX = 64,
        /// Widest row of the model, and of all query heads.
        HIDDEN_MAX = 3584,
        /// Slots of a pair of row tiles of the feed-forward block at most.
        FFN_SLOTS = 3,
        /// What a room holds until it is written.
        UNWRITTEN = 4294967295,
    }
}
