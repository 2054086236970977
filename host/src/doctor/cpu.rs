//! The CPU: every SIMD level beside the reference, threads, memory, an answer.

use core::ops::ControlFlow;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tercet_core::{PackedTernary, Rows128, Simd, reference};

use super::{Area, Examiner, Finding, Outcome};
use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, KvType, Limits, TokenId};
use crate::error::Error;
use crate::event::Event;
use crate::forward::Cancel;
use crate::measure::machine;
use crate::package::Package;
use crate::sampler::Sampling;
use crate::session::{Request, Session};

/// Least memory with which anything but the built-in model is fun.
const MEMORY_COMFORTABLE: u64 = 1 << 30;

pub(super) fn examine(package: &Package, examiner: &mut Examiner<'_>) {
    let best = Simd::detect();
    for simd in Simd::available() {
        examiner.check(Area::Cpu, simd.name().into(), || equals_reference(simd, simd == best));
    }
    let threads = CpuBackend::default_threads();
    examiner.check(Area::Cpu, "memory".into(), memory);
    examiner.check(Area::Cpu, "answer".into(), || answers(package, threads, best));
}

/// Multiplies random weights and compares with the definition.
fn equals_reference(simd: Simd, is_used: bool) -> Finding {
    // More than one row block, a ragged end, more rows of values than a register block takes.
    let (rows, cols, batch) = (37, 1000, 5);
    let stride = Rows128::padded_cols(cols);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    // Any bytes will do: a code that is no trit has a meaning too.
    let mut codes = vec![0_u8; rows * Rows128::row_bytes(cols)];
    random.fill_bytes(&mut codes);
    let mut values = vec![0_i8; batch * stride];
    random.fill_bytes(bytemuck::cast_slice_mut(&mut values));
    values.chunks_mut(stride).for_each(|row| row[cols..].fill(0));
    let weights = PackedTernary::<Rows128>::new(&codes, rows, cols)
        .expect("as many bytes as the layout asks for");
    let (mut expected, mut got) = (vec![0; rows * batch], vec![i32::MIN; rows * batch]);
    reference::gemm(weights, &values, stride, batch, &mut expected);
    let sums: Vec<i32> =
        values.chunks(stride).map(|row| row.iter().map(|&value| i32::from(value)).sum()).collect();
    simd.gemm(weights, &values, stride, &sums, &mut got);
    let used = if is_used { "; used" } else { "" };
    match expected.iter().zip(&got).position(|(expected, got)| expected != got) {
        None => Finding::ok(format!("{rows} x {cols} weights equal the reference{used}")),
        Some(index) => Finding::new(
            Outcome::Failed,
            format!("sum {index} is {}, the reference says {}", got[index], expected[index]),
            "use --simd portable, and report this with the name of the CPU",
        ),
    }
}

fn memory() -> Finding {
    #[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
    let gb = |bytes: u64| bytes as f64 / 1e9;
    match machine::available_memory() {
        None => Finding::ok("the system does not say how much is free".into()),
        Some(free) if free < MEMORY_COMFORTABLE => Finding::new(
            Outcome::Warning,
            format!("{:.2} GB are free", gb(free)),
            "larger models will not fit: end other programs",
        ),
        Some(free) => Finding::ok(format!("{:.2} GB are free", gb(free))),
    }
}

/// Lets the model answer twice: as it would, and the slow way.
fn answers(package: &Package, threads: usize, best: Simd) -> Finding {
    const TOKENS: usize = 12;
    // The first of the levels, and on every machine.
    let portable = Simd::available().next().unwrap_or(best);
    let model = package.checkpoint.name();
    let both = tokens(package, threads, best, TOKENS)
        .and_then(|fast| Ok((fast, tokens(package, 1, portable, TOKENS)?)));
    match both {
        Ok((fast, slow)) if fast == slow => Finding::ok(format!(
            "{model}: {threads} threads, {best}; the same as 1 thread, portable"
        )),
        Ok((fast, slow)) => Finding::new(
            Outcome::Failed,
            format!("{model} answers {fast:?}, but {slow:?} with 1 thread and --simd portable"),
            "use --simd portable, and report this with the name of the CPU",
        ),
        Err(error) => Finding::new(Outcome::Failed, format!("{model}: {error}"), error.hint()),
    }
}

/// A greedy answer to nothing in particular.
fn tokens(
    package: &Package,
    threads: usize,
    simd: Simd,
    count: usize,
) -> Result<Vec<TokenId>, Error> {
    let backend = CpuBackend::new(threads, simd)?;
    let model = package.bind()?;
    let weights = backend.upload(&model, &mut |_, _| {})?;
    let limits = Limits {
        slots: 1,
        positions_max: 64.min(package.config.positions_max),
        rows_max: 8,
        logits_max: 1,
        kv: KvType::F16,
    };
    let mut session = Session::new(backend.ops(&weights, limits)?, &package.config, limits);
    let request = Request {
        prompt: &[1, 2, 3, 4, 5].map(|id| id % package.config.vocab as TokenId),
        max_tokens: count,
        sampling: Sampling::GREEDY,
        seed: 1,
        stop_tokens: &[],
        stop_texts: &[],
    };
    let mut said = Vec::with_capacity(count);
    let mut hear = |event: Event| {
        if let Event::Token { token, .. } = event {
            said.push(token);
        }
        ControlFlow::Continue(())
    };
    session.generate(&request, None, &Cancel::default(), &mut hear)?;
    Ok(said)
}
