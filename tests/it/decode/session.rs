//! Sessions: what is reused, where they stop, and what a stop leaves behind.

use core::cell::Cell;
use core::ops::ControlFlow;

use tercet_host::backend::{KvType, Limits, Ops, TokenId};
use tercet_host::event::{Event, Finished, StopReason};
use tercet_host::forward::Cancel;
use tercet_host::package::Package;
use tercet_host::sampler::Sampling;
use tercet_host::session::{Request, Session, SessionError};
use tercet_tests::cpu::{Cpu, limits, with_ops, with_session};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::folder::Folder;

use super::interrupted::{Fault, Interrupted, Plan};

const PROMPT: [TokenId; 9] = [1, 77, 104, 101, 35, 99, 120, 3, 250];

/// Random enough to visit many tokens; the seed makes it repeatable.
const SAMPLING: Sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };

const LIMITS: Limits =
    Limits { slots: 1, positions_max: 64, rows_max: 4, logits_max: 1, kv: KvType::F16 };

fn model() -> Folder {
    Tiny::new(Shape::MICROSOFT, 91).folder(Form::Multiply)
}

fn request(prompt: &[TokenId], max_tokens: usize) -> Request<'_> {
    let (stop_tokens, stop_texts) = (&[], &[]);
    Request { prompt, max_tokens, sampling: SAMPLING, seed: 7, stop_tokens, stop_texts }
}

/// What a session told.
#[derive(Default)]
struct Heard {
    tokens: Vec<TokenId>,
    text: String,
    /// `(done, total, reused)` of each stretch of the prefill.
    prefill: Vec<(usize, usize, usize)>,
    finished: Vec<Finished>,
}

impl Heard {
    fn event(&mut self, event: Event) -> ControlFlow<()> {
        assert!(self.finished.is_empty(), "nothing follows the end");
        match event {
            Event::Prefill { done, total, reused } => self.prefill.push((done, total, reused)),
            Event::Token { token, text, .. } => {
                self.tokens.push(token);
                self.text += &text;
            }
            Event::Finished(finished) => {
                self.text += &finished.text;
                self.finished.push(finished);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn reason(&self) -> StopReason {
        self.finished[0].reason
    }
}

fn generate<O: Ops>(session: &mut Session<O>, package: &Package, request: &Request<'_>) -> Heard {
    let mut heard = Heard::default();
    let mut sink = |event| heard.event(event);
    let finished = session
        .generate(request, package.tokenizer.as_ref(), &Cancel::default(), &mut sink)
        .expect("an answer");
    assert_eq!(heard.finished, [finished], "told and returned");
    heard
}

/// The answer of a session that has done nothing else.
fn from_scratch(package: &Package, request: &Request<'_>) -> Heard {
    with_session(package, Cpu::fast(), LIMITS, |mut session| {
        generate(&mut session, package, request)
    })
}

#[test]
fn a_shared_beginning_is_not_computed_again() {
    let folder = model();
    let package = folder.package();
    let long = [&PROMPT[..], &[60, 61, 62, 63, 64]].concat();
    let fork = [&PROMPT[..5], &[200, 201]].concat();
    with_session(&package, Cpu::fast(), LIMITS, |mut session| {
        for (prompt, reused) in [(&PROMPT[..], 0), (&long, 9), (&fork, 5), (&fork, 6), (&[9], 0)] {
            let expected = from_scratch(&package, &request(prompt, 3));
            let got = generate(&mut session, &package, &request(prompt, 3));
            assert_eq!(got.tokens, expected.tokens, "{prompt:?}");
            let total = prompt.len();
            let done = [reused].into_iter().chain((reused + 4..total).step_by(4)).chain([total]);
            let stretches: Vec<_> = done.map(|done| (done, total, reused)).collect();
            assert_eq!(got.prefill, stretches, "only what is new, in chunks of four");
            assert_eq!(got.finished[0].reused_tokens, reused);
            assert_eq!(got.finished[0].prompt_tokens, total);
        }
    });
}

#[test]
fn an_answer_is_part_of_the_conversation() {
    let folder = model();
    let package = folder.package();
    with_session(&package, Cpu::fast(), LIMITS, |mut session| {
        let answer = generate(&mut session, &package, &request(&PROMPT, 6)).tokens;
        // The last token was told and not yet computed.
        assert_eq!(session.cached(), [&PROMPT[..], &answer[..5]].concat());
        let next = [&PROMPT[..], &answer, &[30, 31]].concat();
        let got = generate(&mut session, &package, &request(&next, 6));
        assert_eq!(got.finished[0].reused_tokens, PROMPT.len() + 5);
        assert_eq!(got.tokens, from_scratch(&package, &request(&next, 6)).tokens);
        session.clear();
        let again = generate(&mut session, &package, &request(&PROMPT, 6));
        assert_eq!((again.finished[0].reused_tokens, again.tokens), (0, answer));
    });
}

#[test]
fn the_context_is_filled_to_the_last_position() {
    let folder = model();
    let package = folder.package();
    let whole = from_scratch(&package, &request(&PROMPT, 40)).tokens;
    for positions in [PROMPT.len() + 1, 16, 32, 33] {
        let limits = Limits { positions_max: positions, ..LIMITS };
        with_session(&package, Cpu::fast(), limits, |mut session| {
            let got = generate(&mut session, &package, &request(&PROMPT, 1000));
            assert_eq!(got.reason(), StopReason::ContextFull);
            assert_eq!(session.cached().len(), positions, "every position is used");
            // One more: the last token needs no position, nobody sees it.
            let expected = positions - PROMPT.len() + 1;
            assert_eq!(got.tokens, whole[..expected], "context {positions}");
            let again = generate(&mut session, &package, &request(&PROMPT, 2));
            assert_eq!(again.tokens, whole[..2], "usable after it was full");
        });
    }
}

#[test]
fn an_answer_ends_where_it_was_told_to() {
    let folder = model();
    let package = folder.package();
    let whole = from_scratch(&package, &request(&PROMPT, 30));
    assert_eq!((whole.reason(), whole.tokens.len()), (StopReason::MaxTokens, 30));
    let none = from_scratch(&package, &request(&PROMPT, 0));
    assert_eq!((none.reason(), none.tokens.len()), (StopReason::MaxTokens, 0));

    let stop = whole.tokens[11];
    let first = whole.tokens.iter().position(|token| *token == stop).expect("it is there");
    let stop_tokens = &[stop];
    let ended = from_scratch(&package, &Request { stop_tokens, ..request(&PROMPT, 30) });
    assert_eq!(ended.reason(), StopReason::EndOfTurn);
    assert_eq!(ended.tokens, whole.tokens[..first], "the token that ends it is not told");
    assert_eq!(ended.finished[0].tokens, first + 1, "but counted");
}

#[test]
fn a_stop_text_ends_an_answer_and_is_not_shown() {
    let folder = model();
    let package = folder.package();
    let whole = from_scratch(&package, &request(&PROMPT, 40)).text;
    let letters: Vec<(usize, char)> = whole.char_indices().collect();
    assert!(letters.len() > 12, "a text to stop in: {whole:?}");
    for (first, count) in [(8, 1), (5, 3), (2, 6)] {
        let end = letters.get(first + count).map_or(whole.len(), |letter| letter.0);
        let stop = whole[letters[first].0..end].to_owned();
        let place = whole.find(&stop).expect("it is there");
        let stop_texts = [String::from("never there"), stop.clone()];
        let stop_texts = &stop_texts;
        let got = from_scratch(&package, &Request { stop_texts, ..request(&PROMPT, 40) });
        assert_eq!(got.reason(), StopReason::StopText, "{stop:?}");
        assert_eq!(got.text, whole[..place], "{stop:?}");
    }
    // A text that only begins like one is shown after all.
    let stop_texts = &[whole.clone() + "!"];
    let got = from_scratch(&package, &Request { stop_texts, ..request(&PROMPT, 40) });
    assert_eq!((got.reason(), got.text), (StopReason::MaxTokens, whole));
}

/// Interrupts one answer at each attention in turn; the next answer must not notice.
fn check_interrupted<'a>(fault: Fault<'a>, cancel: &'a Cancel) {
    let folder = model();
    let package = folder.package();
    let expected = from_scratch(&package, &request(&PROMPT, 4)).tokens;
    // The next prompt goes on from the answer, so that nothing half done may be reused.
    let next = [&PROMPT[..], &expected].concat();
    let after = from_scratch(&package, &request(&next, 4)).tokens;
    let (countdown, layers) = (Cell::new(0), package.config.layers);
    // Two chunks of prefill and three steps; the fourth token is chosen and not computed.
    for attention in 1..=5 * layers {
        with_ops(&package, Cpu::fast(), LIMITS, |ops| {
            let ops = Interrupted { ops, plan: Plan { countdown: &countdown, fault } };
            let mut session = Session::new(ops, &package.config, LIMITS);
            generate(&mut session, &package, &request(&PROMPT[..2], 0));

            countdown.set(attention);
            let mut heard = Heard::default();
            let mut sink = |event| heard.event(event);
            let got = session.generate(&request(&PROMPT, 4), None, cancel, &mut sink);
            match (fault, got) {
                (Fault::Error, Err(SessionError::Device(_))) => {}
                (Fault::Cancel(_), Ok(finished)) => {
                    assert_eq!(finished.reason, StopReason::Cancelled, "attention {attention}");
                }
                (_, got) => panic!("attention {attention}: {got:?}"),
            }
            assert!(expected.starts_with(&heard.tokens), "attention {attention}");
            // A step that was cancelled in its last layer has run to its end.
            let whole_steps = match fault {
                Fault::Cancel(_) => attention / layers,
                Fault::Error => (attention - 1) / layers,
            };
            let cached = [2, 6, 9, 10, 11, 12][whole_steps];
            assert_eq!(session.cached(), &next[..cached], "whole steps only, after {attention}");
            cancel.clear();
            countdown.set(0);
            let got = generate(&mut session, &package, &request(&next, 4));
            assert_eq!(got.tokens, after, "after attention {attention}");
        });
    }
}

#[test]
fn cancelled_anywhere_a_session_goes_on() {
    let cancel = Cancel::default();
    check_interrupted(Fault::Cancel(&cancel), &cancel);
}

#[test]
fn failed_anywhere_a_session_goes_on() {
    check_interrupted(Fault::Error, &Cancel::default());
}

#[test]
fn a_listener_may_stop_an_answer() {
    let folder = model();
    let package = folder.package();
    let expected = from_scratch(&package, &request(&PROMPT, 8)).tokens;
    with_session(&package, Cpu::fast(), limits(64, 4, KvType::F16), |mut session| {
        // Events of a fresh answer: four of the prefill, then tokens.
        for stop_at in 1..=8 {
            session.clear();
            let mut events = 0;
            let mut sink = |event: Event| {
                events += usize::from(!matches!(event, Event::Finished(_)));
                if events == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let finished = session
                .generate(&request(&PROMPT, 8), None, &Cancel::default(), &mut sink)
                .expect("an answer");
            assert_eq!(finished.reason, StopReason::Cancelled, "event {stop_at}");
            assert_eq!(events, stop_at, "nothing but the end after the stop");
            assert_eq!(finished.tokens, stop_at.saturating_sub(4));
            let got = generate(&mut session, &package, &request(&PROMPT, 8));
            assert_eq!(got.tokens, expected, "after a stop at event {stop_at}");
        }
    });
}
