//! A file of recorded prompts, logits and greedy continuations.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tercet_host::backend::{Backend, KvType};
use tercet_host::package::Package;
use tercet_tests::cpu::{limits, rows, step};
use tercet_tests::on::{logits, with_ops};
use tercet_tests::tolerance::{
    CONTROL_GAP, CONTROL_HALF_MAX, CONTROL_MAX, ORACLE_GAP, ORACLE_HALF_MAX, ORACLE_HALF_MEAN,
    ORACLE_MAX, ORACLE_MEAN, ORACLE_PROMPT_MEAN, Tolerance,
};

/// Prompts in every file.
const PROMPTS: usize = 3;

/// How close a model must come.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Numbers of the cache.
    kv: KvType,
    /// Mean difference over all prompts.
    mean: Tolerance,
    /// Mean difference over one prompt.
    prompt_mean: Tolerance,
    /// Largest difference.
    max: Tolerance,
    /// Distance of the two largest logits from which the likeliest token must be the same.
    gap: Tolerance,
}

/// A BitNet: codes next to a half may flip.
pub(crate) const BITNET: Bounds = Bounds {
    kv: KvType::F32,
    mean: ORACLE_MEAN,
    prompt_mean: ORACLE_PROMPT_MEAN,
    max: ORACLE_MAX,
    gap: ORACLE_GAP,
};

/// A BitNet with halves in the cache.
pub(crate) const BITNET_HALF: Bounds = Bounds {
    kv: KvType::F16,
    mean: ORACLE_HALF_MEAN,
    prompt_mean: ORACLE_HALF_MEAN,
    max: ORACLE_HALF_MAX,
    gap: ORACLE_GAP,
};

/// A float model: no mean is larger than the largest difference.
pub(crate) const CONTROL: Bounds = Bounds {
    kv: KvType::F32,
    mean: CONTROL_MAX,
    prompt_mean: CONTROL_MAX,
    max: CONTROL_MAX,
    gap: CONTROL_GAP,
};

/// The same with halves in the cache.
pub(crate) const CONTROL_HALF: Bounds = Bounds {
    kv: KvType::F16,
    mean: CONTROL_HALF_MAX,
    prompt_mean: CONTROL_HALF_MAX,
    max: CONTROL_HALF_MAX,
    gap: CONTROL_GAP,
};

/// The bytes of a record.
pub(crate) struct Record(Vec<u8>);

/// Differences between our logits and the recorded ones.
#[derive(Default)]
struct Differences {
    sum: f64,
    count: usize,
    max: f64,
}

impl Differences {
    fn add(&mut self, expected: &[f32], got: &[f32]) {
        assert_eq!(expected.len(), got.len(), "logits of a row");
        for (expected, got) in expected.iter().zip(got) {
            let difference = (f64::from(*expected) - f64::from(*got)).abs();
            self.sum += difference;
            self.max = self.max.max(difference);
        }
        self.count += expected.len();
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

/// The likeliest token and how far the next one is.
fn top(logits: &[f32]) -> (u32, f64) {
    let (mut best, mut second) = ((f32::NEG_INFINITY, 0), f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.0 {
            second = best.0;
            best = (logit, token);
        } else {
            second = second.max(logit);
        }
    }
    (best.1, f64::from(best.0) - f64::from(second))
}

impl Record {
    pub(crate) fn read(path: &Path) -> Self {
        Self(std::fs::read(path).expect("a record"))
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("a safetensors file")
    }

    fn numbers<const N: usize, T>(&self, name: &str, dtype: Dtype, of: fn([u8; N]) -> T) -> Vec<T> {
        let file = self.file();
        let tensor = file.tensor(name).expect("a tensor of the record");
        assert_eq!(tensor.dtype(), dtype, "type of `{name}`");
        tensor.data().as_chunks().0.iter().map(|bytes| of(*bytes)).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.numbers(name, Dtype::I32, u32::from_le_bytes)
    }

    /// Numbers of the recorded rows of a prompt: all, unless the file says which.
    fn rows(&self, prompt: usize, tokens: usize) -> Vec<u32> {
        let name = format!("rows_{prompt}");
        let chosen = self.file().names().iter().any(|known| **known == name);
        if chosen { self.ids(&name) } else { (0..tokens as u32).collect() }
    }

    /// Compares the logits of every recorded row of every prompt.
    pub(crate) fn check_logits(
        &self,
        backend: &impl Backend,
        package: &Package,
        kind: &str,
        bounds: Bounds,
        what: &str,
    ) {
        let vocab = package.config.vocab;
        let mut all = Differences::default();
        let mut clear = 0;
        for prompt in 0..PROMPTS {
            let tokens = self.ids(&format!("tokens_{prompt}"));
            let recorded =
                self.numbers(&format!("{kind}_{prompt}"), Dtype::F32, f32::from_le_bytes);
            let ours = logits(backend, package, &tokens, 64, bounds.kv);
            let rows = self.rows(prompt, tokens.len());
            assert_eq!(recorded.len(), rows.len() * vocab, "recorded rows");
            let mut one = Differences::default();
            for (row, expected) in rows.into_iter().zip(recorded.chunks_exact(vocab)) {
                let got = &ours[row as usize * vocab..][..vocab];
                one.add(expected, got);
                all.add(expected, got);
                let (token, gap) = top(expected);
                if gap > bounds.gap.number {
                    clear += 1;
                    assert_eq!(top(got).0, token, "{what}: prompt {prompt}, row {row}, gap {gap}");
                }
            }
            println!("{what}: prompt {prompt}: mean {:.4}, max {:.4}", one.mean(), one.max);
            let name = format!("{what}, prompt {prompt}: difference");
            bounds.prompt_mean.check_at_most(one.mean(), &name);
            bounds.max.check_at_most(one.max, &name);
        }
        println!("{what}: all: mean {:.4}, max {:.4}, {clear} clear rows", all.mean(), all.max);
        bounds.mean.check_at_most(all.mean(), &format!("{what}: mean difference"));
        assert!(clear >= 3, "rows whose likeliest token is beyond doubt: {clear}");
    }

    /// Continues every prompt with the likeliest token, as long as that is beyond doubt.
    pub(crate) fn check_greedy(
        &self,
        backend: &impl Backend,
        package: &Package,
        bounds: Bounds,
        what: &str,
    ) {
        let layers = package.config.layers;
        let (mut clear, mut equal) = (0, 0);
        for prompt in 0..PROMPTS {
            let tokens = self.ids(&format!("tokens_{prompt}"));
            let recorded = self.ids(&format!("greedy_{prompt}"));
            let limits = limits(tokens.len() + recorded.len(), tokens.len(), bounds.kv);
            with_ops(backend, package, limits, |mut ops| {
                let mut logits = step(&mut ops, layers, &rows(0, 0, &tokens)).expect("no error");
                for (position, expected) in (tokens.len()..).zip(recorded) {
                    let last = &logits[logits.len() - package.config.vocab..];
                    let (token, gap) = top(last);
                    if token != expected {
                        assert!(
                            gap < bounds.gap.number,
                            "{what}: prompt {prompt}, position {position}"
                        );
                        break;
                    }
                    equal += 1;
                    clear += usize::from(gap >= bounds.gap.number);
                    logits =
                        step(&mut ops, layers, &rows(0, position, &[token])).expect("no error");
                }
            });
        }
        println!("{what}: {equal} tokens continue alike, {clear} beyond doubt");
        assert!(clear >= 3, "tokens beyond doubt: {clear}");
    }
}
