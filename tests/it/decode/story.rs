//! A golden story: one answer, recorded once.

use tercet_host::backend::KvType;
use tercet_host::forward::Cancel;
use tercet_host::sampler::Sampling;
use tercet_host::session::Request;
use tercet_tests::cpu::{Cpu, limits, with_session};
use tercet_tests::fixture::{Form, Shape, Tiny};

/// What `shape` answers to a fixed prompt, always taking the likeliest token.
fn story(shape: Shape, cpu: Cpu) -> Vec<u32> {
    let folder = Tiny::new(shape, 2026).folder(Form::Online("BF16"));
    let package = folder.package();
    with_session(&package, cpu, limits(64, 16, KvType::F16), |mut session| {
        let request = Request {
            prompt: &[1, 82, 113, 102, 104],
            max_tokens: 24,
            sampling: Sampling::GREEDY,
            seed: 0,
            stop_tokens: &[],
            stop_texts: &[],
        };
        let mut tokens = Vec::new();
        let mut sink = |event| {
            if let tercet_host::event::Event::Token { token, .. } = event {
                tokens.push(token);
            }
            core::ops::ControlFlow::Continue(())
        };
        session.generate(&request, None, &Cancel::default(), &mut sink).expect("an answer");
        tokens
    })
}

/// The stories, recorded from the portable level. A change means other answers for every user.
const STORIES: [(Shape, [u32; 24]); 3] = [
    (
        Shape { tied: false, ..Shape::MICROSOFT },
        [
            0, 223, 257, 228, 69, 45, 198, 180, 198, 180, 198, 180, 198, 180, 198, 180, 184, 252,
            253, 198, 180, 198, 180, 198,
        ],
    ),
    (
        Shape::ONE_BIT,
        [
            161, 176, 179, 21, 182, 154, 52, 67, 187, 128, 46, 76, 258, 15, 220, 12, 219, 181, 132,
            184, 8, 34, 90, 12,
        ],
    ),
    (
        Shape::LLAMA,
        [
            147, 40, 147, 138, 106, 23, 41, 124, 75, 75, 75, 75, 75, 158, 45, 111, 45, 45, 45, 45,
            45, 45, 45, 45,
        ],
    ),
];

#[test]
fn the_stories_are_the_recorded_ones() {
    for (shape, expected) in STORIES {
        for cpu in [Cpu::portable(), Cpu::fast()] {
            assert_eq!(story(shape.clone(), cpu), expected, "{cpu:?}");
        }
    }
}
