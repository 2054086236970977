//! [`Choose`]: from logits to tokens on the device.

#![allow(unsafe_code, reason = "launches a kernel")]

use tercet_kernels_ptx::contract::{ChooseArgs, DevicePtr, DevicePtrMut};

use super::driver::{Launch, Stream};
use super::launches::count;
use super::modules::{Loaded, Modules};
use super::state::{NONE, State};
use crate::backend::{DeviceError, TokenId};
use crate::sampler::{Sampler, Sampling};

/// The kernel that does what [`Sampler::choose`] says.
#[derive(Debug)]
pub(super) struct Choose {
    kernel: Loaded<ChooseArgs>,
}

impl Choose {
    pub(super) fn new(modules: &Modules) -> Result<Self, DeviceError> {
        Ok(Self { kernel: modules.need("choose")? })
    }

    /// The likeliest token of every row that asked.
    pub(super) fn likeliest(
        &self,
        state: &mut State,
        asked: usize,
        vocab: usize,
        stream: &Stream,
    ) -> Result<Vec<TokenId>, DeviceError> {
        let args = ChooseArgs {
            chosen: state.chosen.ptr_mut(0),
            faults: state.chosen.ptr_mut(state.asking_max),
            ..choice(Sampling::GREEDY, vocab, state)
        };
        self.run(&args, 0, asked, state, stream)
    }

    /// The token that `sampler` takes from row `asked`: as [`Sampler::choose`] does, by the same
    /// random number.
    pub(super) fn sample(
        &self,
        state: &mut State,
        asked: usize,
        vocab: usize,
        sampler: &mut Sampler,
        stream: &Stream,
    ) -> Result<TokenId, DeviceError> {
        let uniform = state.list().uniform;
        if sampler.sampling().temperature != 0.0 {
            state.rows.write(uniform, &words(sampler.draw()))?;
        }
        let penalised = sampler.sampling().repetition_penalty != 1.0;
        if penalised {
            let mut seen = vec![0_u32; vocab.div_ceil(32)];
            for &token in sampler.seen().iter().filter(|&&token| (token as usize) < vocab) {
                seen[token as usize / 32] |= 1 << (token % 32);
            }
            state.seen.write(0, &seen)?;
        }
        let args = ChooseArgs {
            logits: state.logits.ptr(asked * vocab),
            seen: if penalised { state.seen.ptr_mut(0) } else { DevicePtrMut::null() },
            chosen: state.chosen.ptr_mut(0),
            faults: state.chosen.ptr_mut(state.asking_max),
            ..choice(sampler.sampling(), vocab, state)
        };
        let chosen = self.run(&args, asked, 1, state, stream)?;
        Ok(chosen[0])
    }

    /// Queues the choice from the only row of logits, for a step whose list (see
    /// [`super::state::Rows`]) is on the device except for its token: it is written there.
    pub(super) fn ahead(
        &self,
        state: &mut State,
        vocab: usize,
        sampling: Sampling,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let places = state.list();
        let args = ChooseArgs {
            chosen: state.rows.ptr_mut(places.tokens),
            faults: state.rows.ptr_mut(places.fault),
            ..choice(sampling, vocab, state)
        };
        let grid = self.kernel.prepare(Launch::grid(1, 1, 1));
        // SAFETY: as [`super::launches`] says; the list has room for a token and a fault.
        unsafe { self.kernel.function.launch(grid, stream, &args) }?;
        // SAFETY: the pinned words are kept, and read by who waits for an event behind this.
        unsafe { state.rows.read_queued(places.fault, &mut state.ahead_host, stream) }?;
        Ok(())
    }

    /// Runs `choose` on `rows` rows of logits, the first of which is `first`.
    fn run(
        &self,
        args: &ChooseArgs,
        first: usize,
        rows: usize,
        state: &mut State,
        stream: &Stream,
    ) -> Result<Vec<TokenId>, DeviceError> {
        let grid = self.kernel.prepare(Launch::grid(count(rows), 1, 1));
        // SAFETY: as [`super::launches`] says: buffers have room for the step's rows.
        unsafe { self.kernel.function.launch(grid, stream, args) }?;
        // SAFETY: the pinned list is kept, and read after the stream is done.
        unsafe { state.chosen.read_queued(0, &mut state.chosen_host, stream) }?;
        stream.synchronize()?;
        let (chosen, faults) = state.chosen_host.split_at(state.asking_max);
        if let Some(row) = faults[..rows].iter().position(|&fault| fault != NONE) {
            let token = faults[row] as usize;
            let mut got = [0.0];
            state.logits.read((first + row) * args.vocab as usize + token, &mut got)?;
            return Err(DeviceError::NotFinite { got: got[0], token });
        }
        Ok(chosen[..rows].to_vec())
    }
}

/// How `sampling` chooses from the first row of logits, without a penalty; where to is left open.
fn choice(sampling: Sampling, vocab: usize, state: &mut State) -> ChooseArgs {
    let Sampling { repetition_penalty, temperature, top_k, top_p, min_p } = sampling;
    ChooseArgs {
        logits: state.logits.ptr(0),
        seen: DevicePtrMut::null(),
        uniforms: DevicePtr::new(state.rows.address(state.list().uniform)),
        weights: state.weights.ptr_mut(0),
        chosen: DevicePtrMut::null(),
        faults: DevicePtrMut::null(),
        vocab: count(vocab),
        top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
        temperature,
        repetition_penalty,
        top_p,
        min_p,
    }
}

/// A number of 64 bits as the device reads it.
pub(super) fn words(x: f64) -> [u32; 2] {
    bytemuck::cast(x)
}
