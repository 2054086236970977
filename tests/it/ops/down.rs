//! `down`: `hidden += down_proj(quantize(sub_norm(gated)))`.

use tercet_host::backend::{Buffer, Ops};

use super::check_added_linear;

#[test]
fn adds_the_exact_linear_of_the_normed_row() {
    check_added_linear(
        Buffer::Gated,
        "mlp.down_proj",
        |shape| shape.sub_norms.map(|names| names[1]),
        |ops, layer| ops.down(layer),
    );
}
