//! Loops over floats in 32 lanes: what a level needs to give, and the loops themselves.
//!
//! A lane is a running sum of its own, and lanes are folded in one order, so the width of a
//! register shows in no result. A product and a sum round separately on every level.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Numbers of a block; element `i` of a row belongs to lane `i % 32`.
pub(super) const LANES: usize = 32;

/// A block of 32 singles in registers. The implementor is the proof that there are such registers.
pub(super) trait Lanes: Copy {
    type Block: Copy;

    fn splat(self, x: f32) -> Self::Block;
    fn load(self, x: &[f32; LANES]) -> Self::Block;
    fn store(self, block: Self::Block, out: &mut [f32; LANES]);
    fn add(self, a: Self::Block, b: Self::Block) -> Self::Block;
    fn mul(self, a: Self::Block, b: Self::Block) -> Self::Block;
    fn load_f32(self, x: &[[u8; 4]; LANES]) -> Self::Block;
    fn load_f16(self, x: &[[u8; 2]; LANES]) -> Self::Block;
    fn load_bf16(self, x: &[[u8; 2]; LANES]) -> Self::Block;
    fn load_i8(self, x: &[i8; LANES]) -> Self::Block;
    /// Asks for the cache line at `address`, which may lie anywhere.
    fn prefetch(self, address: *const u8);
}

/// A way to store numbers.
pub(super) trait Number {
    type Bytes: Copy;
    const ZERO: Self::Bytes;

    fn load<L: Lanes>(lanes: L, x: &[Self::Bytes; LANES]) -> L::Block;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;
pub(super) struct I8;

impl Number for F32 {
    type Bytes = [u8; 4];
    const ZERO: [u8; 4] = [0; 4];

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, x: &[[u8; 4]; LANES]) -> L::Block {
        lanes.load_f32(x)
    }
}

impl Number for F16 {
    type Bytes = [u8; 2];
    const ZERO: [u8; 2] = [0; 2];

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, x: &[[u8; 2]; LANES]) -> L::Block {
        lanes.load_f16(x)
    }
}

impl Number for Bf16 {
    type Bytes = [u8; 2];
    const ZERO: [u8; 2] = [0; 2];

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, x: &[[u8; 2]; LANES]) -> L::Block {
        lanes.load_bf16(x)
    }
}

impl Number for I8 {
    type Bytes = i8;
    const ZERO: i8 = 0;

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, x: &[i8; LANES]) -> L::Block {
        lanes.load_i8(x)
    }
}

/// `$work::<number>($numbers)` for the number type of `$stored`.
macro_rules! on_number {
    ($stored:expr, $numbers:ident, $number:ident => $work:expr) => {
        match $stored {
            $crate::stored::Stored::F32($numbers) => {
                type $number = $crate::simd::lanes::F32;
                $work
            }
            $crate::stored::Stored::F16($numbers) => {
                type $number = $crate::simd::lanes::F16;
                $work
            }
            $crate::stored::Stored::Bf16($numbers) => {
                type $number = $crate::simd::lanes::Bf16;
                $work
            }
            $crate::stored::Stored::I8($numbers) => {
                type $number = $crate::simd::lanes::I8;
                $work
            }
        }
    };
}
use on_number;

/// Rows of floats, of which the first columns count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(self, row: usize, cols: usize) -> &'a [f32] {
        &self.values[row * self.stride..][..cols]
    }
}

/// `out[i] = numbers[i]`, equally many.
#[inline(always)]
fn widen<L: Lanes, N: Number>(lanes: L, numbers: &[N::Bytes], out: &mut [f32]) {
    let (blocks, rest) = numbers.as_chunks::<LANES>();
    let (places, places_left) = out.as_chunks_mut::<LANES>();
    for (block, place) in blocks.iter().zip(places) {
        lanes.store(N::load(lanes, block), place);
    }
    if !rest.is_empty() {
        let mut padded = [N::ZERO; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        let mut place = [0.0; LANES];
        lanes.store(N::load(lanes, &padded), &mut place);
        places_left.copy_from_slice(&place[..rest.len()]);
    }
}

/// `out[r · batch + b] = dot(weights row r, x row b)`, `B` rows of `x` at a time. `weights` is
/// `(rows, cols)`, `out` `(rows, batch)`.
#[inline(always)]
fn dots<L: Lanes, N: Number, const B: usize>(
    lanes: L,
    weights: &[N::Bytes],
    cols: usize,
    x: Rows<'_>,
    batch: usize,
    out: &mut [f32],
) {
    for (weights, out) in weights.chunks_exact(cols).zip(out.chunks_exact_mut(batch)) {
        let mut b = 0;
        while b + B <= batch {
            dot_tile::<L, N, B>(lanes, weights, x, b, &mut out[b..b + B]);
            b += B;
        }
        while b < batch {
            dot_tile::<L, N, 1>(lanes, weights, x, b, &mut out[b..=b]);
            b += 1;
        }
    }
}

/// One row of weights with `B` rows of `x` from `first` on.
#[inline(always)]
fn dot_tile<L: Lanes, N: Number, const B: usize>(
    lanes: L,
    weights: &[N::Bytes],
    x: Rows<'_>,
    first: usize,
    out: &mut [f32],
) {
    /// Rows follow each other in memory: what is read so much later may be the next row's.
    const AHEAD: usize = 4096;
    let (blocks, rest) = weights.as_chunks::<LANES>();
    let mut rows: [(&[[f32; LANES]], &[f32]); B] = [(&[], &[]); B];
    for (b, row) in rows.iter_mut().enumerate() {
        let (blocks_of_row, rest) = x.row(first + b, weights.len()).as_chunks::<LANES>();
        *row = (&blocks_of_row[..blocks.len()], rest);
    }
    let mut sums = [lanes.splat(0.0); B];
    for (k, block) in blocks.iter().enumerate() {
        for line in (0..size_of_val(block)).step_by(64) {
            lanes.prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD + line));
        }
        let block = N::load(lanes, block);
        for b in 0..B {
            let product = lanes.mul(block, lanes.load(&rows[b].0[k]));
            sums[b] = lanes.add(sums[b], product);
        }
    }
    if !rest.is_empty() {
        let mut padded = [N::ZERO; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        let block = N::load(lanes, &padded);
        for b in 0..B {
            let mut padded = [0.0; LANES];
            padded[..rest.len()].copy_from_slice(rows[b].1);
            let product = lanes.mul(block, lanes.load(&padded));
            sums[b] = lanes.add(sums[b], product);
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        let mut numbers = [0.0; LANES];
        lanes.store(sum, &mut numbers);
        *out = fold(&numbers);
    }
}

/// The upper half onto the lower half until one is left.
#[inline(always)]
pub(crate) fn fold(x: &[f32; LANES]) -> f32 {
    let (mut sums, mut width) = (*x, LANES / 2);
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// A matrix product that is added to what is there: `sums[m, n] += Σ_k factors[m, k] · rows[k, n]`.
#[derive(Debug)]
pub(super) struct AddProducts<'a> {
    /// `(count, depth)`
    pub(super) factors: Rows<'a>,
    /// `(depth, width)`
    pub(super) rows: Rows<'a>,
    /// `(count, stride)`, of which the first `width` columns change.
    pub(super) sums: &'a mut [f32],
    pub(super) sums_stride: usize,
    pub(super) count: usize,
    pub(super) depth: usize,
    /// A multiple of 32.
    pub(super) width: usize,
}

/// The product, `M` rows of factors at a time.
#[inline(always)]
fn add_products<L: Lanes, const M: usize>(lanes: L, mut product: AddProducts<'_>) {
    let mut m = 0;
    while m + M <= product.count {
        product_band::<L, M>(lanes, &mut product, m);
        m += M;
    }
    while m < product.count {
        product_band::<L, 1>(lanes, &mut product, m);
        m += 1;
    }
}

/// `M` rows of the product, from `first` on.
#[inline(always)]
fn product_band<L: Lanes, const M: usize>(lanes: L, product: &mut AddProducts<'_>, first: usize) {
    let AddProducts { factors, rows, sums, sums_stride, depth, width, .. } = product;
    let (stride, depth) = (*sums_stride, *depth);
    let mut factor: [&[f32]; M] = [&[]; M];
    for (m, factor) in factor.iter_mut().enumerate() {
        *factor = factors.row(first + m, depth);
    }
    for n in (0..*width).step_by(LANES) {
        let mut running = [lanes.splat(0.0); M];
        for m in 0..M {
            running[m] = lanes.load(block(&sums[(first + m) * stride + n..]));
        }
        for k in 0..depth {
            let row = lanes.load(block(&rows.values[k * rows.stride + n..]));
            for (running, factor) in running.iter_mut().zip(&factor) {
                let product = lanes.mul(lanes.splat(factor[k]), row);
                *running = lanes.add(*running, product);
            }
        }
        for m in 0..M {
            let place = sums[(first + m) * stride + n..].first_chunk_mut();
            lanes.store(running[m], place.expect("a block lies inside its row"));
        }
    }
}

#[inline(always)]
fn block(x: &[f32]) -> &[f32; LANES] {
    x.first_chunk().expect("a block lies inside its row")
}
