//! `gate_up`: `gated = activation(gate) · up`.

use tercet_host::backend::{Buffer, Ops};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::naive;
use tercet_tests::random::Random;
use tercet_tests::tolerance::GATED;

use super::{ROW_COUNTS, any_rows, quantized, rows_with_codes, run};

#[test]
fn multiplies_the_activated_gate_with_up() {
    for (seed, shape) in (21..).zip(Shape::ALL) {
        let tiny = Tiny::new(shape.clone(), seed);
        let folder = tiny.folder(Form::Multiply);
        let package = folder.package();
        let mut random = Random::new(seed);
        for (count, layer) in ROW_COUNTS.into_iter().zip([0, 1, 1, 0]) {
            let gate = tiny.trits(layer, "mlp.gate_proj");
            let up = tiny.trits(layer, "mlp.up_proj");
            let weight =
                tiny.values(&format!("model.layers.{layer}.post_attention_layernorm.weight"));
            let (hidden, codes) = rows_with_codes(&mut random, count, shape.hidden, Some(weight));
            let got = run(
                &package,
                &any_rows(count),
                &[(Buffer::Hidden, &hidden)],
                |ops| ops.gate_up(layer),
                Buffer::Gated,
            );
            assert_eq!(got.len(), count * shape.ffn, "elements");
            let hidden = hidden.chunks_exact(shape.hidden).zip(&codes);
            for ((hidden, codes), got) in hidden.zip(got.chunks_exact(shape.ffn)) {
                let row = quantized(hidden, codes, Some((weight, shape.eps)));
                let gates = naive::linear(&row, &gate).values();
                let ups = naive::linear(&row, &up).values();
                for (feature, ((gate, up), got)) in gates.iter().zip(ups).zip(got).enumerate() {
                    let what = format!("{} gate_up({layer})[{feature}]", shape.architecture);
                    let expected = naive::activation(shape.activation, *gate) * up;
                    // A negative gate of SiLU carries its error into the exponent.
                    let magnitude = expected * (1.0 + gate.abs());
                    GATED.check(expected, f64::from(*got), magnitude, &what);
                }
            }
        }
    }
}
