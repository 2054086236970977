//! Two CPUs side by side, compared after every operation.

use tercet_host::backend::cpu::CpuOps;
use tercet_host::backend::lock_step::{LockStep, Operation, Tolerance};
use tercet_host::backend::{DeviceError, KvType, Limits, Ops, Row};
use tercet_host::config::LinearKind;
use tercet_host::package::{Package, Source};
use tercet_host::sampler::{Sampler, Sampling};
use tercet_tests::cpu::{Cpu, rows, step, with_ops};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::random::Random;
use tercet_tests::{require, shared};

const LIMITS: Limits =
    Limits { slots: 2, positions_max: 48, rows_max: 40, logits_max: 40, kv: KvType::F16 };

/// A prefill of one sequence, then both in one step, then single tokens.
fn ragged_steps(vocab: usize) -> Vec<Vec<Row>> {
    let mut random = Random::new(61);
    let mut tokens = |count| (0..count).map(|_| random.below(vocab) as u32).collect::<Vec<u32>>();
    let prefill = rows(0, 0, &tokens(38));
    let mut mixed = rows(1, 0, &tokens(5));
    mixed.extend(rows(0, 38, &tokens(2)));
    let single = rows(1, 5, &tokens(1));
    let pair = [rows(0, 40, &tokens(1)), rows(1, 6, &tokens(1))].concat();
    vec![prefill, mixed, single, pair]
}

/// Runs both packages in lock step and chooses a token after each step.
fn compare(
    reference: (&Package, Cpu, Limits),
    candidate: (&Package, Cpu, Limits),
    policy: fn(Operation) -> Tolerance,
) -> Result<(), DeviceError> {
    let config = &reference.0.config;
    let run = |reference: CpuOps<'_>, candidate: CpuOps<'_>| {
        let mut both = LockStep::new(reference, candidate, policy);
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, ..Sampling::GREEDY }, 1);
        let steps = ragged_steps(config.vocab);
        for rows in &steps {
            step(&mut both, config.layers, rows)?;
            both.choose(rows.len() - 1, &mut sampler)?;
        }
        let linears = if config.linears == LinearKind::Ternary { 4 * config.layers } else { 0 };
        assert_eq!(both.quantized(), linears * steps.len(), "inputs compared as integers");
        Ok(())
    };
    with_ops(reference.0, reference.1, reference.2, |reference| {
        with_ops(candidate.0, candidate.1, candidate.2, |candidate| run(reference, candidate))
    })
}

fn exact(_: Operation) -> Tolerance {
    Tolerance::Exact
}

#[test]
fn every_level_and_thread_count_walks_with_the_portable_one() {
    for (seed, shape) in (62..).zip(Shape::ALL) {
        let folder = Tiny::new(shape, seed).folder(Form::Divide);
        let package = folder.package();
        for cpu in Cpu::every() {
            compare((&package, Cpu::portable(), LIMITS), (&package, cpu, LIMITS), exact)
                .unwrap_or_else(|error| panic!("{cpu:?}: {error}"));
        }
    }
}

#[test]
fn every_level_walks_with_the_portable_one_through_a_trained_model() {
    if !require("shared") {
        return;
    }
    let folder = shared().expect("required above").join("models/stories-bitnet-25m-packed");
    let package = Package::open(&Source::Path(folder)).expect("a valid model");
    for cpu in Cpu::every().filter(|cpu| cpu.threads == 2) {
        compare((&package, Cpu::portable(), LIMITS), (&package, cpu, LIMITS), exact)
            .unwrap_or_else(|error| panic!("{cpu:?}: {error}"));
    }
}

/// Where two models part that differ in one number.
fn first_difference(alter: impl FnOnce(&mut Tiny), policy: fn(Operation) -> Tolerance) -> String {
    let mut tiny = Tiny::new(Shape::ONE_BIT, 66);
    let reference = tiny.folder(Form::Multiply);
    alter(&mut tiny);
    let candidate = tiny.folder(Form::Multiply);
    let cpu = Cpu::fast();
    let (reference, candidate) = (reference.package(), candidate.package());
    match compare((&reference, cpu, LIMITS), (&candidate, cpu, LIMITS), policy) {
        Err(DeviceError::Divergence { site, expected, got, .. }) => {
            assert_ne!(expected.to_bits(), got.to_bits(), "{site}: a difference");
            site
        }
        Err(error) => panic!("another error: {error}"),
        Ok(()) => "nowhere".into(),
    }
}

/// Swaps a weight that quantises to 0 with one that does not: two codes change and no unit.
fn flip(tiny: &mut Tiny, tensor: &str) {
    let values = tiny.values_mut(tensor);
    let small = values.iter().position(|weight| weight.abs() < 20.0 / 512.0);
    let large = values.iter().position(|weight| weight.abs() > 100.0 / 512.0);
    values.swap(small.expect("a zero"), large.expect("a one"));
}

#[test]
fn the_first_operation_that_differs_is_named() {
    for (tensor, site) in [
        ("model.layers.0.self_attn.q_proj.weight", "qkv(0)"),
        ("model.layers.1.self_attn.v_proj.weight", "qkv(1)"),
        ("model.layers.1.self_attn.o_proj.weight", "attention_out(1)"),
        ("model.layers.0.mlp.up_proj.weight", "gate_up(0)"),
        ("model.layers.1.mlp.down_proj.weight", "down(1)"),
    ] {
        assert_eq!(first_difference(|tiny| flip(tiny, tensor), exact), site, "{tensor}");
    }
    for (tensor, site) in [
        ("model.layers.1.input_layernorm.weight", "qkv(1), INT8 values of its input"),
        (
            "model.layers.0.self_attn.inner_attn_ln.weight",
            "attention_out(0), INT8 values of its input",
        ),
        ("model.layers.0.mlp.ffn_layernorm.weight", "down(0), INT8 values of its input"),
        ("lm_head.weight", "logits"),
    ] {
        let double = |tiny: &mut Tiny| tiny.values_mut(tensor)[5] += 1.0;
        assert_eq!(first_difference(double, exact), site, "{tensor}");
    }
    // Every number of a norm twice as large: the same integers, of another unit.
    let double = |tiny: &mut Tiny| {
        let norm = tiny.values_mut("model.layers.1.input_layernorm.weight");
        norm.iter_mut().for_each(|x| *x *= 2.0);
    };
    assert_eq!(first_difference(double, exact), "qkv(1), units of its input");
    let every_token = |tiny: &mut Tiny| {
        tiny.values_mut("model.embed_tokens.weight").iter_mut().for_each(|x| *x = -*x);
    };
    assert_eq!(first_difference(every_token, exact), "embed");
    assert_eq!(first_difference(|_| {}, exact), "nowhere");
}

#[test]
fn another_cache_shows_in_attention() {
    let folder = Tiny::new(Shape::ONE_BIT, 67).folder(Form::Multiply);
    let package = folder.package();
    let single = Limits { kv: KvType::F32, ..LIMITS };
    let cpu = Cpu::fast();
    let error = compare((&package, cpu, single), (&package, cpu, LIMITS), exact).unwrap_err();
    let DeviceError::Divergence { site, .. } = &error else { panic!("{error}") };
    assert_eq!(site, "attend(0)");
    assert!(error.to_string().starts_with("attend(0): element "), "{error}");
}

#[test]
fn a_difference_within_the_tolerance_ends_where_it_began() {
    // Two codes of o_proj differ; whatever comes after it gets the reference's numbers.
    let lenient = |operation| match operation {
        Operation::AttentionOut => Tolerance::Within { absolute: 1e3, relative: 0.0 },
        _ => Tolerance::Exact,
    };
    let alter = |tiny: &mut Tiny| flip(tiny, "model.layers.0.self_attn.o_proj.weight");
    assert_eq!(first_difference(alter, lenient), "nowhere");
    let alter = |tiny: &mut Tiny| flip(tiny, "model.layers.0.mlp.down_proj.weight");
    assert_eq!(first_difference(alter, lenient), "down(0)");
}
