//! `logits`: `head · norm(hidden)` for the rows that ask, in their order.

use tercet_host::backend::{Buffer, HeadType, KvType, Limits, Ops, Row};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::naive;
use tercet_tests::random::Random;
use tercet_tests::tolerance::LOGIT;

use super::{any_rows, on_every_cpu_with, run};

fn check(shape: Shape, form: Form, asking: &[bool]) {
    let tiny = Tiny::new(shape.clone(), 31);
    let folder = tiny.folder(form);
    let head = if shape.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
    let (head, norm) = (tiny.values(head), tiny.values("model.norm.weight"));
    let hidden = Random::new(31).floats(asking.len() * shape.hidden);
    let rows: Vec<Row> = any_rows(asking.len())
        .into_iter()
        .zip(asking)
        .map(|(row, &logits)| Row { logits, ..row })
        .collect();
    let inputs = [(Buffer::Hidden, &hidden[..])];
    let got = run(&folder.package(), &rows, &inputs, |ops| ops.logits(), Buffer::Logits);

    let asked = hidden.chunks_exact(shape.hidden).zip(asking).filter(|(_, asks)| **asks);
    assert_eq!(got.len(), asked.clone().count() * shape.vocab, "one row of logits per row asking");
    for ((hidden, _), got) in asked.zip(got.chunks_exact(shape.vocab)) {
        let normed = naive::rms_norm(hidden, norm, shape.eps);
        for (token, (weights, got)) in head.chunks_exact(shape.hidden).zip(got).enumerate() {
            let products = || normed.iter().zip(weights).map(|(x, w)| x * f64::from(*w));
            let magnitude = products().map(f64::abs).sum();
            let what = format!("{form:?}: logit of token {token}");
            LOGIT.check(products().sum(), f64::from(*got), magnitude, &what);
        }
    }
}

#[test]
fn rows_that_ask_get_their_logits_in_order() {
    for form in [Form::Online("F32"), Form::Online("F16"), Form::Online("BF16")] {
        check(Shape::MICROSOFT, form, &[false, true, false, false, true, true]);
    }
    check(Shape::ONE_BIT, Form::Multiply, &[true]);
    check(Shape::LLAMA, Form::Divide, &[true; 37]);
}

#[test]
fn nobody_asks_and_nothing_is_made() {
    check(Shape::MICROSOFT, Form::Multiply, &[false; 4]);
}

/// A row of the head as INT8 holds it: `unit · round_half_even(w · 127 / max |w|)`.
fn rounded(weights: &[f32]) -> Vec<f64> {
    let peak = weights.iter().fold(0.0_f32, |peak, weight| peak.max(weight.abs()));
    let code = |weight: &f32| (weight * (127.0 / peak)).round_ties_even();
    weights.iter().map(|weight| f64::from(code(weight)) * f64::from(peak / 127.0)).collect()
}

#[test]
fn an_int8_head_is_rounded_row_by_row() {
    for (shape, form) in [
        (Shape::MICROSOFT, Form::Online("BF16")),
        (Shape::ONE_BIT, Form::Online("F16")),
        (Shape { tied: false, ..Shape::LLAMA }, Form::Online("F32")),
    ] {
        let tiny = Tiny::new(shape.clone(), 32);
        let folder = tiny.folder(form);
        let head = if shape.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let (head, norm) = (tiny.values(head), tiny.values("model.norm.weight"));
        let hidden = Random::new(32).floats(5 * shape.hidden);
        let rows: Vec<Row> =
            any_rows(5).into_iter().map(|row| Row { logits: true, ..row }).collect();
        let step = |rows: &[Row], hidden: &[f32]| {
            let (rows_max, logits_max) = (5, 5);
            let limits =
                Limits { slots: 1, positions_max: 5, rows_max, logits_max, kv: KvType::F32 };
            on_every_cpu_with(HeadType::Int8, &folder.package(), limits, |ops| {
                ops.embed(rows)?;
                ops.write(Buffer::Hidden, hidden)?;
                ops.logits()?;
                ops.read(Buffer::Logits)
            })
        };
        let got = step(&rows, &hidden);
        for (row, hidden) in hidden.chunks_exact(shape.hidden).enumerate() {
            let got = &got[row * shape.vocab..][..shape.vocab];
            assert_eq!(got, step(&rows[row..=row], hidden), "{form:?}: a row by itself");
            let normed = naive::rms_norm(hidden, norm, shape.eps);
            for (token, (weights, got)) in head.chunks_exact(shape.hidden).zip(got).enumerate() {
                let weights = rounded(weights);
                let products = || normed.iter().zip(&weights).map(|(x, w)| x * w);
                let magnitude = products().map(f64::abs).sum();
                let what = format!("{form:?}: logit of token {token}");
                LOGIT.check(products().sum(), f64::from(*got), magnitude, &what);
            }
        }
    }
}
