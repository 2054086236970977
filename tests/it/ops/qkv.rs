//! `qkv`: three linears of one normed and quantised row.

use tercet_host::backend::{Buffer, Ops};
use tercet_tests::fixture::{Form, Shape, Tiny, Trits};
use tercet_tests::naive::{self, Quantized};
use tercet_tests::random::Random;

use super::{ROW_COUNTS, any_rows, check_linear, quantized, rows_with_codes, run};

const NAMES: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];

#[test]
fn sums_are_exact_side_by_side() {
    for (seed, shape) in (11..).zip(Shape::ALL) {
        let tiny = Tiny::new(shape.clone(), seed);
        let folder = tiny.folder(Form::Divide);
        let package = folder.package();
        let mut random = Random::new(seed);
        for (count, layer) in ROW_COUNTS.into_iter().zip([0, 1, 1, 0]) {
            let matrices: [Trits; 3] = NAMES.map(|name| tiny.trits(layer, name));
            let weight = tiny.values(&format!("model.layers.{layer}.input_layernorm.weight"));
            let (hidden, codes) = rows_with_codes(&mut random, count, shape.hidden, Some(weight));
            let got = run(
                &package,
                &any_rows(count),
                &[(Buffer::Hidden, &hidden)],
                |ops| ops.qkv(layer),
                Buffer::Qkv,
            );
            let hidden = hidden.chunks_exact(shape.hidden).zip(&codes);
            let got = got.chunks_exact(shape.query() + 2 * shape.kv());
            assert_eq!(got.len(), count, "rows");
            for (row, ((hidden, codes), mut got)) in hidden.zip(got).enumerate() {
                let row_codes = quantized(hidden, codes, Some((weight, shape.eps)));
                for (matrix, name) in matrices.iter().zip(NAMES) {
                    let what = format!("{} {name}({layer}) row {row}", shape.architecture);
                    let (part, rest) = got.split_at(matrix.rows);
                    check_linear(&naive::linear(&row_codes, matrix), part, &what);
                    got = rest;
                }
            }
        }
    }
}

/// A row of `codes` that are given, not found: for inputs at the edge of the formula.
fn check_edge(hidden: &[f32], codes: Vec<i64>, unit: f64, what: &str) {
    let shape = Shape { layers: 1, ..Shape::LLAMA };
    let tiny = Tiny::new(shape, 5).without_norm_weights();
    let folder = tiny.folder(Form::Online("F32"));
    let got = run(
        &folder.package(),
        &any_rows(1),
        &[(Buffer::Hidden, hidden)],
        |ops| ops.qkv(0),
        Buffer::Qkv,
    );
    let row = Quantized { codes, unit };
    let matrix = tiny.trits(0, NAMES[0]);
    check_linear(&naive::linear(&row, &matrix), &got[..matrix.rows], what);
}

/// `1 / sqrt(mean(x²) + eps)` of the model in [`check_edge`].
fn inverse_root(hidden: &[f32]) -> f64 {
    let squares: f64 = hidden.iter().map(|x| f64::from(*x).powi(2)).sum();
    1.0 / (squares / hidden.len() as f64 + Shape::LLAMA.eps).sqrt()
}

#[test]
fn halves_round_to_even() {
    // The peak is 127 · 2^-4, so the factor is exactly 16 and these are exactly halves.
    let mut hidden: Vec<f32> = (0..96).map(|i| (i as f32 - 48.0 + 0.5) / 16.0).collect();
    hidden[0] = 127.0 / 16.0;
    let even = |x: &f32| (f64::from(*x) * 16.0).round_ties_even() as i64;
    let codes: Vec<i64> = hidden.iter().map(even).collect();
    assert_eq!(codes[1..5], [-46, -46, -44, -44]);
    let unit = inverse_root(&hidden) / 16.0;
    check_edge(&hidden, codes, unit, "halves");
}

#[test]
fn a_row_of_zeros_gives_zeros() {
    let unit = 1e-5 / 127.0;
    check_edge(&[0.0; 96], vec![0; 96], unit, "zeros");
}

#[test]
fn a_tiny_row_is_measured_against_the_least_peak() {
    // Normed by about 1 / sqrt(eps), every element stays below the least peak of 1e-5.
    let hidden: Vec<f32> = (0..96).map(|i| (i as f32 - 48.0) * 1e-10).collect();
    let scale = inverse_root(&hidden) * 127.0 / 1e-5;
    let scaled: Vec<f64> = hidden.iter().map(|x| f64::from(*x) * scale).collect();
    assert!(scaled.iter().all(|x| x.abs() < 100.0), "below the least peak");
    let codes = scaled.iter().map(|x| x.round_ties_even() as i64).collect();
    check_edge(&hidden, codes, 1e-5 / 127.0, "a tiny row");
}
