//! [`Choose`]: from logits to tokens on the device.

#![allow(unsafe_code, reason = "launches a kernel")]

use tercet_kernels_ptx::contract::{ChooseArgs, DevicePtrMut};

use super::driver::{Launch, Stream};
use super::launches::count;
use super::modules::{Loaded, Modules};
use super::state::{NONE, State};
use crate::backend::{DeviceError, TokenId};
use crate::sampler::{Sampler, Sampling};

/// Looks at what the device tells between two questions whether it failed.
const LOOKS: u32 = 1 << 12;

/// The kernel that does what [`Sampler::choose`] says.
#[derive(Debug)]
pub(super) struct Choose {
    kernel: Loaded<ChooseArgs>,
}

impl Choose {
    pub(super) fn new(modules: &Modules) -> Result<Self, DeviceError> {
        Ok(Self { kernel: modules.need("choose")? })
    }

    /// How `rows` rows are looked at: by several blocks each, where blocks can work together.
    fn grid(&self, rows: usize) -> Launch {
        let parts = if self.kernel.target.begins_early() { ChooseArgs::PARTS_MAX } else { 1 };
        self.kernel.prepare(Launch::grid(count(rows) * parts, 1, 1).cluster(parts))
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
        let uniform = draw(sampler);
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
            uniform,
            seen: if penalised { state.seen.ptr_mut(0) } else { DevicePtrMut::null() },
            chosen: state.chosen.ptr_mut(0),
            faults: state.chosen.ptr_mut(state.asking_max),
            ..choice(sampler.sampling(), vocab, state)
        };
        let chosen = self.run(&args, asked, 1, state, stream)?;
        Ok(chosen[0])
    }

    /// Queues the choice from the only row of logits for a step at `position`, whose list (see
    /// [`super::state::Rows`]) is on the device except for these two: they are written there.
    /// [`Self::told`] waits for the token.
    pub(super) fn ahead(
        &self,
        state: &mut State,
        vocab: usize,
        sampler: &mut Sampler,
        position: usize,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let places = state.list();
        state.told_serial = state.told_serial.wrapping_add(1);
        let args = ChooseArgs {
            uniform: draw(sampler),
            chosen: state.rows.ptr_mut(places.tokens),
            faults: state.chosen.ptr_mut(state.asking_max),
            told: DevicePtrMut::new(state.told.device_address(0)?),
            position: state.rows.ptr_mut(places.positions),
            serial: state.told_serial,
            next: count(position),
            ..choice(sampler.sampling(), vocab, state)
        };
        // SAFETY: as [`super::launches`] says; the list has room for a token and a position, and
        // `told` for what the host is told. All are freed behind what is queued: freeing device
        // memory waits for that.
        unsafe { self.kernel.function.launch(self.grid(1), stream, &args) }?;
        Ok(())
    }

    /// Waits until the token that was chosen ahead is told. The error is the place of the first
    /// logit that is not finite.
    pub(super) fn told(
        &self,
        state: &State,
        stream: &Stream,
    ) -> Result<Result<TokenId, TokenId>, DeviceError> {
        let (mut looks, mut is_done) = (0_u32, false);
        loop {
            let [what, serial]: [u32; 2] = bytemuck::cast(state.told.observe(0));
            if serial == state.told_serial {
                return Ok(what.checked_sub(ChooseArgs::FAULT).map_or(Ok(what), Err));
            }
            assert!(!is_done, "a kernel that has ended has told");
            looks = looks.wrapping_add(1);
            // A kernel that failed tells nothing; the stream knows.
            is_done = looks.is_multiple_of(LOOKS) && stream.is_done()?;
            // Others may have the core meanwhile.
            std::thread::yield_now();
        }
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
        let grid = self.grid(rows);
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
        uniform: 0.0,
        weights: state.weights.ptr_mut(0),
        chosen: DevicePtrMut::null(),
        faults: DevicePtrMut::null(),
        told: DevicePtrMut::null(),
        position: DevicePtrMut::null(),
        serial: 0,
        next: 0,
        vocab: count(vocab),
        top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
        temperature,
        repetition_penalty,
        top_p,
        min_p,
    }
}

/// The random number of the next choice, where it needs one.
fn draw(sampler: &mut Sampler) -> f64 {
    if sampler.sampling().temperature == 0.0 { 0.0 } else { sampler.draw() }
}
