//! `logits`: `head · norm(hidden)` for the rows that ask, in their order.

use tercet_host::backend::{Buffer, Ops, Row};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::naive;
use tercet_tests::random::Random;
use tercet_tests::tolerance::LOGIT;

use super::{any_rows, run};

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
