//! Argument blocks of the kernels that compute with floats: embedding, norms, float linears,
//! attention over many rows, sampling.

use super::{
    Argument, ArgumentBlock, Constant, DevicePtr, DevicePtrMut, Field, KernelSpec, sealed,
};

kernels! {
    /// `hidden[r, :] = table[tokens[r], :]`, plus `learned[positions[r] + learned_offset, :]` where
    /// there is such a table. Equal to the CPU to the bit.
    ///
    /// Grid: one block per row. A row whose position is `NONE` becomes zero.
    fn embed[256](EmbedArgs {
        /// `(vocab, cols)` of form `table_form`, 16-byte aligned; where `tiled` is not 0, the tiles
        /// that `tile_weights` makes of it.
        table: DevicePtr<u8>,
        /// `(positions, cols)` of form `learned_form`, 16-byte aligned; or null.
        learned: DevicePtr<u8>,
        /// `(rows)`, below the vocabulary.
        tokens: DevicePtr<u32>,
        /// `(rows)`; `NONE` marks a row that only fills up the batch.
        positions: DevicePtr<u32>,
        /// `(rows, cols)`; every element is written.
        hidden: DevicePtrMut<f32>,
        /// Multiple of 4.
        cols: u32,
        /// `F16`, `BF16` or `F32`.
        table_form: u32,
        /// `F16`, `BF16` or `F32`.
        learned_form: u32,
        /// Rows at the top of `learned` that stand for no position.
        learned_offset: u32,
        /// Whether `table` is tiles.
        tiled: u32,
        /// Zero.
        reserved: u32,
    }) where {
        /// Position of a row that is none.
        NONE = 4294967295,
        /// Half precision.
        F16 = 0,
        /// The upper half of a single.
        BF16 = 1,
        /// Single precision.
        F32 = 2,
    }

    /// Rows normalised as the CPU does, to the bit, and split into the 16-bit terms that float
    /// linears multiply.
    ///
    /// Row `r` of the output is row `asking[r]` of `x`; where that is `NONE`, nothing is written.
    /// RMS norm: `(x · inverse_rms) · weight`; layer norm (with `bias`): `((x - mean) ·
    /// inverse_deviation) · weight + bias`; no norm without `weight`. Form `F16`: `x · 2^k = hi +
    /// lo`, where the power of two puts the row's peak below `2^14`; form `BF16`: `x = hi + mid +
    /// lo`. Terms are rounded to nearest even, each the rest of the ones before.
    ///
    /// Grid: one block per row of the output.
    fn normalize[1024](NormalizeArgs {
        /// `(_, cols)`, 16-byte aligned.
        x: DevicePtr<f32>,
        /// `(cols)`, 16-byte aligned; or null for no norm.
        weight: DevicePtr<f32>,
        /// `(cols)`, 16-byte aligned; or null for an RMS norm.
        bias: DevicePtr<f32>,
        /// `(rows)`; or null for each row in its place.
        asking: DevicePtr<u32>,
        /// `(rows, cols)`, 16-byte aligned; or null.
        normed: DevicePtrMut<f32>,
        /// `(rows, 2 or 3, terms_stride)`, 16-byte aligned; or null. Zero from `cols` on. With
        /// `tile_cols` the same numbers as tiles `(cols / tile_cols, row_blocks, 2 or 3, units,
        /// 2, 2, 8, 4, 2)`: columns, blocks of eight rows, term, 32 columns of a tile of 64; then
        /// of the eight rows one by one what four lanes multiply at a time, each two neighbouring
        /// columns of the eight (sixteen of 64) that it has.
        terms: DevicePtrMut<u16>,
        /// `(rows)`: `2^-k` of form `F16`; or null.
        scales: DevicePtrMut<f32>,
        /// Multiple of 4, at most `COLS_MAX`.
        cols: u32,
        /// Multiple of 64, at least `cols`.
        terms_stride: u32,
        /// `F16` or `BF16`.
        form: u32,
        /// Added to the mean square.
        eps: f32,
        /// 32 or 64, with `I8` weights: columns of a tile; or 0 for terms row by row.
        tile_cols: u32,
        /// Rows of the output in eights, rounded up; of tiles.
        row_blocks: u32,
    }) where {
        /// Entry of `asking` that asks for nothing.
        NONE = 4294967295,
        /// Two terms of half precision, scaled.
        F16 = 0,
        /// Three terms, each the upper half of a single.
        BF16 = 1,
        /// Widest row.
        COLS_MAX = 131072,
    }

    /// Brings weights into the order in which float linears read them: tiles of 16 features by a
    /// chunk of 32 columns (64 of `I8`), chunk fastest, zero beyond the sides.
    ///
    /// A tile is pieces of 16 bytes, `(2, 1 (2 for F32), 32)`: feature `g` or `g + 8`, then the
    /// first or second half of a lane's columns, then lane `4 g + q`, which has columns `8 q..8 q +
    /// 8` (`16 q..16 q + 16` of `I8`).
    ///
    /// Grid: one block per 16 features. Runs of rows may be brought over one after the other.
    fn tile_weights[256](TileWeightsArgs {
        /// `(features, cols)`, row-major, 4-byte aligned.
        rows: DevicePtr<u8>,
        /// `(features / 16, cols / chunk)` tiles, both rounded up; 16-byte aligned.
        tiles: DevicePtrMut<u8>,
        /// At least 1.
        features: u32,
        /// Multiple of 4.
        cols: u32,
        /// `BITS16`, `F32` or `I8`.
        form: u32,
        /// Zero.
        reserved: u32,
    }) where {
        /// Numbers of 16 bits.
        BITS16 = 0,
        /// Singles.
        F32 = 2,
        /// Signed bytes.
        I8 = 3,
    }

    /// `value[b, f] = Σ_c weights[f, c] · rows[b, c] (+ bias[f])`, combined with `out` by
    /// `epilogue`; near single precision.
    ///
    /// The sum of an element: stretches of `STRETCH` columns, each a chain of tensor core products
    /// in one order, added up from the left. So a row's bits depend neither on the rows beside it
    /// nor on the split, and are the same from the entries for few rows, for some (`narrow`) and
    /// for many (`wide`).
    ///
    /// Launch: `launch::FloatLinearShape`.
    fn float_linear_f16, float_linear_bf16, float_linear_f32, float_linear_i8,
        float_linear_narrow_f16, float_linear_narrow_bf16, float_linear_narrow_f32,
        float_linear_narrow_i8, float_linear_wide_f16, float_linear_wide_bf16,
        float_linear_wide_i8[256](FloatLinearArgs {
        /// What `tile_weights` makes of `(features, cols)` numbers of the entry's type.
        weights: DevicePtr<u8>,
        /// `(rows, 2 or 3, terms_stride)`, from `normalize`: form `F16` for `f16` and `i8` weights,
        /// `BF16` for `bf16` and `f32`. 16-byte aligned.
        terms: DevicePtr<u16>,
        /// `(rows)`, from `normalize`; read for `f16` and `i8` weights only.
        scales: DevicePtr<f32>,
        /// `(features)`: what weight 1 is worth, the factor of the sum; or null.
        units: DevicePtr<f32>,
        /// `(features)`; or null.
        bias: DevicePtr<f32>,
        /// Element `(b, f)` stands at `b · out_stride + offset + f`.
        out: DevicePtrMut<f32>,
        /// At least 1.
        features: u32,
        /// At least 1.
        cols: u32,
        /// At least 1.
        rows: u32,
        /// Numbers from one term to the next: a multiple of 64, at least `cols`.
        terms_stride: u32,
        /// Elements from one row of `out` to the next.
        out_stride: u32,
        /// First feature's place in a row of `out`.
        offset: u32,
        /// `STORE`, `ADD`, `ACTIVATE` or `GATE`.
        epilogue: u32,
        /// `SILU`, `RELU2` or `RELU`, of `ACTIVATE` and `GATE`.
        activation: u32,
    }) where {
        /// Features of a tile.
        TILE_FEATURES = 16,
        /// Rows of a block of the grid of the entries for few rows.
        BLOCK_ROWS = 8,
        /// Features of a block of the other entries.
        MANY_FEATURES = 128,
        /// Rows of a block of the `narrow` entries.
        NARROW_ROWS = 32,
        /// Rows of a block of the `wide` entries.
        WIDE_ROWS = 128,
        /// Most shared memory of a block of the `narrow` entries, in bytes, in PTX for 8.0.
        SHARED_NARROW_SM_80 = 98304,
        /// As above, for 9.0.
        SHARED_NARROW_SM_90 = 114688,
        /// Most shared memory of a block of the `wide` entries, in bytes, in PTX for 8.0.
        SHARED_WIDE_SM_80 = 98304,
        /// As above, for 9.0.
        SHARED_WIDE_SM_90 = 229376,
        /// Columns of a stretch of the sum.
        STRETCH = 256,
        /// Columns that a lane of the entries for few rows asks for at a time.
        BATCH_COLS = 64,
        /// Bytes of shared memory that such a lane has for weights on the way.
        LANE_BYTES = 320,
        /// The same where two tiles are taken together.
        PAIR_LANE_BYTES = 256,
        /// Features from which the `i8` entry for few rows takes two tiles together.
        PAIR_FEATURES = 16384,
        /// `out = value`.
        STORE = 0,
        /// `out += value`.
        ADD = 1,
        /// `out = activation(value)`.
        ACTIVATE = 2,
        /// `out = activation(out) · value`.
        GATE = 3,
        /// `x / (1 + exp(-x))`.
        SILU = 0,
        /// `max(x, 0)²`.
        RELU2 = 1,
        /// `max(x, 0)`.
        RELU = 2,
    }

    /// As `float_linear`, for many rows, on Hopper's matrix instruction; the bits are those of
    /// [`FloatLinearArgs`]' entries.
    ///
    /// Launch: `launch::FloatLinearShape::hopper`.
    fn float_linear_hopper_f16, float_linear_hopper_bf16,
        float_linear_hopper_i8[384](FloatLinearHopperArgs {
        /// As in [`FloatLinearArgs`].
        weights: DevicePtr<u8>,
        /// Tiles of `launch::FloatLinearShape::tile_cols` columns, from `normalize`.
        terms: DevicePtr<u16>,
        /// As in [`FloatLinearArgs`].
        scales: DevicePtr<f32>,
        /// As in [`FloatLinearArgs`].
        units: DevicePtr<f32>,
        /// As in [`FloatLinearArgs`].
        bias: DevicePtr<f32>,
        /// As in [`FloatLinearArgs`].
        out: DevicePtrMut<f32>,
        /// At least 1.
        features: u32,
        /// At least 1.
        cols: u32,
        /// At least 1.
        rows: u32,
        /// Elements from one row of `out` to the next.
        out_stride: u32,
        /// First feature's place in a row of `out`.
        offset: u32,
        /// As in [`FloatLinearArgs`].
        epilogue: u32,
        /// As in [`FloatLinearArgs`].
        activation: u32,
        /// Zero.
        reserved: u32,
    }) where {
        /// Features of a block at a time.
        FEATURES = 128,
        /// Rows of a block at a time.
        ROWS = 128,
        /// Shared memory of a block, in bytes.
        SHARED_BYTES = 229376,
    }

    /// Turns queries and keys by their rows' positions and stores keys and values in the cache.
    /// Equal to the CPU to the bit.
    ///
    /// Element `i` of a head turns with element `i + head_dim / 2`. Keys stand in the cache as
    /// `(slot, kv_head, position / 32, head_dim, position % 32)`, values as `(slot, kv_head,
    /// position, head_dim)`; halves are rounded to nearest even.
    ///
    /// Grid: `launch::rope_store_grid`.
    fn rope_store[256](RopeStoreArgs {
        /// `(rows, query + 2 kv)`: queries, keys, values; queries and keys are turned in place.
        qkv: DevicePtrMut<f32>,
        /// `(rows)`; `NONE` marks a row that only fills up the batch.
        positions: DevicePtr<u32>,
        /// `(rows)`
        slots: DevicePtr<u32>,
        /// `(positions, head_dim / 2)`; or null where positions are not rotary.
        cos: DevicePtr<f32>,
        /// As `cos`.
        sin: DevicePtr<f32>,
        /// Keys of the layer.
        keys: DevicePtrMut<u8>,
        /// Values of the layer.
        values: DevicePtrMut<u8>,
        /// At least 1.
        rows: u32,
        /// Query heads.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
        /// Even, at most `HEAD_DIM_MAX`.
        head_dim: u32,
        /// Positions of a slot, a multiple of `KEY_BLOCK`.
        capacity: u32,
        /// `F16` or `F32`: numbers of the cache.
        kv: u32,
    }) where {
        /// Position of a row that is none.
        NONE = 4294967295,
        /// Rows of a thread block.
        BLOCK_ROWS = 32,
        /// Positions of a block of keys.
        KEY_BLOCK = 32,
        /// Widest head.
        HEAD_DIM_MAX = 256,
        /// Half precision.
        F16 = 0,
        /// Single precision.
        F32 = 1,
    }

    /// `mixed[b, h] = Σ_t softmax_t(q[b, h] · k[t] / √head_dim) v[t]` over the positions up to the
    /// row's own, in the CPU's order of operations and equal to it to the bit; `f16` and `f32` are
    /// the numbers of the cache.
    ///
    /// A row's bits do not depend on the tiles.
    ///
    /// Launch: `launch::AttendRowsShape`.
    fn attend_rows_exact_f16, attend_rows_exact_f32[256](AttendRowsExactArgs {
        /// `(rows, query + 2 kv)` after `rope_store`.
        qkv: DevicePtr<f32>,
        /// Keys of the layer.
        keys: DevicePtr<u8>,
        /// Values of the layer.
        values: DevicePtr<u8>,
        /// `(rows)`
        positions: DevicePtr<u32>,
        /// `(rows)`
        slots: DevicePtr<u32>,
        /// `(tiles, 2)`: first row, and number of rows from 1 to `TILE_ROWS`: of one slot, at
        /// consecutive positions.
        tiles: DevicePtr<u32>,
        /// `(rows, query)`; the rows of the tiles are written.
        mixed: DevicePtrMut<f32>,
        /// Query heads: a multiple of `kv_heads`.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
        /// At most `HEAD_DIM_MAX`.
        head_dim: u32,
        /// Positions of a slot, a multiple of `KEY_BLOCK`.
        capacity: u32,
    }) where {
        /// Most rows of a tile.
        TILE_ROWS = 64,
        /// Positions of a block of keys.
        KEY_BLOCK = 32,
        /// Widest head.
        HEAD_DIM_MAX = 256,
    }

    /// As `attend_rows_exact`, on tensor cores, for a cache of halves and the head width in the
    /// entry's name; near single precision.
    ///
    /// Keys are taken in blocks of 64 positions counted from the start of the slot, and a block
    /// beyond a row's position leaves its bits alone: they do not depend on the tiles, and so
    /// neither on the chunks of a prefill.
    ///
    /// Launch: `launch::AttendRowsShape`.
    fn attend_rows_f16_64, attend_rows_f16_96, attend_rows_f16_100, attend_rows_f16_128,
        attend_rows_f16_256[128](AttendRowsArgs {
        /// `(rows, query + 2 kv)` after `rope_store`.
        qkv: DevicePtr<f32>,
        /// Keys of the layer, 16-byte aligned.
        keys: DevicePtr<u16>,
        /// Values of the layer, 16-byte aligned.
        values: DevicePtr<u16>,
        /// `(rows)`
        positions: DevicePtr<u32>,
        /// `(rows)`
        slots: DevicePtr<u32>,
        /// `(tiles, 2)`: first row, and number of rows from 1 to `TILE_ROWS`: of one slot, at
        /// consecutive positions.
        tiles: DevicePtr<u32>,
        /// `(rows, query)`; the rows of the tiles are written.
        mixed: DevicePtrMut<f32>,
        /// Query heads: a multiple of `kv_heads`.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
        /// That in the entry's name.
        head_dim: u32,
        /// Positions of a slot, a multiple of `KEY_BLOCK`.
        capacity: u32,
    }) where {
        /// Most rows of a tile.
        TILE_ROWS = 64,
        /// Positions of a block of keys.
        KEY_BLOCK = 32,
        /// Most bytes of shared memory: what every device has.
        SHARED_MAX = 101376,
    }

    /// As `attend_rows_f16`, on Hopper's matrix instruction; the bits are those of
    /// [`AttendRowsArgs`]' entries.
    ///
    /// Launch: `launch::AttendRowsShape::launch_hopper`.
    fn attend_rows_hopper_f16_64, attend_rows_hopper_f16_96, attend_rows_hopper_f16_100,
        attend_rows_hopper_f16_128[384](AttendRowsHopperArgs {
        /// As in [`AttendRowsArgs`].
        qkv: DevicePtr<f32>,
        /// As in [`AttendRowsArgs`].
        keys: DevicePtr<u16>,
        /// As in [`AttendRowsArgs`].
        values: DevicePtr<u16>,
        /// As in [`AttendRowsArgs`].
        positions: DevicePtr<u32>,
        /// As in [`AttendRowsArgs`].
        slots: DevicePtr<u32>,
        /// As in [`AttendRowsArgs`], with up to this block's `TILE_ROWS`.
        tiles: DevicePtr<u32>,
        /// As in [`AttendRowsArgs`].
        mixed: DevicePtrMut<f32>,
        /// As in [`AttendRowsArgs`].
        heads: u32,
        /// As in [`AttendRowsArgs`].
        kv_heads: u32,
        /// As in [`AttendRowsArgs`].
        head_dim: u32,
        /// As in [`AttendRowsArgs`].
        capacity: u32,
    }) where {
        /// Most rows of a tile.
        TILE_ROWS = 128,
        /// Positions that are in shared memory together.
        POSITIONS = 64,
        /// As many times: some used, others on the way.
        STAGES = 4,
        /// Bytes of shared memory, from a multiple of as many.
        ALIGNMENT = 1024,
    }

    /// The next token of each row of logits: `host/src/sampler.rs`, with the random number given.
    ///
    /// Equal to it but for sums of weights, which are added up in another order, in double
    /// precision: a number within 1e-12 of the border between two tokens may fall to the other.
    ///
    /// Grid: a block per row, or (capability 9.0) a cluster of up to `PARTS_MAX` blocks, which look
    /// at the row together.
    fn choose[1024](ChooseArgs {
        /// `(rows, vocab)`, 16-byte aligned.
        logits: DevicePtr<f32>,
        /// `(rows, vocab / 32 rounded up)`: a bit for every token of the context, from the lowest;
        /// the token chosen is added. Or null for no penalty.
        seen: DevicePtrMut<u32>,
        /// In `0..1`, for every row; read where `temperature` is not 0.
        uniform: f64,
        /// `(rows, vocab)` to work in; where `temperature` is not 0.
        weights: DevicePtrMut<f32>,
        /// `(rows)`: the token; 0 where a logit is not finite.
        chosen: DevicePtrMut<u32>,
        /// `(rows)`: the first token whose logit is not finite, or `NONE`.
        faults: DevicePtrMut<u32>,
        /// Where the host looks for the answer of the first row, in memory of its own, 8-byte
        /// aligned: the token, or `FAULT` plus the first whose logit is not finite; and `serial`.
        /// The two words change at once. Or null.
        told: DevicePtrMut<u32>,
        /// Where the position of a step behind this is written: `next`. Or null.
        position: DevicePtrMut<u32>,
        /// See `told`.
        serial: u32,
        /// See `position`.
        next: u32,
        /// At least 1.
        vocab: u32,
        /// Keeps the `k` most likely tokens; 0 is off.
        top_k: u32,
        /// Divides the logits; 0 takes the largest one.
        temperature: f32,
        /// Divides (multiplies, where negative) the logits of tokens in `seen`.
        repetition_penalty: f32,
        /// Keeps the most likely tokens that together reach probability `p`; 1 is off.
        top_p: f32,
        /// Keeps tokens at least `p` times as likely as the most likely one; 0 is off.
        min_p: f32,
    }) where {
        /// No token.
        NONE = 4294967295,
        /// Marks a token that was not chosen.
        FAULT = 2147483648,
        /// Most blocks of a row: what every device with clusters can have of them.
        PARTS_MAX = 8,
    }
}
