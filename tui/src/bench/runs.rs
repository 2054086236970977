//! The loop: fill, warm up, run.

use tercet_host::backend::{DeviceError, Ops};
use tercet_host::forward::{Cancel, Pass};
use tercet_host::measure::{Stepper, Timing, Workload};

/// How often a test is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// Runs that are not counted.
    pub warmup: u32,
    /// Runs that are.
    pub runs: u32,
}

/// Runs a workload; `progress` hears runs done, warm-ups included. Fewer timings than runs were
/// asked for mean that it was cancelled.
///
/// # Errors
///
/// Those of the device, and [`DeviceError::NotFinite`] for a model that computes nonsense.
pub fn measure<O: Ops>(
    stepper: &mut Stepper<O>,
    workload: &Workload,
    repeat: Repeat,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u32),
) -> Result<Vec<Timing>, DeviceError> {
    let mut timings = Vec::new();
    if stepper.fill(workload, cancel)? == Pass::Cancelled {
        return Ok(timings);
    }
    // All weights and buffers are touched by the prompt and one token.
    let short = Workload { generate: workload.generate.min(1), ..*workload };
    for done in 0..repeat.warmup {
        progress(done);
        if stepper.run(&short, cancel)?.is_none() {
            return Ok(timings);
        }
    }
    for done in 0..repeat.runs {
        progress(repeat.warmup + done);
        match stepper.run(workload, cancel)? {
            Some(timing) => timings.push(timing),
            None => return Ok(timings),
        }
    }
    progress(repeat.warmup + repeat.runs);
    stepper.check_logits()?;
    Ok(timings)
}
