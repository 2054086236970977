//! Prompts that a model cannot take, and files of token ids that hold none.

use core::ops::ControlFlow;

use tercet_host::backend::cpu::CpuBackend;
use tercet_host::backend::{Backend, DeviceError, KvType, Limits};
use tercet_host::error::{Error, ExitCode};
use tercet_host::evaluate::read_tokens;
use tercet_host::forward::Cancel;
use tercet_host::sampler::Sampling;
use tercet_host::session::{PromptError, Request};
use tercet_tests::cpu::{Cpu, limits, with_session};
use tercet_tests::fixture::Form;
use tercet_tests::folder::Folder;

use super::{check, small};

/// What a context of eight positions says to a prompt.
fn refusal(prompt: &[u32]) -> Error {
    let folder = small().folder(Form::Multiply);
    let package = folder.package();
    with_session(&package, Cpu::portable(), limits(8, 4, KvType::F16), |mut session| {
        let request = Request {
            prompt,
            max_tokens: 1,
            sampling: Sampling::GREEDY,
            seed: 0,
            stop_tokens: &[],
            stop_texts: &[],
        };
        let mut sink = |event| -> ControlFlow<()> { panic!("nothing to tell: {event:?}") };
        let error = session.generate(&request, None, &Cancel::default(), &mut sink);
        let error = Error::from(error.expect_err("a prompt that does not fit"));
        check(&error, ExitCode::Data);
        assert!(session.cached().is_empty(), "nothing was computed");
        error
    })
}

#[test]
fn an_empty_prompt() {
    let error = refusal(&[]);
    assert!(matches!(error, Error::Prompt(PromptError::Empty)), "{error:?}");
}

#[test]
fn a_prompt_longer_than_the_context() {
    for length in [8, 9, 100] {
        let error = refusal(&vec![5; length]);
        let Error::Prompt(PromptError::TooLong { prompt, context: 8 }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(prompt, length, "the length as it was given");
    }
}

#[test]
fn a_token_that_the_model_does_not_have() {
    for token in [263, 264, 1 << 24, u32::MAX] {
        let error = refusal(&[1, 2, token, 3]);
        let Error::Prompt(PromptError::Token { token: named, vocab: 263 }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(named, token);
    }
}

#[test]
fn a_context_that_no_memory_holds() {
    let folder = small().folder(Form::Multiply);
    let package = folder.package();
    let model = package.bind().expect("a valid model");
    let Cpu { threads, simd, .. } = Cpu::portable();
    let backend = CpuBackend::new(threads, simd).expect("threads");
    let weights = backend.upload(&model, &mut |_, _| {}).expect("valid weights");
    let fits = Limits { slots: 1, positions_max: 8, rows_max: 1, logits_max: 1, kv: KvType::F32 };
    for limits in [
        Limits { positions_max: 1 << 45, ..fits },
        Limits { positions_max: 1 << 62, ..fits },
        Limits { slots: 1 << 40, ..fits },
        Limits { logits_max: 1 << 50, rows_max: 1, ..fits },
    ] {
        let error = backend.ops(&weights, limits).expect_err("more than there is");
        let needed = matches!(error, DeviceError::OutOfMemory { needed, .. } if needed > 1 << 40);
        assert!(needed, "{error:?}");
        check(&error.into(), ExitCode::Unavailable);
    }
}

#[test]
fn files_that_hold_no_token_ids() {
    let folder = Folder::new();
    let read = |bytes: &[u8]| {
        folder.put("tokens", bytes);
        read_tokens(&folder.join("tokens")).expect_err("no token ids")
    };
    for bytes in [&b"1 two 3"[..], b"-1", b"4294967296", b"1.5", b"\xff\xff", b"1,2"] {
        let error = read(bytes);
        assert!(matches!(error, Error::Tokens { .. }), "{error:?}");
        check(&error, ExitCode::Data);
    }
    let long = read("9".repeat(1 << 20).as_bytes());
    check(&long, ExitCode::Data);
    let error = read_tokens(&folder.join("nothing")).expect_err("no file");
    check(&error, ExitCode::NoInput);
    let error = read_tokens(folder.path()).expect_err("a folder");
    check(&error, ExitCode::Io);
}
