//! The way from a package to the operations of a CPU, in one call.

use tercet_host::backend::cpu::{CpuBackend, CpuOps, Simd};
use tercet_host::backend::{Buffer, DeviceError, HeadType, KvType, Limits, Ops, Row, TokenId};
use tercet_host::forward::{Cancel, Pass, forward};
use tercet_host::package::Package;
use tercet_host::session::Session;

use crate::on;

/// A way to use the CPU.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// Threads.
    pub threads: usize,
    /// Instructions.
    pub simd: Simd,
    /// How the head is held.
    pub head: HeadType,
}

impl Cpu {
    /// One thread of portable code: what all others are held against.
    ///
    /// # Panics
    ///
    /// Never: every CPU has this level.
    pub fn portable() -> Self {
        let simd = Simd::available().next().expect("a portable level");
        Self { threads: 1, simd, head: HeadType::Stored }
    }

    /// The best instructions on two threads.
    pub fn fast() -> Self {
        Self { threads: 2, simd: Simd::detect(), head: HeadType::Stored }
    }

    /// Every level on one thread and on two.
    pub fn every() -> impl Iterator<Item = Self> {
        let head = HeadType::Stored;
        Simd::available().flat_map(move |simd| [1, 2].map(|threads| Self { threads, simd, head }))
    }

    /// The same with the head held as `head` says.
    pub fn with_head(self, head: HeadType) -> Self {
        Self { head, ..self }
    }

    /// The device.
    ///
    /// # Panics
    ///
    /// When the system has no threads for it.
    pub fn backend(self) -> CpuBackend {
        CpuBackend::new(self.threads, self.simd).expect("threads").with_head(self.head)
    }
}

/// One sequence of at most `positions`, prefilled in chunks of `rows_max` with logits of each row.
pub fn limits(positions_max: usize, rows_max: usize, kv: KvType) -> Limits {
    Limits { slots: 1, positions_max, rows_max, logits_max: rows_max, kv }
}

/// Calls `work` with the operations of `package` on `cpu`.
///
/// # Panics
///
/// When the package is no valid model.
pub fn with_ops<R>(
    package: &Package,
    cpu: Cpu,
    limits: Limits,
    work: impl FnOnce(CpuOps<'_>) -> R,
) -> R {
    on::with_ops(&cpu.backend(), package, limits, work)
}

/// Calls `work` with a session of `package` on `cpu`.
///
/// # Panics
///
/// When the package is no valid model.
pub fn with_session<R>(
    package: &Package,
    cpu: Cpu,
    limits: Limits,
    work: impl FnOnce(Session<CpuOps<'_>>) -> R,
) -> R {
    on::with_session(&cpu.backend(), package, limits, work)
}

/// The rows of `tokens` in `slot` from position `first` on, each asking for logits.
pub fn rows(slot: usize, first: usize, tokens: &[TokenId]) -> Vec<Row> {
    let row = |(position, &token)| Row { slot, position, token, logits: true };
    (first..).zip(tokens).map(row).collect()
}

/// One step through all layers; the logits of the rows that ask.
///
/// # Errors
///
/// The first error of an operation.
///
/// # Panics
///
/// When the step does not run to its end.
pub fn step<O: Ops>(ops: &mut O, layers: usize, rows: &[Row]) -> Result<Vec<f32>, DeviceError> {
    let pass = forward(ops, layers, rows, &Cancel::default())?;
    assert_eq!(pass, Pass::Done, "nobody asked it to stop");
    ops.read(Buffer::Logits)
}

/// Logits of every token, `(tokens, vocab)`, prefilled in chunks of `chunk`.
///
/// # Panics
///
/// When the package is no valid model.
pub fn logits(
    package: &Package,
    cpu: Cpu,
    tokens: &[TokenId],
    chunk: usize,
    kv: KvType,
) -> Vec<f32> {
    on::logits(&cpu.backend(), package, tokens, chunk, kv)
}

/// Fails with the first place where two rows of floats are not the same bits.
///
/// # Panics
///
/// When they differ.
#[track_caller]
pub fn assert_same_bits(expected: &[f32], got: &[f32], what: &str) {
    assert_eq!(expected.len(), got.len(), "{what}: lengths");
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    if let Some(place) = expected.iter().zip(got).position(differs) {
        panic!("{what}: element {place} is {}, expected {}", got[place], expected[place]);
    }
}
