//! `embed`: `hidden[b] = embedding[token[b]]`, exact.

use tercet_host::backend::{Buffer, Row};
use tercet_tests::cpu::assert_same_bits;
use tercet_tests::fixture::{Form, Shape, Tiny};

use super::run;

#[test]
fn copies_the_rows_of_the_table_in_every_float_type() {
    let tiny = Tiny::new(Shape::MICROSOFT, 3);
    let table = tiny.values("model.embed_tokens.weight");
    let last = tiny.shape.vocab as u32 - 1;
    let tokens = [0, last, 7, 7, 1, last];
    let rows: Vec<Row> = (0..)
        .zip(tokens)
        .map(|(position, token)| Row { slot: 0, position, token, logits: false })
        .collect();
    let expected: Vec<f32> = tokens
        .iter()
        .flat_map(|token| &table[*token as usize * tiny.shape.hidden..][..tiny.shape.hidden])
        .copied()
        .collect();
    for dtype in ["F32", "F16", "BF16"] {
        let folder = tiny.folder(Form::Online(dtype));
        let got = run(&folder.package(), &rows, &[], |_| Ok(()), Buffer::Hidden);
        assert_same_bits(&expected, &got, dtype);
    }
}
