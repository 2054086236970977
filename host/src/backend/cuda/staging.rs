//! [`Staging`]: weights on their way to the device, through two pinned buffers that are filled and
//! copied in turn.

#![allow(unsafe_code, reason = "copies that are still under way when the call returns")]

use super::driver::{Context, CudaError, DeviceBuffer, Event, PinnedBuffer, PinnedUse, Stream};

/// Bytes of a pinned buffer: long enough for the bus's full speed, short enough to be pinned at
/// once.
const BYTES: usize = 8 << 20;

/// Two pinned buffers and the stream that empties them.
#[derive(Debug)]
pub(super) struct Staging {
    stream: Stream,
    halves: [(PinnedBuffer<u8>, Event); 2],
    turn: usize,
}

impl Staging {
    pub(super) fn new(context: &Context) -> Result<Self, CudaError> {
        let half = || {
            let buffer = PinnedBuffer::zeroed(context, "pinned memory", BYTES, PinnedUse::Both)?;
            Ok::<_, CudaError>((buffer, Event::new(context)?))
        };
        let stream = Stream::new(context)?;
        let halves = [half()?, half()?];
        for (_, event) in &halves {
            event.record(&stream)?;
        }
        Ok(Self { stream, halves, turn: 0 })
    }

    /// Fills `bytes` bytes of `target` from `at` on, in pieces of whole `unit`s: `fill(first, out)`
    /// writes the piece that starts at byte `first`.
    ///
    /// # Panics
    ///
    /// When a unit is longer than a pinned buffer.
    pub(super) fn fill(
        &mut self,
        target: &mut DeviceBuffer<u8>,
        bytes: usize,
        unit: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), CudaError> {
        assert!(unit > 0 && unit <= BYTES, "a unit of {unit} bytes");
        let piece = BYTES / unit * unit;
        for first in (0..bytes).step_by(piece) {
            let count = piece.min(bytes - first);
            let (buffer, event) = &mut self.halves[self.turn];
            event.synchronize()?;
            let part = &mut buffer[..count];
            fill(first, part);
            // SAFETY: the pinned bytes are kept, and not written again before the event behind the
            // copy has happened; the target belongs to the caller, who reads it after `finish`.
            unsafe { target.write_queued(first, part, &self.stream) }?;
            event.record(&self.stream)?;
            self.turn ^= 1;
        }
        Ok(())
    }

    /// Copies `stored` to `target`.
    pub(super) fn copy(
        &mut self,
        stored: &[u8],
        target: &mut DeviceBuffer<u8>,
    ) -> Result<(), CudaError> {
        self.fill(target, stored.len(), 1, |first, out| {
            let part = &stored[first..first + out.len()];
            let pieces = out.par_chunks_mut(PIECE).zip(part.par_chunks(PIECE));
            pieces.for_each(|(out, stored)| out.copy_from_slice(stored));
        })
    }

    /// Waits until everything is on the device.
    pub(super) fn finish(&self) -> Result<(), CudaError> {
        self.stream.synchronize()
    }
}
