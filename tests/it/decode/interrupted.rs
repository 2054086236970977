//! A device that is interrupted, or fails, in the middle of a forward pass.

use core::cell::Cell;

use tercet_host::backend::{Buffer, DeviceError, Ops, Row, TokenId};
use tercet_host::forward::Cancel;
use tercet_host::sampler::Sampler;

/// What happens in the middle of a pass.
#[derive(Clone, Copy)]
pub(super) enum Fault<'a> {
    /// Somebody asks the pass to stop.
    Cancel(&'a Cancel),
    /// The device fails.
    Error,
}

/// Runs on `ops`, with one fault when `countdown` attentions have begun. Zero: no fault.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) countdown: &'a Cell<usize>,
    pub(super) fault: Fault<'a>,
}

pub(super) struct Interrupted<'a, O> {
    pub(super) ops: O,
    pub(super) plan: Plan<'a>,
}

impl<O: Ops> Ops for Interrupted<'_, O> {
    fn attend(&mut self, layer: usize) -> Result<(), DeviceError> {
        let countdown = self.plan.countdown.get();
        self.plan.countdown.set(countdown.saturating_sub(1));
        if countdown == 1 {
            match self.plan.fault {
                Fault::Cancel(cancel) => cancel.request(),
                Fault::Error => {
                    return Err(DeviceError::OutOfMemory { what: "a test", needed: 1 });
                }
            }
        }
        self.ops.attend(layer)
    }

    fn embed(&mut self, rows: &[Row]) -> Result<(), DeviceError> {
        self.ops.embed(rows)
    }

    fn qkv(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.ops.qkv(layer)
    }

    fn attention_out(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.ops.attention_out(layer)
    }

    fn gate_up(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.ops.gate_up(layer)
    }

    fn down(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.ops.down(layer)
    }

    fn logits(&mut self) -> Result<(), DeviceError> {
        self.ops.logits()
    }

    fn choose(&mut self, asked: usize, sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        self.ops.choose(asked, sampler)
    }

    fn read(&mut self, buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        self.ops.read(buffer)
    }

    fn write(&mut self, buffer: Buffer, values: &[f32]) -> Result<(), DeviceError> {
        self.ops.write(buffer, values)
    }
}
