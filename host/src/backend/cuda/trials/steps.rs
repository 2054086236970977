//! The steps of a trial: lists of rows.

use crate::backend::{KvType, Limits, Row, TokenId};

/// Sequences of a trial in lock step.
pub(super) const SLOTS: usize = 17;

/// Rows of the steps that prefill one sequence: from one row on past every size at which the
/// device takes another kernel, and across the blocks of the cache.
pub(super) const PREFILLS: [usize; 7] = [1, 2, 9, 20, 40, 70, 260];

/// Slots and rows of the steps in which no row but the last of its sequence asks.
const RAGGED: [[(usize, usize); 5]; 2] =
    [[(1, 5), (2, 33), (3, 64), (4, 1), (5, 31)], [(2, 31), (1, 3), (0, 2), (5, 1), (3, 1)]];

/// Any token, not the same at neighbouring places.
fn token(vocab: usize, slot: usize, position: usize) -> TokenId {
    #[allow(clippy::cast_possible_truncation, reason = "a vocabulary is below 2^24")]
    let token = ((slot * 7919 + position * 611_953 + 5) % vocab) as TokenId;
    token
}

/// Hands out rows; a sequence goes on where it ended.
struct Sequences {
    vocab: usize,
    /// Positions of each slot so far.
    positions: [usize; BATCH],
}

impl Sequences {
    fn new(vocab: usize) -> Self {
        Self { vocab, positions: [0; BATCH] }
    }

    /// The next `rows` rows of `slot`; `asks` says which ask.
    fn next(&mut self, slot: usize, rows: usize, asks: fn(usize, usize) -> bool) -> Vec<Row> {
        let first = self.positions[slot];
        self.positions[slot] += rows;
        let row = |index| {
            let position = first + index;
            let logits = asks(index, rows);
            Row { slot, position, token: token(self.vocab, slot, position), logits }
        };
        (0..rows).map(row).collect()
    }
}

fn all(_: usize, _: usize) -> bool {
    true
}

fn last(index: usize, rows: usize) -> bool {
    index + 1 == rows
}

/// The steps that are compared operation by operation: one sequence in steps of all sizes, a token,
/// ragged steps of several sequences, batches of every size. `wide` models get fewer batches.
pub(super) fn lock_step(vocab: usize, wide: bool) -> Vec<Vec<Row>> {
    let mut to = Sequences::new(vocab);
    let mut steps: Vec<_> = PREFILLS.iter().map(|&rows| to.next(0, rows, all)).collect();
    steps.push(to.next(0, 1, all));
    for step in RAGGED {
        steps.push(step.iter().flat_map(|&(slot, rows)| to.next(slot, rows, last)).collect());
    }
    let sizes = (1..=SLOTS).filter(|size| !wide || [2, 8, 17].contains(size));
    for size in sizes {
        // Not in the order of the slots.
        let slots = (0..size).map(|index| (index * 5 + size) % SLOTS);
        steps.push(slots.flat_map(|slot| to.next(slot, 1, all)).collect());
    }
    steps
}

/// Most sequences of a batch whose rows are also stepped alone: enough for the kernels that are for
/// many of them.
const BATCH: usize = 64;

/// Sizes of these batches: recordings are padded to powers of two.
const BATCHES: [usize; 6] = [16, 3, BATCH, 5, BATCH - 7, 13];

/// Rows of the prompt of `slot`: from one block of the cache to more than a warp takes.
fn prompt(slot: usize) -> usize {
    2 + 5 * (slot % 32)
}

/// A prompt for each sequence of a batch, of different lengths.
pub(super) fn prompts(vocab: usize) -> Vec<Vec<Row>> {
    let mut to = Sequences::new(vocab);
    (0..BATCH).map(|slot| to.next(slot, prompt(slot), all)).collect()
}

/// Batches that go on behind the prompts.
pub(super) fn batches(vocab: usize) -> Vec<Vec<Row>> {
    let mut to = Sequences::new(vocab);
    for slot in 0..BATCH {
        to.next(slot, prompt(slot), all);
    }
    let batch = |&size: &usize| (0..size).flat_map(|slot| to.next(slot, 1, all)).collect();
    BATCHES.iter().map(batch).collect()
}

/// A prompt at once, and the same in chunks of `size` rows.
pub(super) fn chunked(vocab: usize, size: usize) -> [Vec<Vec<Row>>; 2] {
    let prompt = Sequences::new(vocab).next(0, 75, all);
    let chunks = prompt.chunks(size).map(<[Row]>::to_vec).collect();
    [vec![prompt], chunks]
}

/// What a session for `steps` needs.
pub(super) fn limits(steps: &[Vec<Row>], kv: KvType) -> Limits {
    let rows = steps.iter().flatten();
    let asking = |step: &Vec<Row>| step.iter().filter(|row| row.logits).count();
    Limits {
        slots: rows.clone().map(|row| row.slot + 1).max().unwrap_or(1),
        positions_max: rows.map(|row| row.position + 1).max().unwrap_or(1),
        rows_max: steps.iter().map(Vec::len).max().unwrap_or(1),
        logits_max: steps.iter().map(asking).max().unwrap_or(1),
        kv,
    }
}
