//! The loop on a device that only waits and writes down what it was asked.

use core::time::Duration;

use tercet_host::backend::{Buffer, DeviceError, KvType, Ops, Row as StepRow, TokenId};
use tercet_host::forward::Cancel;
use tercet_host::measure::{Logits, Next, Stepper, Timing, Workload};
use tercet_host::sampler::Sampler;

use crate::bench::{Repeat, measure};

/// A device whose steps take scripted times, and which writes down what it was asked.
#[derive(Debug)]
struct Scripted<'s> {
    /// Milliseconds of each step; the last one holds for all that follow.
    delays: &'s [u64],
    steps: &'s mut Vec<Vec<StepRow>>,
    chosen: &'s mut Vec<(usize, usize)>,
    cancel_after: Option<(usize, Cancel)>,
    logit: f32,
}

impl Ops for Scripted<'_> {
    fn embed(&mut self, rows: &[StepRow]) -> Result<(), DeviceError> {
        let delay = self.delays.get(self.steps.len()).or(self.delays.last());
        std::thread::sleep(Duration::from_millis(*delay.unwrap_or(&0)));
        self.steps.push(rows.to_vec());
        match &self.cancel_after {
            Some((steps, cancel)) if self.steps.len() == *steps => cancel.request(),
            _ => {}
        }
        Ok(())
    }
    fn qkv(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn attend(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn attention_out(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn gate_up(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn down(&mut self, _layer: usize) -> Result<(), DeviceError> {
        Ok(())
    }
    fn logits(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
    fn choose(&mut self, asked: usize, _sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        self.chosen.push((self.steps.len(), asked));
        Ok(7)
    }
    fn read(&mut self, _buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        Ok(vec![self.logit; 10])
    }
    fn write(&mut self, _buffer: Buffer, _values: &[f32]) -> Result<(), DeviceError> {
        Ok(())
    }
}

const WORKLOAD: Workload = Workload {
    slots: 1,
    depth: 0,
    prompt: 0,
    generate: 0,
    logits: Logits::Last,
    next: Next::Given,
};

/// What a scripted device was asked, and what came of it.
struct Told {
    timings: Result<Vec<Timing>, DeviceError>,
    steps: Vec<Vec<StepRow>>,
    chosen: Vec<(usize, usize)>,
}

fn run(
    workload: Workload,
    (warmup, runs): (u32, u32),
    delays: &[u64],
    cancel_after: Option<usize>,
    logit: f32,
) -> Told {
    let (mut steps, mut chosen) = (Vec::new(), Vec::new());
    let cancel = Cancel::default();
    let cancel_after = cancel_after.map(|steps| (steps, cancel.clone()));
    let ops = Scripted { delays, steps: &mut steps, chosen: &mut chosen, cancel_after, logit };
    let mut stepper = Stepper::new(ops, 1, 10, workload.limits(4, KvType::F16));
    let repeat = Repeat { warmup, runs };
    let timings = measure(&mut stepper, &workload, repeat, &cancel, &mut |_| {});
    Told { timings, steps, chosen }
}

fn places(step: &[StepRow]) -> Vec<(usize, usize, bool)> {
    step.iter().map(|row| (row.slot, row.position, row.logits)).collect()
}

#[test]
fn delays_become_times_and_warm_ups_do_not_count() {
    let workload = Workload { generate: 3, ..WORKLOAD };
    // One warm-up of one token, then two runs of three.
    let told = run(workload, (1, 2), &[60, 5, 10, 20, 1], None, 0.0);
    let timings = told.timings.unwrap();
    assert_eq!(told.steps.len(), 1 + 2 * 3);
    let least = [[5, 10, 20], [1, 1, 1]];
    for (timing, least) in timings.iter().zip(least) {
        let steps: Vec<_> = least.map(Duration::from_millis).into();
        assert!(timing.steps.iter().zip(&steps).all(|(step, least)| step >= least));
        assert!(timing.total >= steps.iter().sum::<Duration>() && timing.first_tokens.is_empty());
    }
    // A sleep may be long but not by an order: the warm-up's 60 ms are not in there.
    assert!(timings[1].total < Duration::from_millis(50), "{timings:?}");
    assert_eq!(told.chosen, []);
    let positions: Vec<_> = told.steps.iter().map(|step| places(step)[0].1).collect();
    assert_eq!(positions, [0, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn prompts_go_in_full_steps_and_only_last_tokens_ask() {
    let workload = Workload { slots: 2, depth: 3, prompt: 3, ..WORKLOAD };
    let told = run(workload, (0, 1), &[0], None, 0.0);
    assert_eq!(told.timings.unwrap().len(), 1);
    let steps: Vec<_> = told.steps.iter().map(|step| places(step)).collect();
    let rows = |rows: &[(usize, usize, bool)]| rows.to_vec();
    assert_eq!(
        steps,
        [
            rows(&[(0, 0, false), (0, 1, false), (0, 2, false), (1, 0, false)]),
            rows(&[(1, 1, false), (1, 2, false)]),
            rows(&[(0, 3, false), (0, 4, false), (0, 5, true), (1, 3, false)]),
            rows(&[(1, 4, false), (1, 5, true)]),
        ]
    );
    let all = run(Workload { logits: Logits::All, ..workload }, (0, 1), &[0], None, 0.0);
    assert!(all.steps[2..].iter().flatten().all(|row| row.logits));
}

#[test]
fn a_greedy_answer_takes_its_first_token_from_the_prompt() {
    let workload = Workload { slots: 2, prompt: 3, generate: 3, next: Next::Greedy, ..WORKLOAD };
    let told = run(workload, (0, 1), &[4, 8, 1], None, 0.0);
    let timing = told.timings.unwrap().remove(0);
    // Slot 0 ends in the first step, slot 1 in the second; then two steps of both.
    assert_eq!(told.chosen, [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1)]);
    assert_eq!(timing.steps.len(), 2);
    let [first, second] = timing.first_tokens[..] else { panic!("{timing:?}") };
    assert!(first >= Duration::from_millis(4) && second >= first + Duration::from_millis(8));
    // The chosen token is what goes in next.
    assert_eq!(places(&told.steps[2]), [(0, 3, true), (1, 3, true)]);
    assert!(told.steps[2].iter().all(|row| row.token == 7));
}

#[test]
fn an_answer_without_a_prompt_starts_alike_in_every_run() {
    let workload = Workload { depth: 3, generate: 3, next: Next::Greedy, ..WORKLOAD };
    let told = run(workload, (0, 2), &[0], None, 0.0);
    assert_eq!(told.timings.unwrap()[1].steps.len(), 3);
    let tokens: Vec<_> = told.steps[1..].iter().map(|step| step[0].token).collect();
    assert_eq!(tokens[..3], tokens[3..]);
    assert_eq!((tokens[1], tokens[2]), (7, 7));
    assert_eq!(told.chosen.len(), 2 * 3);
}

#[test]
fn cancelling_keeps_whole_runs_only() {
    let workload = Workload { generate: 3, ..WORKLOAD };
    let told = run(workload, (1, 5), &[0], Some(1 + 3 + 2), 0.0);
    assert_eq!(told.timings.unwrap().len(), 1);
    let early = run(workload, (1, 5), &[0], Some(1), 0.0);
    assert_eq!(early.timings.unwrap().len(), 0);
}

#[test]
fn a_model_that_computes_nonsense_is_not_measured() {
    let told = run(Workload { generate: 1, ..WORKLOAD }, (0, 1), &[0], None, f32::NAN);
    assert!(matches!(told.timings, Err(DeviceError::NotFinite { .. })));
}
