//! `choose_ahead`: as `choose`, and the next step may begin. Here where nothing begins;
//! `cuda::gpu::choosing_ahead_changes_no_answer` is for a device, `cuda::ahead` for its stand-in.

use tercet_host::backend::{KvType, Ops};
use tercet_host::sampler::{Sampler, Sampling};
use tercet_tests::cpu::{Cpu, limits, rows, step, with_ops};
use tercet_tests::fixture::{Form, Shape, Tiny};

const SAMPLED: Sampling =
    Sampling { repetition_penalty: 1.3, temperature: 1.5, top_k: 40, top_p: 0.95, min_p: 0.01 };

#[test]
fn an_answer_is_the_same_token_by_token() {
    let package = Tiny::new(Shape::ONE_BIT, 52).folder(Form::Multiply).package();
    for sampling in [Sampling::GREEDY, SAMPLED] {
        let answer = |ahead: bool| {
            with_ops(&package, Cpu::fast(), limits(16, 1, KvType::F32), |mut ops| {
                let mut sampler = Sampler::new(sampling, 7);
                let (mut token, mut answer) = (3, Vec::new());
                for position in 0..15 {
                    step(&mut ops, 2, &rows(0, position, &[token])).expect("no error");
                    token = if ahead {
                        ops.choose_ahead(&mut sampler, 0, position + 1)
                    } else {
                        ops.choose(0, &mut sampler)
                    }
                    .expect("finite logits");
                    sampler.observe(token);
                    answer.push(token);
                }
                answer
            })
        };
        assert_eq!(answer(true), answer(false));
    }
}
