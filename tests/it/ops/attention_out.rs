//! `attention_out`: `hidden += o_proj(quantize(sub_norm(mixed)))`.

use tercet_host::backend::{Buffer, Ops};

use super::check_added_linear;

#[test]
fn adds_the_exact_linear_of_the_normed_row() {
    check_added_linear(
        Buffer::Mixed,
        "self_attn.o_proj",
        |shape| shape.sub_norms.map(|names| names[0]),
        |ops, layer| ops.attention_out(layer),
    );
}
