//! That the trials lead to every kernel, as far as arithmetic can tell.

use std::collections::BTreeSet;

use tercet_kernels_ptx::kernels;
use tercet_kernels_ptx::launch::{
    AttendRowsShape, DecodeAttendShape, DecodeFinish, DecodeLayersShape, DecodeLinearShape, Device,
    DeviceShape, FloatLinearShape, LayersModel, LinearShape, WeightType,
};
use tercet_kernels_ptx::ptx::Target;

use super::steps::{self, PREFILLS, SLOTS};
use super::*;
use crate::backend::cuda::launches::weight_type;
use crate::config::ModelConfig;

/// An H200.
const DEVICE: DeviceShape = DeviceShape { multiprocessors: 132, shared_bytes: 232_448 };

/// Launched whatever the model.
const ALWAYS: [&str; 7] =
    ["embed", "normalize", "quantize", "rope_store", "choose", "tile_weights", "read_memory"];

fn linears(trial: &Trial, rows: u32, to: &mut BTreeSet<&'static str>) {
    let config = trial.model.parse().unwrap();
    let number = |n: usize| u32::try_from(n).unwrap();
    let (hidden, ffn) = (number(config.hidden), number(config.ffn));
    let query = number(config.query_width());
    let qkv = query + 2 * number(config.kv_width());
    // Features (of the gate alone), columns, what becomes of it.
    let shapes = [
        (qkv, hidden, DecodeFinish::Store),
        (hidden, query, DecodeFinish::Add),
        (ffn, hidden, DecodeFinish::Gate),
        (hidden, ffn, DecodeFinish::Add),
    ];
    let stored = weight_type(trial.model.float);
    let mut hoppers = BTreeSet::new();
    let mut floats = |weights, features, cols| {
        let shape = FloatLinearShape::new(weights, features, cols);
        hoppers.extend(shape.hopper(rows, DEVICE.multiprocessors).map(|launch| launch.entry));
        let device = Device {
            multiprocessors: DEVICE.multiprocessors,
            shared_bytes_max: DEVICE.shared_bytes,
            target: Target::SM_90,
        };
        shape.launch(rows, device).entry
    };
    let head = match trial.head {
        HeadType::Stored => stored,
        HeadType::Int8 => WeightType::I8,
    };
    to.insert(floats(head, number(config.vocab), hidden));
    for (features, cols, finish) in shapes {
        if config.linears == LinearKind::Float {
            to.insert(floats(stored, features, cols));
            continue;
        }
        let fused = DecodeLinearShape::new(finish, features, cols, DEVICE);
        if let (1, Some(shape)) = (rows, fused) {
            to.insert(shape.entry());
            continue;
        }
        let tiles = features.div_ceil(16) * if finish == DecodeFinish::Gate { 2 } else { 1 };
        let shape = LinearShape::new(tiles, cols, rows);
        // Devices of capability 9.0 have others than the rest.
        for target in [Target::SM_80, Target::SM_90A] {
            to.insert(shape.launch(DEVICE.multiprocessors, target).entry);
        }
    }
    to.extend(hoppers);
}

fn attention(config: &ModelConfig, kv: KvType, rows: u32, to: &mut BTreeSet<&'static str>) {
    let number = |n: usize| u32::try_from(n).unwrap();
    let (heads, kv_heads) = (number(config.heads), number(config.kv_heads));
    let (head_dim, halves) = (number(config.head_dim), kv == KvType::F16);
    let shape = AttendRowsShape { heads, head_dim, halves };
    to.insert(shape.near().unwrap_or(shape.launch_exact(1).entry));
    to.extend(shape.hopper());
    let decode = DecodeAttendShape::new(heads, kv_heads, head_dim, halves, rows, DEVICE);
    to.extend(decode.map(DecodeAttendShape::entry));
}

/// All layers of a step of one row, which only recorded steps do at once.
fn layers(config: &ModelConfig) -> Option<&'static str> {
    let number = |n: usize| u32::try_from(n).unwrap();
    let model = LayersModel {
        layers: number(config.layers),
        hidden: number(config.hidden),
        heads: number(config.heads),
        kv_heads: number(config.kv_heads),
        head_dim: number(config.head_dim),
        ffn: number(config.ffn),
    };
    let shape = DecodeLayersShape::new(model, true, DEVICE)?;
    (config.linears == LinearKind::Ternary).then_some(shape.entry())
}

#[test]
fn trials_lead_to_every_kernel() {
    let mut reached = BTreeSet::from(ALWAYS);
    for trial in TRIALS {
        let config = trial.model.parse().unwrap();
        for rows in PREFILLS.map(|rows| u32::try_from(rows).unwrap()) {
            linears(trial, rows, &mut reached);
        }
        let batches = steps::batches(config.vocab).into_iter().map(|step| step.len());
        for rows in batches.chain([1]).map(|rows| u32::try_from(rows).unwrap()) {
            for kv in [KvType::F16, KvType::F32] {
                attention(&config, kv, rows, &mut reached);
            }
        }
        reached.extend(layers(&config));
    }
    let every: BTreeSet<_> = kernels().iter().map(|kernel| kernel.spec.entry).collect();
    assert_eq!(reached, every, "kernels that no trial leads to, or that are not there");
}

/// The heads of known models, in as many layers as it takes for a set of rooms to be used again:
/// two sets take turns, and the last layer has a third.
#[test]
fn trials_do_all_layers_at_once_with_heads_of_known_models() {
    let deep = TRIALS.iter().map(|trial| trial.model.parse().unwrap());
    let deep = deep.filter(|config| config.layers >= 5);
    let reached: BTreeSet<_> =
        deep.filter_map(|config| Some((layers(&config)?, config.head_dim))).collect();
    for expected in [("decode_layers_f16_128_c4", 100), ("decode_layers_f16_128_c8", 128)] {
        assert!(reached.contains(&expected), "{expected:?}: {reached:?}");
    }
}

#[test]
fn trials_have_names_of_their_own() {
    let names: BTreeSet<_> = TRIALS.iter().map(Trial::name).collect();
    assert_eq!(names.len(), TRIALS.len());
}

/// What a session may be given: every position once, in order, within the limits.
#[test]
fn steps_go_on_where_sequences_ended() {
    let [whole, chunks] = steps::chunked(300, 7);
    let ways: Vec<_> = steps::prompts(300).into_iter().chain(steps::batches(300)).collect();
    for steps in [steps::lock_step(300, false), steps::lock_step(17, true), ways, whole, chunks] {
        let limits = steps::limits(&steps, KvType::F16);
        let mut positions = vec![0; limits.slots];
        for row in steps.iter().flatten() {
            assert_eq!(row.position, positions[row.slot], "{row:?}");
            positions[row.slot] += 1;
            assert!(row.slot < limits.slots && row.position < limits.positions_max, "{row:?}");
        }
        assert!(steps.iter().all(|step| step.iter().any(|row| row.logits)), "somebody asks");
    }
}

#[test]
fn steps_hold_batches_of_every_size() {
    let steps = steps::lock_step(300, false);
    for size in 1..=SLOTS {
        let batch = |step: &&Vec<Row>| step.len() == size && CudaOps::is_batch(step);
        assert!(steps.iter().any(|step| batch(&step)), "{size}");
    }
}

/// The reference against itself: the trials' models are sound, and differences are seen.
#[test]
fn the_cpu_passes_its_own_trial_and_a_wrong_one_does_not() {
    let cpu = CpuBackend::new(1, Simd::detect()).unwrap();
    let trial = &TRIALS[0];
    let made = synth::in_memory(&trial.model, WeightLayout::Rows128, trial.seed(), &mut |_, _| {})
        .unwrap();
    let package = Package::from_checkpoint(made).unwrap();
    let model = package.bind().unwrap();
    let weights = cpu.upload(&model, &mut |_, _| {}).unwrap();
    let steps = steps::lock_step(package.config.vocab, true);
    let limits = steps::limits(&steps, KvType::F16);
    let ops = || cpu.ops(&weights, limits).unwrap();
    let policy = policy(package.config.linears, Attends::Exactly);
    let mut both = LockStep::new(ops(), ops(), policy);
    for rows in &steps {
        forward(&mut both, package.config.layers, rows, &Cancel::default()).unwrap();
    }
    assert_eq!(both.worst(), None, "equal bits");
    assert_eq!(both.quantized(), 4 * package.config.layers * steps.len(), "integers as well");
    let mut logits = both.read(Buffer::Logits).unwrap();
    assert!(logits.iter().all(|logit| logit.is_finite() && logit.abs() < 100.0), "of some size");
    let vocab = package.config.vocab;
    let before = logits.clone();
    logits[vocab + 7] += 1e-5;
    let error = same_bits("ways", vocab, &before, &logits).unwrap_err();
    assert!(matches!(error, TrialError::Bits { row: 1, index: 7, .. }), "{error}");
}

#[test]
fn attention_is_judged_by_how_it_is_done() {
    for linears in [LinearKind::Ternary, LinearKind::Float] {
        assert_eq!(policy(linears, Attends::Exactly)(Operation::Attend), Tolerance::Exact);
        assert_eq!(policy(linears, Attends::Nearly)(Operation::Attend), ATTEND);
        assert_eq!(policy(linears, Attends::Nearly)(Operation::Embed), Tolerance::Exact);
    }
    assert_eq!(policy(LinearKind::Ternary, Attends::Nearly)(Operation::GateUp), Tolerance::Exact);
    assert_eq!(policy(LinearKind::Float, Attends::Nearly)(Operation::GateUp), GATED);
}
