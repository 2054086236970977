//! [`Watched`]: operations of a device, with a note of what each launches.

use super::Rig;
use crate::backend::{Buffer, DeviceError, Ops, Quantized, Row, TokenId};
use crate::sampler::Sampler;

/// Before each operation, what was launched is noted: what comes after is the operation's.
#[derive(Debug)]
pub(super) struct Watched<'r, O> {
    pub(super) rig: &'r Rig,
    pub(super) ops: O,
}

impl<O> Watched<'_, O> {
    fn begin(&mut self) -> &mut O {
        self.rig.note();
        &mut self.ops
    }
}

impl<O: Ops> Ops for Watched<'_, O> {
    fn embed(&mut self, rows: &[Row]) -> Result<(), DeviceError> {
        self.begin().embed(rows)
    }

    fn qkv(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.begin().qkv(layer)
    }

    fn attend(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.begin().attend(layer)
    }

    fn attention_out(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.begin().attention_out(layer)
    }

    fn gate_up(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.begin().gate_up(layer)
    }

    fn down(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.begin().down(layer)
    }

    fn logits(&mut self) -> Result<(), DeviceError> {
        self.begin().logits()
    }

    fn choose(&mut self, asked: usize, sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        self.begin().choose(asked, sampler)
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        self.ops.finish()
    }

    fn quantized(&mut self) -> Result<Option<Quantized>, DeviceError> {
        self.ops.quantized()
    }

    fn read(&mut self, buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        self.ops.read(buffer)
    }

    fn write(&mut self, buffer: Buffer, values: &[f32]) -> Result<(), DeviceError> {
        self.ops.write(buffer, values)
    }
}
