//! Each operation by itself against its formula, at every SIMD level, on equal inputs.
//!
//! A test writes an operation's input buffer, runs it, and reads its output; the expected values
//! come from [`tercet_tests::naive`]. Sums over INT8 codes are compared as integers.

mod attend;
mod attention_out;
mod choose;
mod choose_ahead;
mod down;
mod embed;
mod gate_up;
mod logits;
mod qkv;

use tercet_host::backend::cpu::CpuOps;
use tercet_host::backend::{Buffer, DeviceError, HeadType, KvType, Limits, Ops, Row};
use tercet_host::package::Package;
use tercet_tests::cpu::{Cpu, assert_same_bits, with_ops};
use tercet_tests::fixture::{Form, Shape, Tiny, Trits};
use tercet_tests::naive::{self, Quantized, Sums};
use tercet_tests::random::Random;
use tercet_tests::tolerance::{LINEAR, RESIDUAL};

/// Rows of a step: alone, fewer than a tile, tiles of several threads with a rest.
const ROW_COUNTS: [usize; 4] = [1, 3, 33, 70];

/// Runs `steps` on fresh operations at every level and thread count. All must give the bits of the
/// first, which are returned.
fn on_every_cpu(
    package: &Package,
    limits: Limits,
    steps: impl Fn(&mut CpuOps<'_>) -> Result<Vec<f32>, DeviceError>,
) -> Vec<f32> {
    on_every_cpu_with(HeadType::Stored, package, limits, steps)
}

/// The same with the head held as `head` says.
fn on_every_cpu_with(
    head: HeadType,
    package: &Package,
    limits: Limits,
    steps: impl Fn(&mut CpuOps<'_>) -> Result<Vec<f32>, DeviceError>,
) -> Vec<f32> {
    let run = |cpu: Cpu| {
        let cpu = cpu.with_head(head);
        with_ops(package, cpu, limits, |mut ops| steps(&mut ops).expect("no error"))
    };
    let expected = run(Cpu::portable());
    for cpu in Cpu::every() {
        assert_same_bits(&expected, &run(cpu), &format!("{cpu:?}"));
    }
    expected
}

/// As many rows of one sequence as an operation without a cache needs.
fn any_rows(count: usize) -> Vec<Row> {
    (0..count).map(|position| Row { slot: 0, position, token: 0, logits: false }).collect()
}

/// What `operation` makes of `inputs` in a step of `rows`, the same at every level.
fn run(
    package: &Package,
    rows: &[Row],
    inputs: &[(Buffer, &[f32])],
    operation: impl Fn(&mut CpuOps<'_>) -> Result<(), DeviceError>,
    output: Buffer,
) -> Vec<f32> {
    let positions_max = rows.iter().map(|row| row.position + 1).max().unwrap_or(1);
    let slots = rows.iter().map(|row| row.slot + 1).max().unwrap_or(1);
    let (rows_max, logits_max) = (rows.len(), rows.len());
    let limits = Limits { slots, positions_max, rows_max, logits_max, kv: KvType::F32 };
    on_every_cpu(package, limits, |ops| {
        ops.embed(rows)?;
        for (buffer, values) in inputs {
            ops.write(*buffer, values)?;
        }
        operation(ops)?;
        ops.read(output)
    })
}

/// Rows whose codes behind a norm of `weight` are known, and the codes.
fn rows_with_codes(
    random: &mut Random,
    count: usize,
    cols: usize,
    weight: Option<&[f32]>,
) -> (Vec<f32>, Vec<Vec<i64>>) {
    let mut values = Vec::new();
    let mut codes = Vec::new();
    for _ in 0..count {
        let row = naive::row_with_codes(random, cols, weight);
        values.extend(row.0);
        codes.push(row.1);
    }
    (values, codes)
}

/// A row normed (if there is a norm) and quantised; its codes must be those it was made for.
fn quantized(row: &[f32], codes: &[i64], norm: Option<(&[f32], f64)>) -> Quantized {
    let normed = match norm {
        Some((weight, eps)) => naive::rms_norm(row, weight, eps),
        None => row.iter().map(|x| f64::from(*x)).collect(),
    };
    let quantized = naive::quantize(&normed);
    assert_eq!(quantized.codes, codes, "the row has the codes it was made for");
    quantized
}

/// Holds the outputs of a linear against exact sums.
#[track_caller]
fn check_linear(expected: &Sums, got: &[f32], what: &str) {
    assert_eq!(expected.sums.len(), got.len(), "{what}: features");
    for (feature, (sum, got)) in expected.sums.iter().zip(got).enumerate() {
        let what = format!("{what}, feature {feature}");
        let (got, value) = (f64::from(*got), *sum as f64 * expected.unit);
        assert_eq!((got / expected.unit).round() as i64, *sum, "{what}: the exact sum");
        LINEAR.check(value, got, value, &what);
    }
}

/// Tests an operation that adds a linear of `input` to the residual stream: `attention_out` and
/// `down`. `norms` gives the weights of the norm in front.
fn check_added_linear(
    input: Buffer,
    matrix: &str,
    norm: impl Fn(&Shape) -> Option<&'static str>,
    operation: impl Fn(&mut CpuOps<'_>, usize) -> Result<(), DeviceError>,
) {
    for (seed, shape) in (1..).zip(Shape::ALL) {
        let tiny = Tiny::new(shape.clone(), seed);
        let folder = tiny.folder(Form::Multiply);
        let package = folder.package();
        let mut random = Random::new(seed);
        for (count, layer) in ROW_COUNTS.into_iter().zip([0, 1, 1, 0]) {
            let trits: Trits = tiny.trits(layer, matrix);
            let weight = norm(&shape)
                .map(|name| tiny.values(&format!("model.layers.{layer}.{name}.weight")));
            let (values, codes) = rows_with_codes(&mut random, count, trits.cols, weight);
            let before = random.floats(count * trits.rows);
            let got = run(
                &package,
                &any_rows(count),
                &[(Buffer::Hidden, &before), (input, &values)],
                |ops| operation(ops, layer),
                Buffer::Hidden,
            );
            for (row, codes) in codes.iter().enumerate() {
                let values = &values[row * trits.cols..][..trits.cols];
                let norm = weight.map(|weight| (weight, shape.eps));
                let sums = naive::linear(&quantized(values, codes, norm), &trits);
                for (feature, added) in sums.values().into_iter().enumerate() {
                    let place = row * trits.rows + feature;
                    let (before, got) = (f64::from(before[place]), f64::from(got[place]));
                    let what =
                        format!("{} {matrix}({layer})[{row}, {feature}]", shape.architecture);
                    let sum = ((got - before) / sums.unit).round() as i64;
                    assert_eq!(sum, sums.sums[feature], "{what}: the exact sum");
                    RESIDUAL.check(before + added, got, before.abs() + added.abs(), &what);
                }
            }
        }
    }
}
