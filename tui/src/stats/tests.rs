//! Scripted events: the numbers, and that every way to hear them gives the same.

use core::time::Duration;
use std::sync::mpsc::channel;
use std::thread;

use tercet_host::event::{Event, Finished, StopReason};
use tercet_host::measure::{Logits, Next, Timing, Workload};

use super::{Cause, RECENT, Stats};
use crate::answer::{numbers, summary};
use crate::bench::{Context, Row, Test};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An answer as a session tells it: a prompt of 12 tokens of which 4 were cached, the first token
/// after `first`, the others after `gaps`. The last one ends the turn, so nobody hears of it.
fn events(first: Duration, gaps: &[Duration]) -> Vec<Event> {
    let prefill = first - ms(1);
    let mut events = vec![
        Event::Prefill { done: 4, total: 12, reused: 4 },
        Event::Prefill { done: 12, total: 12, reused: 4 },
    ];
    let (_, told) = gaps.split_last().unwrap();
    let times = [first].into_iter().chain(told.iter().copied());
    events.extend(times.enumerate().map(|(index, elapsed)| Event::Token {
        token: 7,
        text: "x".into(),
        position: 12 + index,
        elapsed,
    }));
    events.push(Event::Finished(Finished {
        reason: StopReason::EndOfTurn,
        text: String::new(),
        prompt_tokens: 12,
        reused_tokens: 4,
        tokens: 1 + gaps.len(),
        prefill,
        decode: first - prefill + gaps.iter().sum::<Duration>(),
    }));
    events
}

fn hear(events: &[Event]) -> Stats {
    let mut stats = Stats::default();
    events.iter().for_each(|event| stats.hear(event));
    stats
}

/// 10 ms and 20 ms in turn, with one of 500 ms.
fn gaps() -> Vec<Duration> {
    (0..20).map(|n| if n == 12 { ms(500) } else { ms(10 + 10 * (n % 2)) }).collect()
}

#[test]
fn a_scripted_answer_has_these_numbers() {
    let stats = hear(&events(ms(41), &gaps()));
    // Ten of 20 ms, nine of 10 ms, one of 500 ms: numpy gives the same.
    let itl = stats.gaps().percentiles().unwrap();
    assert_eq!((itl.mean, itl.p50, itl.p90), (39.5, 20.0, 20.0));
    assert!((itl.p99 - (20.0 + 0.81 * 480.0)).abs() < 1e-9, "{itl:?}");
    assert_eq!(stats.gaps().range(), Some((ms(10), ms(500))));
    assert_eq!(stats.gaps().len(), 20);
    assert!((stats.rate().unwrap() - 20.0 / 0.790).abs() < 1e-9);
    assert_eq!((stats.ttft(), stats.tokens()), (Some(ms(41)), 21));
    // 8 of the 12 tokens were computed, in 40 ms.
    assert!((stats.prefill_rate().unwrap() - 200.0).abs() < 1e-9);
    // The last token that was told of stands at position 31.
    assert_eq!(stats.context(), 32);
    let stalls: Vec<_> = stats.stalls().collect();
    assert_eq!(stats.stall_count(), 1);
    assert_eq!((stalls[0].time, stalls[0].token), (ms(500), 14));
    assert_eq!(stalls[0].cause, Cause::Unknown);
    assert_eq!(
        summary(&stats),
        "21 tokens, 25.3 tokens/s, prompt of 12 (4 reused) in 40.0 ms, ended by end of turn"
    );
}

#[test]
fn chat_run_and_bench_have_the_same_numbers() {
    let (first, gaps) = (ms(41), gaps());
    let events = events(first, &gaps);

    // `run` hears them where they arise and prints JSON.
    let run = hear(&events);
    let json = numbers(&run);
    // The chat hears copies on another thread, at its own pace, and looks in between.
    let (tell, told) = channel();
    let copies = events.clone();
    let engine = thread::spawn(move || copies.into_iter().for_each(|e| tell.send(e).unwrap()));
    let mut chat = Stats::default();
    for event in told {
        chat.hear(&event);
        let _ = (chat.gaps().percentiles(), chat.rate_now(ms(3)), chat.histogram(9));
    }
    engine.join().unwrap();
    // `--bench` has the bare times, and reports rows.
    let timing = Timing {
        total: first + gaps.iter().sum::<Duration>(),
        first_tokens: vec![first],
        steps: gaps,
    };
    let mut bench = Stats::default();
    bench.hear_run(&timing);
    let workload = Workload {
        slots: 1,
        depth: 0,
        prompt: 12,
        generate: 21,
        logits: Logits::Last,
        next: Next::Greedy,
    };
    let test = Test { suite: "scripted", name: "t".into(), workload };
    let row = Row::new(&test, &[timing], Context::default()).unwrap();

    assert_eq!(chat, run);
    for stats in [&chat, &bench] {
        assert_eq!(stats.gaps(), run.gaps());
        assert_eq!(stats.first_tokens(), run.first_tokens());
        assert_eq!(stats.rate_now(ms(0)), run.rate_now(ms(0)));
        assert_eq!(stats.histogram(12), run.histogram(12));
        assert_eq!(stats.stalls().collect::<Vec<_>>(), run.stalls().collect::<Vec<_>>());
        assert!(stats.recent().eq(run.recent()));
        assert_eq!((stats.tokens(), stats.ttft()), (run.tokens(), run.ttft()));
    }
    let row = serde_json::to_value(&row).unwrap();
    assert_eq!(row["itl_ms"], json["itl_ms"]);
    assert_eq!(row["ttft_ms"]["p50"], json["ttft_ms"]);
    assert_eq!(json["decode_ts"], chat.rate().unwrap());
    assert_eq!(json["n_gen"], 21);
    let now = chat.gaps().percentiles().unwrap();
    assert_eq!(json["itl_ms"], serde_json::to_value(now).unwrap());
}

#[test]
fn runs_are_pooled_and_answers_too() {
    let timing =
        Timing { total: ms(100), first_tokens: vec![ms(30), ms(40)], steps: vec![ms(10), ms(20)] };
    let mut bench = Stats::default();
    bench.hear_run(&timing);
    bench.hear_run(&Timing { first_tokens: vec![], ..timing });
    assert_eq!((bench.first_tokens().len(), bench.gaps().len()), (2, 4));
    assert_eq!(bench.gaps().mean(), Some(15.0));

    let mut chat = hear(&events(ms(41), &gaps()));
    for event in events(ms(21), &[ms(5), ms(5)]) {
        chat.hear(&event);
        assert!(chat.tokens() <= 3, "a new answer counts from 0");
    }
    assert_eq!((chat.first_tokens().len(), chat.gaps().len()), (2, 22));
    assert_eq!((chat.ttft(), chat.tokens()), (Some(ms(21)), 3));
    assert_eq!(chat.end().unwrap().tokens, 3);
}

#[test]
fn the_rate_now_follows_the_last_second_and_falls_while_nothing_comes() {
    let mut times = vec![ms(100); 50];
    times.extend([ms(20); 51]);
    // The last one is not heard of before the end.
    let all = events(ms(200), &times);
    let mut stats = hear(&all[..all.len() - 1]);
    assert!((stats.rate_now(ms(0)).unwrap() - 50.0).abs() < 1e-9);
    assert!(stats.rate().unwrap() < 17.0);
    // Up to a gap's length nothing is late.
    assert_eq!(stats.rate_now(ms(20)), stats.rate_now(ms(0)));
    assert!((stats.rate_now(ms(1000)).unwrap() - 25.5).abs() < 1e-9);
    assert!(stats.rate_now(ms(99_000)).unwrap() < 1.0);
    stats.hear(&all[all.len() - 1]);
    assert_eq!(stats.gaps().len(), 101);

    // Slow ones: four gaps, however long.
    let slow = hear(&events(ms(9), &[ms(500), ms(1500), ms(2000), ms(2000), ms(2500)]));
    assert!((slow.rate_now(ms(0)).unwrap() - 0.5).abs() < 1e-9);
    assert_eq!(Stats::default().rate_now(ms(5)), None);
}

#[test]
fn stalls_have_causes_where_they_are_known() {
    let mut stats = Stats::default();
    let token = |position, elapsed| Event::Token {
        token: 1,
        text: String::new(),
        position,
        elapsed: ms(elapsed),
    };
    let times = [90, 200, 10, 10, 10, 10, 10, 300, 10, 10, 400, 31];
    for (position, elapsed) in times.into_iter().enumerate() {
        stats.note_neighbours(match position {
            6..=8 => Some(0.8),
            9..=10 => Some(0.1),
            _ => None,
        });
        stats.hear(&token(position, elapsed));
        if position < 8 {
            assert_eq!(stats.stall_count(), 0, "seven gaps are too few to tell");
        }
    }
    let stalls: Vec<_> = stats.stalls().map(|s| (s.time, s.token, s.cause)).collect();
    let expected = [
        (ms(400), 11, Cause::Unknown),
        (ms(300), 8, Cause::Neighbours(0.8)),
        (ms(200), 2, Cause::FirstStep),
        (ms(31), 12, Cause::Unknown),
    ];
    assert_eq!(stalls, expected);
    assert_eq!(stats.stall_limit(), Some(ms(30)));
    // Three times next to nothing is nothing, too.
    let quick: Vec<_> = (0..20).map(|n| ms(if n == 9 { 9 } else { 1 })).collect();
    assert_eq!(hear(&events(ms(9), &quick)).stall_count(), 0);
}

#[test]
fn what_is_remembered_is_bounded() {
    let gaps: Vec<_> = (0..2000).map(|n| if n % 10 == 0 { ms(1000 + n) } else { ms(5) }).collect();
    let stats = hear(&events(ms(9), &gaps));
    assert_eq!(stats.recent().len(), RECENT);
    assert_eq!(stats.recent().next_back(), Some(ms(5)));
    assert_eq!((stats.stall_count(), stats.stalls().count()), (200, 32));
    let longest: Vec<_> = stats.stalls().map(|stall| stall.time).collect();
    assert_eq!((longest[0], longest[31]), (ms(2990), ms(2680)));
}

#[test]
fn an_answer_that_ends_early_has_no_numbers_that_nobody_measured() {
    // Stopped in the prompt.
    let finished = |tokens, reason, decode| {
        Event::Finished(Finished {
            reason,
            text: String::new(),
            prompt_tokens: 600,
            reused_tokens: 0,
            tokens,
            prefill: ms(70),
            decode,
        })
    };
    let half = Event::Prefill { done: 300, total: 600, reused: 0 };
    let stats = hear(&[half.clone(), finished(0, StopReason::Cancelled, ms(0))]);
    assert_eq!((stats.ttft(), stats.rate(), stats.tokens()), (None, None, 0));
    assert_eq!((stats.context(), stats.prompt().done), (300, 300));
    // Its first token ended it: nothing is told of it but the end.
    let stats = hear(&[half.clone(), finished(1, StopReason::EndOfTurn, ms(2))]);
    assert_eq!((stats.ttft(), stats.gaps().len(), stats.tokens()), (Some(ms(72)), 0, 1));
    // Stopped in the middle of a step: the time of that is no gap.
    let token = |position, elapsed| Event::Token {
        token: 1,
        text: String::new(),
        position,
        elapsed: ms(elapsed),
    };
    let told = [half, token(600, 71), token(601, 10), finished(2, StopReason::Cancelled, ms(14))];
    let stats = hear(&told);
    assert_eq!((stats.gaps().len(), stats.rate()), (1, Some(100.0)));
}
