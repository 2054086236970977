//! What takes a GPU: every kernel beside the CPU, whole models beside Hugging Face, memory that is
//! not there. `TERCET_REQUIRE=cuda` turns a missing GPU into a failure.

use core::time::Duration;
use std::time::Instant;

use tercet_host::backend::cuda::CudaBackend;
use tercet_host::backend::cuda::driver::{Context, CudaError, usable};
use tercet_host::backend::cuda::kernels::KernelSet;
use tercet_host::backend::cuda::trials::{Rig, TRIALS};
use tercet_host::backend::{Backend, Buffer, DeviceError, KvType, Limits, Ops, OpsBytes, Row};
use tercet_host::forward::{Cancel, forward};
use tercet_host::measure::memory::{Held, MemoryKind};
use tercet_host::measure::sampler::Sampler;
use tercet_host::package::Package;
use tercet_host::sampler::{Sampler as Chooser, Sampling};
use tercet_host::session::Session;
use tercet_kernels_ptx::ptx::ComputeCapability;
use tercet_tests::cpu::{assert_same_bits, limits, rows, step};
use tercet_tests::folder::Folder;
use tercet_tests::on::{logits, with_ops};
use tercet_tests::tolerance::PERPLEXITY_CUDA;
use tercet_tests::{golden, require};

use super::in_base3;
use crate::oracle::perplexity::{RECORDED, measure, tiny_stories, wiki_text};
use crate::oracle::record::{BITNET, BITNET_HALF, Bounds, CONTROL, CONTROL_HALF, Record};
use crate::oracle::{CONTROLS, MODELS, builtin, has_model, record, shared_model};

fn backend() -> Option<CudaBackend> {
    require("cuda").then(|| CudaBackend::new(&usable(None).unwrap(), KernelSet::program()).unwrap())
}

/// Runs every trial with `kernels`, and says all that went wrong. `TERCET_TRIALS` takes only those
/// whose names it is a part of: a checker of memory makes each take minutes, and several processes
/// can share them.
fn try_all(context: &Context, kernels: &KernelSet) {
    let rig = Rig::new(context, kernels).unwrap();
    let (count, time) = rig.compiled();
    println!("{}: {count} kernels in {time:.1?}", context.device().name);
    println!("reads {:.2} TB/s", rig.read_bandwidth().unwrap() / 1e12);
    let part = std::env::var("TERCET_TRIALS").unwrap_or_default();
    let mut failed = Vec::new();
    let trials: Vec<_> = TRIALS.iter().filter(|trial| trial.name().contains(&part)).collect();
    assert!(!trials.is_empty(), "no trial has {part:?} in its name");
    for trial in trials {
        let start = Instant::now();
        match rig.run(trial) {
            Ok(passed) => {
                println!("{}: {passed} ({:.1?})", trial.name(), start.elapsed());
                let is_ternary = trial.name().starts_with("ternary");
                assert_eq!(passed.quantized > 0, is_ternary, "integers are compared");
            }
            Err(error) => {
                println!("{}: FAILED: {error}", trial.name());
                failed.push(trial.name());
            }
        }
    }
    assert_eq!(failed, [""; 0], "trials");
    if !part.is_empty() {
        println!("only those of {part:?}");
        return;
    }
    assert_eq!(rig.never_launched(), [""; 0], "kernels that no trial reached");
}

#[test]
fn every_kernel_does_what_the_cpu_does() {
    if require("cuda") {
        let device = usable(None).unwrap();
        let kernels = KernelSet::program().of_device(device.capability);
        try_all(&Context::new(&device).unwrap(), &kernels);
    }
}

/// The kernels that every GPU runs, where this one would take newer ones.
#[test]
fn the_kernels_of_older_gpus_do_what_the_cpu_does() {
    if require("cuda") {
        let oldest = ComputeCapability { major: 8, minor: 0 };
        let kernels = KernelSet::program().of_device(oldest);
        try_all(&Context::new(&usable(None).unwrap()).unwrap(), &kernels);
    }
}

/// What was allocated is part of what the driver counts, as another thread sees it meanwhile.
#[test]
fn the_driver_counts_what_a_session_holds() {
    let Some(backend) = backend() else { return };
    let Some(meter) = backend.meter() else {
        println!("no management library");
        return;
    };
    let package = builtin::package();
    let limits =
        Limits { slots: 1, positions_max: 512, rows_max: 64, logits_max: 1, kv: KvType::F16 };
    let model = package.bind().unwrap();
    let weights = backend.upload(&model, &mut |_, _| {}).unwrap();
    let session = Session::new(backend.ops(&weights, limits).unwrap(), &package.config, limits);
    let OpsBytes { cache, work } = session.bytes();
    let held = Held { weights: backend.weights_bytes(&weights), cache, work };
    let sampler = Sampler::start(Duration::from_millis(100)).unwrap();
    sampler.probe().session(held, limits.positions_max, Some(meter.clone()));
    let start = Instant::now();
    let memory = loop {
        match sampler.probe().latest().memory {
            Some(memory) if memory.kind == MemoryKind::Device => break memory,
            _ => assert!(start.elapsed() < Duration::from_secs(20), "the sampler looked"),
        }
    };
    println!("{memory:?}");
    println!("{:?}", sampler.probe().latest().gpu);
    assert_eq!(memory.weights.bytes, held.weights);
    assert_eq!((memory.cache.bytes, memory.work.bytes), (cache, work));
    assert!(memory.context.bytes > 1 << 20, "a context and kernels take some");
    assert!(meter.counts().unwrap().ours >= held.weights + cache + work);
    assert_eq!(memory.total.bytes, meter.counts().unwrap().total);
}

/// What begins before the host knows its token gives the same answer, bit by bit.
#[test]
fn choosing_ahead_changes_no_answer() {
    let Some(backend) = backend() else { return };
    let package = builtin::package();
    let layers = package.config.layers;
    let sampled = Sampling { temperature: 0.8, top_p: 0.95, top_k: 50, ..Sampling::GREEDY };
    let penalised = Sampling { repetition_penalty: 1.2, ..sampled };
    for sampling in [Sampling::GREEDY, sampled, penalised] {
        let answer = |ahead: bool| {
            with_ops(&backend, &package, limits(64, 8, KvType::F16), |mut ops| {
                let mut chooser = Chooser::new(sampling, 3);
                step(&mut ops, layers, &rows(0, 0, &[1, 17, 40])).unwrap();
                let mut token = ops.choose(2, &mut chooser).unwrap();
                let mut answer = vec![token];
                for position in 3..63 {
                    chooser.observe(token);
                    let row = Row { slot: 0, position, token, logits: true };
                    forward(&mut ops, layers, &[row], &Cancel::default()).unwrap();
                    token = if ahead && position < 62 {
                        ops.choose_ahead(&mut chooser, 0, position + 1).unwrap()
                    } else {
                        ops.choose(0, &mut chooser).unwrap()
                    };
                    answer.push(token);
                }
                (answer, ops.read(Buffer::Logits).unwrap())
            })
        };
        let (expected, got) = (answer(false), answer(true));
        assert_eq!(got.0, expected.0, "{sampling:?}");
        assert_same_bits(&expected.1, &got.1, "the last logits");
    }
}

/// Digits become codes on the way: the GPU computes the same bits.
#[test]
fn five_trits_a_byte_are_the_same_model() {
    let Some(backend) = backend() else { return };
    let folder = Folder::new();
    let of = |package: &Package| {
        let tokens: Vec<u32> = (0..60).map(|place| place * 997 % 4096).collect();
        logits(&backend, package, &tokens, 32, KvType::F16)
    };
    let (codes, digits) = (builtin::package(), in_base3(&folder, &builtin::package()));
    assert_same_bits(&of(&codes), &of(&digits), "base3");
}

fn check(record: &Record, package: &Package, kinds: &[&str], bounds: Bounds, what: &str) {
    let backend = backend().expect("required before");
    for kind in kinds {
        record.check_logits(&backend, package, kind, bounds, &format!("{what} {kind}"));
    }
    record.check_greedy(&backend, package, bounds, what);
}

#[test]
fn the_built_in_model_says_what_the_reference_says() {
    if require("cuda") {
        let record = Record::read(&golden().join("oracle/stories-bitnet-25m.safetensors"));
        let package = builtin::package();
        check(&record, &package, &["logits"], BITNET, "built-in, singles");
        check(&record, &package, &["logits"], BITNET_HALF, "built-in, halves");
    }
}

#[test]
fn ternary_models_say_what_the_reference_says() {
    if require("cuda") && require("shared") {
        let kinds = ["logits", "logits_f64"];
        for name in MODELS.into_iter().filter(|name| has_model(name)) {
            let (package, record) = (shared_model(name), record(name));
            check(&record, &package, &kinds, BITNET, &format!("{name}, singles"));
            check(&record, &package, &kinds, BITNET_HALF, &format!("{name}, halves"));
        }
    }
}

#[test]
fn float_models_say_what_the_reference_says() {
    if require("cuda") && require("shared") {
        for name in CONTROLS.into_iter().filter(|name| has_model(name)) {
            let (package, record) = (shared_model(name), record(name));
            check(&record, &package, &["logits"], CONTROL, &format!("{name}, singles"));
            check(&record, &package, &["logits"], CONTROL_HALF, &format!("{name}, halves"));
        }
    }
}

#[test]
fn texts_are_as_likely_as_to_the_reference() {
    if !(require("cuda") && require("shared")) {
        return;
    }
    let backend = backend().expect("required before");
    let texts = [tiny_stories(), wiki_text()];
    for (model, recorded) in RECORDED.into_iter().filter(|(model, _)| has_model(model)) {
        for (text, expected) in texts.iter().zip(recorded) {
            let measured = measure(&backend, model, text, KvType::F16);
            println!("{model}: perplexity {measured:.4}, recorded {expected}");
            PERPLEXITY_CUDA.check(expected, measured, expected, &format!("{model}: perplexity"));
        }
    }
}

#[test]
fn memory_that_is_not_there_leaves_room_for_a_smaller_context() {
    let Some(backend) = backend() else { return };
    let package = builtin::package();
    let model = package.bind().unwrap();
    let weights = backend.upload(&model, &mut |_, _| {}).unwrap();
    let before = backend.free_memory().unwrap();
    let limits = |slots, positions_max| Limits {
        slots,
        positions_max,
        rows_max: 16,
        logits_max: 16,
        kv: KvType::F32,
    };
    for _ in 0..3 {
        match backend.ops(&weights, limits(1 << 10, 1 << 20)) {
            Err(DeviceError::Cuda(error @ CudaError::OutOfMemory { .. })) => println!("{error}"),
            other => panic!("a cache of terabytes: {other:?}"),
        }
        let mut ops = backend.ops(&weights, limits(1, 64)).unwrap();
        let logits = step(&mut ops, package.config.layers, &rows(0, 0, &[1, 2, 3])).unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "it goes on");
    }
    // Others may use the device meanwhile; a lost cache would be terabytes, a lost session this.
    let lost = before.saturating_sub(backend.free_memory().unwrap());
    println!("{lost} bytes less are free than before");
}
