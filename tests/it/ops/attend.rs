//! `attend`: rotary positions, the cache, softmax over what came before.

use tercet_host::backend::cpu::CpuOps;
use tercet_host::backend::{Buffer, DeviceError, KvType, Limits, Ops, Row};
use tercet_tests::cpu::{Cpu, assert_same_bits, with_ops};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::naive;
use tercet_tests::random::Random;
use tercet_tests::tolerance::{ATTEND_F16, ATTEND_F32, ATTEND_LONG};

use super::on_every_cpu;

/// Queries, keys and values of a step: rows in any order of slots, positions of a slot ascending.
struct Step {
    rows: Vec<Row>,
    qkv: Vec<f32>,
}

/// Two sequences: one prefilled over two blocks of the cache and more, the other joining in the
/// middle of a step; then single tokens of both, in changing order.
fn steps(shape: &Shape, random: &mut Random) -> Vec<Step> {
    let mut next = [0, 0];
    let counts: [&[usize]; 5] = [&[0; 70], &[0, 1, 1, 0, 1], &[1, 0], &[0], &[1; 40]];
    let mut step = |slots: &&[usize]| {
        let rows = slots.iter().map(|&slot| {
            next[slot] += 1;
            Row { slot, position: next[slot] - 1, token: 0, logits: false }
        });
        let rows: Vec<Row> = rows.collect();
        let qkv = random.floats(rows.len() * (shape.query() + 2 * shape.kv()));
        Step { rows, qkv: qkv.into_iter().map(|x| 3.0 * x).collect() }
    };
    counts.iter().map(&mut step).collect()
}

fn limits(kv: KvType) -> Limits {
    Limits { slots: 2, positions_max: 80, rows_max: 70, logits_max: 1, kv }
}

fn attend_all(ops: &mut CpuOps<'_>, layer: usize, steps: &[Step]) -> Result<Vec<f32>, DeviceError> {
    let mut mixed = Vec::new();
    for step in steps {
        ops.embed(&step.rows)?;
        ops.write(Buffer::Qkv, &step.qkv)?;
        ops.attend(layer)?;
        mixed.extend(ops.read(Buffer::Mixed)?);
    }
    Ok(mixed)
}

/// The same by formula, with every key and value passed through `stored`.
fn naive_mixed(shape: &Shape, steps: &[Step], stored: fn(f64) -> f64) -> Vec<f64> {
    let dim = shape.head_dim;
    let mut cache = [const { Vec::<[Vec<f64>; 2]>::new() }; 2];
    let mut mixed = Vec::new();
    let width = shape.query() + 2 * shape.kv();
    for step in steps {
        for (row, qkv) in step.rows.iter().zip(step.qkv.chunks_exact(width)) {
            let mut qkv: Vec<f64> = qkv.iter().map(|x| f64::from(*x)).collect();
            let turned = &mut qkv[..shape.query() + shape.kv()];
            for head in turned.chunks_exact_mut(dim) {
                naive::rope(head, row.position, shape.theta);
            }
            let (query, rest) = qkv.split_at(shape.query());
            let [key, value] = [&rest[..shape.kv()], &rest[shape.kv()..]];
            let kept = |row: &[f64]| row.iter().map(|x| stored(*x)).collect();
            cache[row.slot].push([kept(key), kept(value)]);
            for (head, query) in query.chunks_exact(dim).enumerate() {
                let start = head / (shape.heads / shape.kv_heads) * dim;
                let part = |which: usize| -> Vec<&[f64]> {
                    cache[row.slot].iter().map(|row| &row[which][start..start + dim]).collect()
                };
                mixed.extend(naive::attend(query, &part(0), &part(1)));
            }
        }
    }
    mixed
}

#[test]
fn mixes_what_the_formula_mixes() {
    for (seed, shape) in (41..).zip(Shape::ALL) {
        let folder = Tiny::new(shape.clone(), seed).folder(Form::Multiply);
        let package = folder.package();
        let steps = steps(&shape, &mut Random::new(seed));
        for (kv, stored, tolerance) in [
            (KvType::F32, (|x| x) as fn(f64) -> f64, ATTEND_F32),
            (KvType::F16, naive::to_half, ATTEND_F16),
        ] {
            let got = on_every_cpu(&package, limits(kv), |ops| attend_all(ops, 1, &steps));
            let expected = naive_mixed(&shape, &steps, stored);
            assert_eq!(got.len(), expected.len(), "elements");
            for (place, (expected, got)) in expected.iter().zip(got).enumerate() {
                let what = format!("{} {kv:?}: element {place}", shape.architecture);
                tolerance.check(*expected, f64::from(got), 3.0, &what);
            }
        }
    }
}

#[test]
fn a_step_may_be_cut_anywhere() {
    let shape = Shape::MICROSOFT;
    let folder = Tiny::new(shape.clone(), 44).folder(Form::Multiply);
    let whole = steps(&shape, &mut Random::new(44));
    let width = shape.query() + 2 * shape.kv();
    let single: Vec<Step> = whole
        .iter()
        .flat_map(|step| step.rows.iter().zip(step.qkv.chunks_exact(width)))
        .map(|(row, qkv)| Step { rows: vec![*row], qkv: qkv.to_vec() })
        .collect();
    with_ops(&folder.package(), Cpu::fast(), limits(KvType::F16), |mut ops| {
        let expected = attend_all(&mut ops, 0, &whole).expect("no error");
        let got = attend_all(&mut ops, 0, &single).expect("no error");
        assert_same_bits(&expected, &got, "row after row");
    });
}

#[test]
fn nobody_sees_what_comes_later_or_belongs_to_others() {
    let shape = Shape::LLAMA;
    let folder = Tiny::new(shape.clone(), 45).folder(Form::Multiply);
    let steps = steps(&shape, &mut Random::new(45));
    let width = shape.query() + 2 * shape.kv();
    let altered = |alter: &dyn Fn(&Row) -> bool| -> Vec<Step> {
        let step = |step: &Step| {
            let mut qkv = step.qkv.clone();
            for (row, qkv) in step.rows.iter().zip(qkv.chunks_exact_mut(width)) {
                if alter(row) {
                    qkv.iter_mut().for_each(|x| *x = 1.0 - *x);
                }
            }
            Step { rows: step.rows.clone(), qkv }
        };
        steps.iter().map(step).collect()
    };
    let places: Vec<Row> = steps.iter().flat_map(|step| step.rows.clone()).collect();
    with_ops(&folder.package(), Cpu::fast(), limits(KvType::F32), |mut ops| {
        let expected = attend_all(&mut ops, 0, &steps).expect("no error");
        let later = attend_all(&mut ops, 0, &altered(&|row| row.position >= 33));
        let others = attend_all(&mut ops, 0, &altered(&|row| row.slot == 1));
        let [later, others] = [later, others].map(|mixed| mixed.expect("no error"));
        for (index, row) in places.iter().enumerate() {
            let range = index * shape.query()..(index + 1) * shape.query();
            let same = |got: &[f32]| expected[range.clone()] == got[range.clone()];
            assert_eq!(same(&later), row.position < 33, "{row:?} and what comes later");
            assert_eq!(same(&others), row.slot == 0, "{row:?} and the other sequence");
        }
    });
}

/// Rows of sequence 0, then of 1, each from its `next` position on.
fn rows_of(shape: &Shape, random: &mut Random, next: &mut [usize; 2], counts: [usize; 2]) -> Step {
    let mut rows = Vec::new();
    for slot in 0..2 {
        let position = |place| next[slot] + place;
        rows.extend((0..counts[slot]).map(|place| Row {
            slot,
            position: position(place),
            token: 0,
            logits: false,
        }));
        next[slot] += counts[slot];
    }
    let qkv = random.floats(rows.len() * (shape.query() + 2 * shape.kv()));
    Step { rows, qkv: qkv.into_iter().map(|x| 3.0 * x).collect() }
}

#[test]
fn a_long_context_is_the_same_however_it_is_shared_out() {
    // Two key/value heads: fewer than threads want, so that they share spans of positions. Nine:
    // enough. Several spans, ends inside and at the end of one, a short sequence beside a long one.
    for (seed, shape) in (46..).zip([Shape::MICROSOFT, Shape::ONE_BIT]) {
        let folder = Tiny::new(shape.clone(), seed).folder(Form::Multiply);
        let mut random = Random::new(seed);
        let (random, next) = (&mut random, &mut [0, 0]);
        let counts = [[700, 20], [323, 0], [1, 0], [1, 1], [1, 0], [60, 0], [0, 1], [1, 1]];
        let steps: Vec<Step> =
            counts.map(|counts| rows_of(&shape, random, next, counts)).into_iter().collect();
        let limits =
            Limits { slots: 2, positions_max: 1100, rows_max: 720, logits_max: 1, kv: KvType::F32 };
        let package = folder.package();
        let got = on_every_cpu(&package, limits, |ops| attend_all(ops, 0, &steps));
        let expected = naive_mixed(&shape, &steps, |x| x);
        for (place, (expected, got)) in expected.iter().zip(&got).enumerate() {
            let what = format!("{}: element {place}", shape.architecture);
            ATTEND_LONG.check(*expected, f64::from(*got), 3.0, &what);
        }

        let width = shape.query() + 2 * shape.kv();
        for most in [1, 7] {
            let cut = |step: &Step| -> Vec<Step> {
                let qkv = step.qkv.chunks(most * width).map(<[f32]>::to_vec);
                let rows = step.rows.chunks(most).map(<[Row]>::to_vec);
                rows.zip(qkv).map(|(rows, qkv)| Step { rows, qkv }).collect()
            };
            let cut: Vec<Step> = steps.iter().flat_map(cut).collect();
            with_ops(&package, Cpu::fast(), limits, |mut ops| {
                let cut = attend_all(&mut ops, 0, &cut).expect("no error");
                assert_same_bits(&got, &cut, &format!("{most} rows at a time"));
            });
        }
    }
}
