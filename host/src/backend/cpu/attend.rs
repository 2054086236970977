//! Attention: positions, cache, softmax.
//!
//! The order of operations of a query, whoever computes it beside which other: positions in spans
//! of [`SPAN`]; in a span blocks of 32 with a running maximum; spans merged in ascending order.

use core::ops::Range;

use rayon::prelude::*;
use tercet_core::simd::{FloatRows, FloatRowsMut, Simd};

use super::CpuBackend;
use super::buffer::zeros;
use super::cache::{KvCache, KvNumber};
use super::rope::Rope;
use super::threads::PerThread;
use crate::backend::{DeviceError, Limits, Row};
use crate::config::{HEAD_DIM_MAX, ModelConfig};
use crate::kv::{KEY_BLOCK as BLOCK, KvLayout};
use crate::math;

/// Positions that share a maximum and a sum. Threads share the spans of a long context, so it is
/// part of the order of operations and not of the schedule.
const SPAN: usize = 16 * BLOCK;

/// Most queries that share a decoded block.
const QUERIES: usize = 64;

/// Queries that are mixed together though each sees more of a block than the last: as many as a
/// level has sums for.
const UNLIKE: usize = 4;

/// Elements of keys that are worth a handover to other threads.
const STORE_PARALLEL: usize = 1 << 14;

/// Working memory of attention.
#[derive(Debug)]
pub(super) struct AttendScratch {
    tiles: PerThread<Tile>,
    /// Parts of spans that are computed side by side, `(row, head, span)`.
    parts: Vec<f32>,
    /// Empty between steps: room for what [`by_head`] makes.
    places: Vec<&'static mut [f32]>,
}

impl AttendScratch {
    pub(super) fn new(
        backend: &CpuBackend,
        config: &ModelConfig,
        limits: &Limits,
    ) -> Result<Self, DeviceError> {
        let threads = backend.threads.count();
        let rows = rows_by_span(threads, config).min(limits.rows_max);
        let spans = rows * limits.positions_max.div_ceil(SPAN);
        Ok(Self {
            tiles: PerThread::new(&backend.threads, || Tile::new(config.head_dim))?,
            parts: zeros("attention", spans * config.kv_heads, part_len(config))?,
            places: Vec::with_capacity(limits.rows_max * config.kv_heads),
        })
    }

    /// Bytes of what grows with the session; tiles are a few kilobytes a thread.
    pub(super) fn bytes(&self) -> usize {
        4 * self.parts.len() + size_of::<&mut [f32]>() * self.places.capacity()
    }
}

/// Most rows whose spans are shared out; with more rows their heads are enough for all threads.
fn rows_by_span(threads: usize, config: &ModelConfig) -> usize {
    if threads == 1 {
        return 0;
    }
    ((4 * threads).div_ceil(config.kv_heads) - 1).min(2 * threads - 1)
}

/// Floats of a [`Part`] of the queries of one key/value head.
fn part_len(config: &ModelConfig) -> usize {
    config.heads / config.kv_heads * (padded(config.head_dim) + 2)
}

/// Elements of a value as it is mixed: whole blocks.
fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(BLOCK)
}

/// The operation `attend` on the rows of a step.
#[derive(Debug)]
pub(super) struct Attend<'a> {
    pub(super) backend: &'a CpuBackend,
    pub(super) config: &'a ModelConfig,
    pub(super) rows: &'a [Row],
    /// Angles of the rows, where positions are rotary.
    pub(super) rope: Option<&'a Rope>,
}

impl Attend<'_> {
    /// Turns queries and keys in `qkv`, `(rows, query + 2 * kv)`, stores keys and values, then
    /// attends: all rows are stored before any row looks, so a step may hold many rows of a slot.
    ///
    /// Threads share the heads, cut into groups of rows; where rows and heads are few, the spans of
    /// each head.
    pub(super) fn run<T: KvNumber>(
        &self,
        cache: &mut KvCache<T>,
        layer: usize,
        scratch: &mut AttendScratch,
        qkv: &mut [f32],
        mixed: &mut [f32],
    ) {
        let &Self { config, rows, .. } = self;
        let threads = &self.backend.threads;
        let width = config.query_width() + 2 * config.kv_width();
        let qkv = &mut qkv[..rows.len() * width];
        self.turn(qkv);
        self.store(cache, layer, qkv);

        let (keys, values) = cache.layer(layer);
        let look = Look { step: self, layout: cache.layout(), keys, values, qkv };
        let group = config.query_width() / config.kv_heads;
        let tiles = &scratch.tiles;
        let count = threads.count();
        if rows.len() <= rows_by_span(count, config) {
            let longest = rows.iter().map(|row| row.position + 1).max().unwrap_or(0);
            let spans = longest.div_ceil(SPAN);
            let parts =
                &mut scratch.parts[..rows.len() * config.kv_heads * spans * part_len(config)];
            threads.chunks(parts, part_len(config), |index, part| {
                let (head, span) = (index / spans, index % spans);
                let mut tile = tiles.own();
                look.span_of(&mut tile, head / config.kv_heads, head % config.kv_heads, span, part);
            });
            let heads =
                mixed.chunks_exact_mut(group).zip(parts.chunks_exact(spans * part_len(config)));
            threads.install(|| {
                for (index, (mixed, parts)) in heads.enumerate() {
                    look.merge(&mut tiles.own(), index / config.kv_heads, parts, mixed);
                }
            });
            return;
        }
        // Head by head, so that what a thread looks at stays in its cache from rows to rows.
        let mut places = core::mem::take(&mut scratch.places);
        by_head(mixed, config.kv_heads, group, &mut places);
        let parts = (4 * count).div_ceil(config.kv_heads); // of a head
        let queries = config.heads / config.kv_heads;
        let most = (QUERIES / queries).clamp(1, rows.len().div_ceil(parts));
        let heads = places.par_chunks_mut(rows.len()).enumerate();
        let tasks = heads.flat_map(|(head, places)| {
            let parts = places.par_chunks_mut(most).enumerate();
            parts.map(move |(part, places)| (head, part * most, places))
        });
        threads.install(|| {
            tasks.for_each(|(head, first, places)| {
                look.rows(&mut tiles.own(), head, first, places);
            });
        });
        places.clear();
        // An empty list of other borrows; `collect` keeps its memory.
        let room = places.capacity();
        scratch.places = places.into_iter().map(|_| -> &mut [f32] { &mut [] }).collect();
        debug_assert_eq!(scratch.places.capacity(), room, "nothing is allocated in a step");
    }

    /// Turns queries and keys by their positions.
    fn turn(&self, qkv: &mut [f32]) {
        let Some(rope) = self.rope else { return };
        let config = self.config;
        let turned = config.query_width() + config.kv_width();
        let width = turned + config.kv_width();
        let CpuBackend { threads, simd, .. } = self.backend;
        threads.chunks(qkv, 8 * width, |chunk, qkv| {
            simd.vectorize(
                #[inline(always)]
                || {
                    for (row, qkv) in (8 * chunk..).zip(qkv.chunks_exact_mut(width)) {
                        for head in qkv[..turned].chunks_exact_mut(config.head_dim) {
                            rope.turn(row, head);
                        }
                    }
                },
            );
        });
    }

    /// Puts keys and values into the cache.
    fn store<T: KvNumber>(&self, cache: &mut KvCache<T>, layer: usize, qkv: &[f32]) {
        let &Self { config, rows, .. } = self;
        let (dim, query, kv) = (config.head_dim, config.query_width(), config.kv_width());
        let layout = cache.layout();
        let (keys, values) = cache.layer_mut(layer);
        let one = |row: &Row, head: usize, qkv: &[f32], keys: &mut [T], values: &mut [T]| {
            let mut rounded = [T::ZERO; HEAD_DIM_MAX];
            let rounded = &mut rounded[..dim];
            T::round(&qkv[query + head * dim..][..dim], rounded);
            let places = keys[layout.key_start(row.position)..].iter_mut();
            for (place, x) in places.step_by(BLOCK).zip(&*rounded) {
                *place = *x;
            }
            let place = &mut values[row.position * dim..(row.position + 1) * dim];
            T::round(&qkv[query + kv + head * dim..][..dim], place);
        };
        let elements = layout.head_elements();
        if rows.len() * kv < STORE_PARALLEL {
            for (row, qkv) in rows.iter().zip(qkv.chunks_exact(query + 2 * kv)) {
                for head in 0..config.kv_heads {
                    let start = layout.head_start(row.slot, head);
                    let place = start..start + elements;
                    one(row, head, qkv, &mut keys[place.clone()], &mut values[place]);
                }
            }
            return;
        }
        let heads = keys.par_chunks_mut(elements).zip(values.par_chunks_mut(elements));
        self.backend.threads.install(|| {
            heads.enumerate().for_each(|(index, (keys, values))| {
                let (slot, head) = (index / config.kv_heads, index % config.kv_heads);
                for (row, qkv) in rows.iter().zip(qkv.chunks_exact(query + 2 * kv)) {
                    if row.slot == slot {
                        one(row, head, qkv, keys, values);
                    }
                }
            });
        });
    }
}

/// Puts into `places` those of `mixed`, `(rows, heads, group)`, one a row and head, in the order
/// `(heads, rows)`.
fn by_head<'a>(mixed: &'a mut [f32], heads: usize, group: usize, places: &mut Vec<&'a mut [f32]>) {
    let rows = mixed.len() / (heads * group);
    places.resize_with(rows * heads, Default::default);
    for (index, place) in mixed.chunks_exact_mut(group).enumerate() {
        places[index % heads * rows + index / heads] = place;
    }
}

/// What queries look at: one layer of the cache.
struct Look<'a, T> {
    step: &'a Attend<'a>,
    layout: KvLayout,
    keys: &'a [T],
    values: &'a [T],
    /// `(rows, query + 2 * kv)`
    qkv: &'a [f32],
}

impl<T: KvNumber> Look<'_, T> {
    /// One key/value head of the rows from `first` on, as many as there are `places` for it.
    fn rows(&self, tile: &mut Tile, head: usize, first: usize, places: &mut [&mut [f32]]) {
        let rows = &self.step.rows[first..first + places.len()];
        // Rows that follow each other in a sequence see the same blocks.
        let follows = |a: &Row, b: &Row| a.slot == b.slot && a.position + 1 == b.position;
        let mut done = 0;
        for run in rows.chunk_by(follows) {
            let places = &mut places[done..done + run.len()];
            self.head(tile, first + done, head, places);
            done += run.len();
        }
    }

    /// One key/value head of rows that follow each other, from `first` on; each has a place, the
    /// group of queries that share the head.
    fn head(&self, tile: &mut Tile, first: usize, head: usize, places: &mut [&mut [f32]]) {
        let (simd, dim) = (self.step.backend.simd, self.step.config.head_dim);
        let rows = first..first + places.len();
        let (keys, values) = self.of_head(rows.start, head);
        let queries = self.step.config.heads / self.step.config.kv_heads;
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            tile.take(self, rows.clone(), head * queries + first, count);
            tile.total.clear(tile.count);
            let end = self.step.rows[rows.end - 1].position + 1;
            for start in (0..end).step_by(SPAN) {
                tile.attend_span(simd, keys, values, start..end.min(start + SPAN));
                tile.merge_part(simd, start);
            }
            for (row, place) in places.iter_mut().enumerate() {
                tile.finish(row * count, &mut place[first * dim..(first + count) * dim]);
            }
        }
    }

    /// One span of one head of one row, into a [`Part`].
    fn span_of(&self, tile: &mut Tile, row: usize, head: usize, span: usize, part: &mut [f32]) {
        let config = self.step.config;
        let (keys, values) = self.of_head(row, head);
        let queries = config.heads / config.kv_heads;
        let end = self.step.rows[row].position + 1;
        if span * SPAN >= end {
            return; // of a shorter sequence
        }
        let span = span * SPAN..end.min((span + 1) * SPAN);
        let mut part = PartMut::of(part, queries);
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            tile.take(self, row..row + 1, head * queries + first, count);
            tile.attend_span(self.step.backend.simd, keys, values, span.clone());
            part.copy(first, &tile.part, count);
        }
    }

    /// Merges the parts of one head of a row.
    fn merge(&self, tile: &mut Tile, row: usize, parts: &[f32], mixed: &mut [f32]) {
        let config = self.step.config;
        let queries = config.heads / config.kv_heads;
        let spans = (self.step.rows[row].position + 1).div_ceil(SPAN);
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            tile.count = count;
            tile.ends[..count].fill(usize::MAX);
            tile.total.clear(count);
            for part in parts.chunks_exact(part_len(config)).take(spans) {
                tile.part.load(part, queries, first, count);
                tile.merge_part(self.step.backend.simd, 0);
            }
            tile.finish(0, &mut mixed[first * config.head_dim..(first + count) * config.head_dim]);
        }
    }

    /// Keys and values of a head of the sequence that a row belongs to.
    fn of_head(&self, row: usize, head: usize) -> (&[T], &[T]) {
        let start = self.layout.head_start(self.step.rows[row].slot, head);
        let range = start..start + self.layout.head_elements();
        (&self.keys[range.clone()], &self.values[range])
    }
}

/// Queries of one key/value head that look at the same blocks, and where their softmax stands.
#[derive(Debug)]
struct Tile {
    head_dim: usize,
    /// Queries in use.
    count: usize,
    /// `(count, head_dim)`
    queries: Vec<f32>,
    /// How many positions each query sees, ascending.
    ends: [usize; QUERIES],
    /// A block of keys, `(head_dim, 32)`.
    keys: Vec<f32>,
    /// A block of values, `(32, head_dim)`, and a rest: rows are read `padded` wide. What that
    /// mixes beyond `head_dim` is never looked at.
    values: Vec<f32>,
    /// Scores, then weights, `(count, 32)`.
    weights: Vec<f32>,
    /// The span at work.
    part: Part,
    /// All spans before it.
    total: Part,
}

/// Softmax-weighted sums of some positions, not yet divided.
#[derive(Debug)]
struct Part {
    /// `(count, padded)`
    mixed: Vec<f32>,
    /// Greatest score.
    peaks: [f32; QUERIES],
    /// `Σ exp(score - peak)`
    sums: [f32; QUERIES],
}

impl Part {
    fn new(padded: usize) -> Result<Self, DeviceError> {
        let mixed = zeros("attention", QUERIES, padded)?;
        Ok(Self { mixed, peaks: [0.0; QUERIES], sums: [0.0; QUERIES] })
    }

    /// No position yet.
    fn clear(&mut self, count: usize) {
        let padded = self.mixed.len() / QUERIES;
        self.mixed[..count * padded].fill(0.0);
        self.peaks = [f32::NEG_INFINITY; QUERIES];
        self.sums = [0.0; QUERIES];
    }

    /// Queries `first..first + count` of the `queries` of a stored part.
    fn load(&mut self, part: &[f32], queries: usize, first: usize, count: usize) {
        let padded = self.mixed.len() / QUERIES;
        let (mixed, rest) = part.split_at(queries * padded);
        self.mixed[..count * padded].copy_from_slice(&mixed[first * padded..][..count * padded]);
        self.peaks[..count].copy_from_slice(&rest[first..][..count]);
        self.sums[..count].copy_from_slice(&rest[queries + first..][..count]);
    }
}

/// A part as it is stored: mixed, peaks and sums of all queries of a head.
struct PartMut<'a> {
    mixed: &'a mut [f32],
    peaks: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<'a> PartMut<'a> {
    fn of(part: &'a mut [f32], queries: usize) -> Self {
        let (mixed, rest) = part.split_at_mut(part.len() - 2 * queries);
        let (peaks, sums) = rest.split_at_mut(queries);
        Self { mixed, peaks, sums }
    }

    /// Stores `count` queries of `part` as those from `first` on.
    fn copy(&mut self, first: usize, part: &Part, count: usize) {
        let padded = part.mixed.len() / QUERIES;
        let place = &mut self.mixed[first * padded..][..count * padded];
        place.copy_from_slice(&part.mixed[..count * padded]);
        self.peaks[first..][..count].copy_from_slice(&part.peaks[..count]);
        self.sums[first..][..count].copy_from_slice(&part.sums[..count]);
    }
}

impl Tile {
    fn new(head_dim: usize) -> Result<Self, DeviceError> {
        let padded = padded(head_dim);
        Ok(Self {
            head_dim,
            count: 0,
            queries: zeros("attention", QUERIES, head_dim)?,
            ends: [0; QUERIES],
            keys: zeros("attention", BLOCK, head_dim)?,
            values: zeros("attention", BLOCK + 1, head_dim.max(BLOCK))?,
            weights: zeros("attention", QUERIES, BLOCK)?,
            part: Part::new(padded)?,
            total: Part::new(padded)?,
        })
    }

    /// Takes query heads `first..first + count` of `rows`.
    fn take<T>(&mut self, look: &Look<'_, T>, rows: Range<usize>, first: usize, count: usize) {
        let config = look.step.config;
        let width = config.query_width() + 2 * config.kv_width();
        let elements = count * self.head_dim;
        let taken = self.queries.chunks_exact_mut(elements).zip(self.ends.chunks_exact_mut(count));
        for (row, (queries, ends)) in rows.clone().zip(taken) {
            let from = row * width + first * self.head_dim;
            queries.copy_from_slice(&look.qkv[from..from + elements]);
            ends.fill(look.step.rows[row].position + 1);
        }
        self.count = rows.len() * count;
    }

    /// The positions of a span, for the queries that see any of it, into `part`.
    ///
    /// The softmax runs over blocks with a running maximum: whenever a block raises it, what was
    /// summed before is multiplied by `exp(old - new)`.
    fn attend_span<T: KvNumber>(
        &mut self,
        simd: Simd,
        keys: &[T],
        values: &[T],
        span: Range<usize>,
    ) {
        let (dim, padded) = (self.head_dim, padded(self.head_dim));
        self.part.clear(self.count);
        for first in span.step_by(BLOCK) {
            // The queries that see the block are the last ones.
            let from = self.ends[..self.count].partition_point(|end| *end <= first);
            let seeing = self.count - from;
            let longest = BLOCK.min(self.ends[self.count - 1] - first);
            let start = first * dim;
            T::widen(simd, &keys[start..start + BLOCK * dim], &mut self.keys);
            let stored = &values[start..start + longest * dim];
            T::widen(simd, stored, &mut self.values[..longest * dim]);

            let weights = &mut self.weights[from * BLOCK..self.count * BLOCK];
            weights.fill(0.0);
            simd.add_products(
                [seeing, dim, BLOCK],
                FloatRows { values: &self.queries[from * dim..], stride: dim },
                FloatRows { values: &self.keys, stride: BLOCK },
                FloatRowsMut { values: weights, stride: BLOCK },
            );
            self.weigh(simd, from, first);

            // Queries that see equally much of the block are mixed together; where each sees one
            // position more than the last, a few by what all of them see, then each by its rest.
            let mut query = from;
            while query < self.count {
                let seen = |query: usize| BLOCK.min(self.ends[query] - first);
                let common = seen(query);
                let alike = (query..self.count).take_while(|other| seen(*other) == common).count();
                let together = alike.max(UNLIKE.min(self.count - query));
                let mut mix = |queries: Range<usize>, positions: Range<usize>| {
                    simd.add_products(
                        [queries.len(), positions.len(), padded],
                        FloatRows {
                            values: &self.weights[queries.start * BLOCK + positions.start..],
                            stride: BLOCK,
                        },
                        FloatRows { values: &self.values[positions.start * dim..], stride: dim },
                        FloatRowsMut {
                            values: &mut self.part.mixed[queries.start * padded..],
                            stride: padded,
                        },
                    );
                };
                mix(query..query + together, 0..common);
                for other in query + alike..query + together {
                    mix(other..other + 1, common..seen(other));
                }
                query += together;
            }
        }
    }

    /// Turns scores of the block at position `first` into weights, for the queries from `from` on,
    /// and fades what was summed before.
    fn weigh(&mut self, simd: Simd, from: usize, first: usize) {
        #[allow(clippy::cast_precision_loss, reason = "head_dim is at most 512")]
        let factor = 1.0 / (self.head_dim as f32).sqrt();
        let padded = padded(self.head_dim);
        let weights = self.weights.as_chunks_mut::<BLOCK>().0;
        let Part { mixed, peaks, sums } = &mut self.part;
        simd.vectorize(
            #[inline(always)]
            || {
                // Loop by loop over all queries: each becomes vectors, all together would not.
                let weights = &mut weights[from..self.count];
                for weight in weights.as_flattened_mut() {
                    *weight *= factor;
                }
                let mut raised = *peaks;
                for (query, weights) in (from..).zip(weights.iter_mut()) {
                    // Nothing that counts is stored beyond the end; exp(-inf) = 0 keeps it out.
                    let seen = BLOCK.min(self.ends[query] - first);
                    weights[seen..].fill(f32::NEG_INFINITY);
                    raised[query] = peaks[query].max(math::peak(weights));
                }
                let mut fades = [0.0; QUERIES];
                let seeing = from..self.count;
                let both = peaks[seeing.clone()].iter_mut().zip(&raised[seeing.clone()]);
                for (fade, (old, new)) in fades[seeing].iter_mut().zip(both) {
                    *fade = math::exp(*old - new);
                    *old = *new;
                }
                for (query, weights) in (from..).zip(weights.iter_mut()) {
                    let peak = raised[query];
                    for weight in weights.iter_mut() {
                        *weight = math::exp(*weight - peak);
                    }
                }
                for (query, weights) in (from..).zip(weights.iter()) {
                    let fade = fades[query];
                    sums[query] = sums[query] * fade + math::fold(weights);
                    // Most blocks raise nothing, and times one is nothing to do.
                    if fade != 1.0 {
                        for mixed in &mut mixed[query * padded..(query + 1) * padded] {
                            *mixed *= fade;
                        }
                    }
                }
            },
        );
    }

    /// Adds the part to the total, for the queries that see positions from `start` on.
    fn merge_part(&mut self, simd: Simd, start: usize) {
        let padded = padded(self.head_dim);
        let from = self.ends[..self.count].partition_point(|end| *end <= start);
        let (part, total) = (&self.part, &mut self.total);
        simd.vectorize(
            #[inline(always)]
            || {
                for query in from..self.count {
                    let peak = total.peaks[query].max(part.peaks[query]);
                    let old = math::exp(total.peaks[query] - peak);
                    let new = math::exp(part.peaks[query] - peak);
                    total.peaks[query] = peak;
                    total.sums[query] = total.sums[query] * old + part.sums[query] * new;
                    let place = query * padded..(query + 1) * padded;
                    let mixed = total.mixed[place.clone()].iter_mut().zip(&part.mixed[place]);
                    for (total, part) in mixed {
                        *total = *total * old + *part * new;
                    }
                }
            },
        );
    }

    /// The mix of the queries from `first` on, as many as `mixed`, `(queries, head_dim)`, holds.
    fn finish(&self, first: usize, mixed: &mut [f32]) {
        let padded = padded(self.head_dim);
        let rows = self.total.mixed.chunks_exact(padded).zip(&self.total.sums).skip(first);
        for (out, (row, sum)) in mixed.chunks_exact_mut(self.head_dim).zip(rows) {
            for (out, x) in out.iter_mut().zip(row) {
                *out = x / sum;
            }
        }
    }
}
