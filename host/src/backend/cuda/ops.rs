//! [`CudaOps`]: the operations of a session on the device.

#![allow(unsafe_code, reason = "copies and recordings that are under way when a call returns")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::CudaBackend;
use super::attention;
use super::driver::{Event, GraphExec, Overrun, PAINT, Stream};
use super::launches::{Launches, Step};
use super::layers::Layers;
use super::state::{BUCKET_MAX, NONE, State, bucket};
use super::weights::CudaWeights;
use crate::backend::{Buffer, DeviceError, Limits, Ops, OpsBytes, Quantized, Row, TokenId};
use crate::forward::{Cancel, forward};
use crate::sampler::Sampler;

/// How the operations of a step reach the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Each by itself, when it is called.
    Direct,
    /// As `Direct`, but into a recording: which rows they are does not matter.
    Recording,
    /// As `Recording`, but all layers at once, with the first operation of the first.
    RecordingLayers,
    /// All at once, with the last of them: a recording for so many rows.
    Recorded(usize),
    /// Already, when the token was chosen.
    Ahead,
}

/// Buffers of one session on a GPU, and what runs on them.
///
/// A step of one row per sequence is recorded the first time that a batch of its size comes, and
/// from then on costs one call of the driver; the operations before [`Ops::logits`] then do
/// nothing. Where one kernel does all layers of a step of one row, what is between them does not
/// get to the buffers: only [`Buffer::Hidden`] and [`Buffer::Logits`] are then the step's.
#[derive(Debug)]
pub struct CudaOps<'w> {
    weights: &'w CudaWeights,
    launches: Launches,
    /// What does the layers of a recorded step of one row, where there is a kernel for it.
    layers: Option<Layers>,
    state: State,
    stream: Arc<Stream>,
    /// Behind the copy of the step's rows: from then on the host may write the next ones.
    listed: Event,
    limits: Limits,
    /// Whether every operation runs when it is called.
    direct: bool,
    plan: Plan,
    rows: Vec<Row>,
    /// Tiles of attention that its rows make.
    tiles: u32,
    /// Rows of the step that ask for logits.
    asked: usize,
    recordings: BTreeMap<usize, GraphExec>,
    /// The likeliest token of each row that asked, if it was looked for since.
    likeliest: Option<Vec<TokenId>>,
    /// The step that is under way before it was asked for.
    ahead: Option<Row>,
    /// The slot of the list on the device, where that is of one row that asks for logits.
    alone: Option<usize>,
}

impl<'w> CudaOps<'w> {
    pub(super) fn new(
        backend: &CudaBackend,
        weights: &'w CudaWeights,
        limits: Limits,
    ) -> Result<Self, DeviceError> {
        let context = &backend.context;
        let stream = Arc::new(Stream::new(context)?);
        let listed = Event::new(context)?;
        listed.record(&stream)?;
        // Its attention is not that of a prompt's rows, and it leaves nothing to look at between
        // operations.
        let layers = if backend.deterministic || backend.direct {
            None
        } else {
            Layers::new(context, weights, &limits)?
        };
        let rooms_words = layers.as_ref().map_or(0, Layers::rooms_words);
        let state = State::new(context, weights, &limits, rooms_words)?;
        let launches = Launches::new(context, weights, &limits, backend.deterministic)?;
        let mut ops = Self {
            weights,
            launches,
            layers,
            state,
            stream,
            listed,
            limits,
            direct: backend.direct,
            plan: Plan::Direct,
            rows: Vec::with_capacity(limits.rows_max),
            tiles: 0,
            asked: 0,
            recordings: BTreeMap::new(),
            likeliest: None,
            ahead: None,
            alone: None,
        };
        ops.record_all()?;
        Ok(ops)
    }

    /// Records a step of every size that may come, so that none waits for it later.
    fn record_all(&mut self) -> Result<(), DeviceError> {
        if self.direct {
            return Ok(());
        }
        let most = self.limits.slots.min(self.limits.rows_max).min(self.limits.logits_max);
        let mut rows = 1;
        while rows <= bucket(most).min(BUCKET_MAX) {
            self.record(rows)?;
            rows *= 2;
        }
        Ok(())
    }

    /// Records a step of `rows` rows, one per sequence, all of which ask for logits.
    fn record(&mut self, rows: usize) -> Result<(), DeviceError> {
        let stream = Arc::clone(&self.stream);
        let count = self.weights.config.layers;
        // Which rows they are stands in device memory, so that the recording serves all.
        let row = |slot| Row { slot, position: 0, token: 0, logits: true };
        let step: Vec<_> = (0..rows).map(row).collect();
        let at_once = rows == 1 && self.layers.is_some();
        self.plan = if at_once { Plan::RecordingLayers } else { Plan::Recording };
        let graph = stream.capture(|| forward(self, count, &step, &Cancel::default()).map(|_| ()));
        self.plan = Plan::Direct;
        let recording = graph?.instantiate()?;
        recording.upload(&self.stream)?;
        self.recordings.insert(rows, recording);
        Ok(())
    }

    /// Brings the step's rows to the device, padded to `padded` of them.
    fn list(&mut self, padded: usize, padded_asking: usize) -> Result<(), DeviceError> {
        self.alone = None;
        // The copy of the step before has to be over.
        self.listed.synchronize()?;
        let places = self.state.list();
        let list = &mut self.state.rows_host;
        let number = |n: usize| u32::try_from(n).expect("rows, slots and positions are below 2^24");
        for index in 0..padded {
            let row = self.rows.get(index);
            list[places.tokens + index] = row.map_or(0, |row| row.token);
            list[places.positions + index] = row.map_or(NONE, |row| number(row.position));
            list[places.slots + index] = row.map_or(0, |row| number(row.slot));
        }
        let asking = self.rows.iter().enumerate().filter(|(_, row)| row.logits);
        let mut asking = asking.map(|(index, _)| number(index));
        for place in &mut list[places.asking..places.asking + padded_asking] {
            *place = asking.next().unwrap_or(NONE);
        }
        let tiles = &mut list[places.tiles..places.tiles + 2 * padded];
        self.tiles = attention::tile(&self.rows, self.launches.tile_rows(), tiles);
        // SAFETY: the pinned list is kept, and not written before `listed` has happened.
        unsafe { self.state.rows.write_queued(0, list, &self.stream) }?;
        self.listed.record(&self.stream)?;
        if let [Row { slot, logits: true, .. }] = self.rows[..] {
            self.alone = Some(slot);
        }
        Ok(())
    }

    /// Queues the recording of a step of `rows` rows, whose list has been sent.
    fn launch(&self, rows: usize) -> Result<(), DeviceError> {
        let recording = self.recordings.get(&rows).expect("looked for before the list was written");
        // SAFETY: it was recorded on this session's buffers and weights, which live as long as it;
        // only this stream works on them.
        unsafe { recording.launch(&self.stream) }?;
        Ok(())
    }

    /// Whether the step has one row for each of its sequences.
    pub(super) fn is_batch(rows: &[Row]) -> bool {
        rows.len() <= BUCKET_MAX
            && rows
                .iter()
                .enumerate()
                .all(|(index, row)| rows[..index].iter().all(|before| before.slot != row.slot))
    }

    /// Whether the operations of a layer do something by themselves: no recording does the step,
    /// nor one kernel all layers.
    fn does_layers(&self) -> bool {
        match self.plan {
            Plan::Direct | Plan::Recording => true,
            Plan::RecordingLayers | Plan::Recorded(_) | Plan::Ahead => false,
        }
    }

    fn check(&self, rows: &[Row]) {
        assert!((1..=self.limits.rows_max).contains(&rows.len()), "{} rows", rows.len());
        assert!(self.asked <= self.limits.logits_max, "{} rows ask for logits", self.asked);
        for row in rows {
            assert!(row.slot < self.limits.slots, "slot {}", row.slot);
            assert!(row.position < self.limits.positions_max, "position {}", row.position);
            assert!((row.token as usize) < self.weights.config.vocab, "token {}", row.token);
        }
    }

    /// Paints the buffers that can be looked at: a number that the next step leaves out, or one
    /// that it should not have written, is seen then.
    pub(super) fn paint(&mut self) -> Result<(), DeviceError> {
        for buffer in Buffer::ALL {
            let memory = self.state.buffer(buffer);
            memory.write(0, &vec![f32::from_bits(PAINT); memory.len()])?;
        }
        Ok(())
    }

    /// The first number behind the step's rows that has been written since [`CudaOps::paint`].
    pub(super) fn overrun(&mut self) -> Result<Option<Overrun>, DeviceError> {
        self.stream.synchronize()?;
        for buffer in Buffer::ALL {
            let (width, rows) = self.shape(buffer);
            let (used, memory) = (rows * width, self.state.buffer(buffer));
            let mut rest = vec![0.0_f32; memory.len() - used];
            memory.read(used, &mut rest)?;
            if let Some(at) = rest.iter().position(|number| number.to_bits() != PAINT) {
                let (bytes, at) = (4 * used, i64::try_from(4 * (used + at)).unwrap_or(i64::MAX));
                return Ok(Some(Overrun { what: buffer.name(), bytes, at }));
            }
        }
        Ok(None)
    }

    /// Elements of a row of a buffer, and how many rows the step has of it.
    fn shape(&self, buffer: Buffer) -> (usize, usize) {
        let config = &self.weights.config;
        let rows = self.rows.len();
        match buffer {
            Buffer::Hidden => (config.hidden, rows),
            Buffer::Qkv => (config.query_width() + 2 * config.kv_width(), rows),
            Buffer::Mixed => (config.query_width(), rows),
            Buffer::Gated => (config.ffn, rows),
            Buffer::Logits => (config.vocab, self.asked),
        }
    }
}

impl Ops for CudaOps<'_> {
    fn embed(&mut self, rows: &[Row]) -> Result<(), DeviceError> {
        self.rows.clear();
        self.rows.extend_from_slice(rows);
        self.asked = rows.iter().filter(|row| row.logits).count();
        self.likeliest = None;
        let ahead = self.ahead.take();
        let batch = Self::is_batch(rows);
        if !matches!(self.plan, Plan::Recording | Plan::RecordingLayers) {
            self.check(rows);
            if ahead.is_some_and(|ahead| rows == [ahead]) {
                self.plan = Plan::Ahead;
                return Ok(());
            }
            let size = bucket(rows.len());
            let recorded = batch && self.asked == rows.len() && self.recordings.contains_key(&size);
            if recorded {
                self.plan = Plan::Recorded(size);
                return self.list(size, size);
            }
            self.plan = Plan::Direct;
            self.list(rows.len(), self.asked)?;
        }
        let number = |n: usize| u32::try_from(n).expect("rows are below 2^24");
        let (rows, asked) = (number(rows.len()), number(self.asked));
        // A batch has a tile of one row for each of its rows.
        let tiles = if batch { rows } else { self.tiles };
        self.launches.begin(Step { batch, rows, asked, tiles });
        self.launches.embed(self.weights, &mut self.state, &self.stream)
    }

    fn qkv(&mut self, layer: usize) -> Result<(), DeviceError> {
        if let (Plan::RecordingLayers, 0, Some(layers)) = (self.plan, layer, &self.layers) {
            return Ok(layers.run(self.weights, &mut self.state, &self.stream)?);
        }
        if !self.does_layers() {
            return Ok(());
        }
        self.launches.qkv(self.weights, layer, &mut self.state, &self.stream)
    }

    fn attend(&mut self, layer: usize) -> Result<(), DeviceError> {
        if !self.does_layers() {
            return Ok(());
        }
        self.launches.attend(self.weights, layer, &mut self.state, &self.stream)
    }

    fn attention_out(&mut self, layer: usize) -> Result<(), DeviceError> {
        if !self.does_layers() {
            return Ok(());
        }
        self.launches.attention_out(self.weights, layer, &mut self.state, &self.stream)
    }

    fn gate_up(&mut self, layer: usize) -> Result<(), DeviceError> {
        if !self.does_layers() {
            return Ok(());
        }
        self.launches.gate_up(self.weights, layer, &mut self.state, &self.stream)
    }

    fn down(&mut self, layer: usize) -> Result<(), DeviceError> {
        if !self.does_layers() {
            return Ok(());
        }
        self.launches.down(self.weights, layer, &mut self.state, &self.stream)
    }

    fn logits(&mut self) -> Result<(), DeviceError> {
        match self.plan {
            Plan::Ahead => Ok(()),
            Plan::Recorded(size) => self.launch(size),
            Plan::Direct | Plan::Recording | Plan::RecordingLayers => {
                self.launches.logits(self.weights, &mut self.state, &self.stream)
            }
        }
    }

    fn choose(&mut self, asked: usize, sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        assert!(asked < self.asked, "row {asked} of {} that ask", self.asked);
        let vocab = self.weights.config.vocab;
        if !sampler.is_greedy() {
            let (launches, state, stream) = (&self.launches, &mut self.state, &self.stream);
            return launches.choose.sample(state, asked, vocab, sampler, stream);
        }
        if self.likeliest.is_none() {
            let (launches, state, stream) = (&self.launches, &mut self.state, &self.stream);
            self.likeliest = Some(launches.choose.likeliest(state, self.asked, vocab, stream)?);
        }
        let chosen = self.likeliest.as_ref().expect("just looked for");
        Ok(chosen[asked])
    }

    fn choose_ahead(
        &mut self,
        sampler: &mut Sampler,
        slot: usize,
        position: usize,
    ) -> Result<TokenId, DeviceError> {
        let &[row @ Row { logits: true, .. }] = &self.rows[..] else {
            return self.choose(0, sampler);
        };
        // The tokens of a penalty have to be written first, which waits for the step.
        let penalised = sampler.sampling().repetition_penalty != 1.0;
        if penalised || !self.recordings.contains_key(&1) {
            return self.choose(0, sampler);
        }
        let next = Row { slot, position, ..row };
        self.rows[0] = next;
        self.check(&[next]);
        if self.alone != Some(slot) {
            self.list(1, 1)?;
        }
        let vocab = self.weights.config.vocab;
        self.launches.choose.ahead(&mut self.state, vocab, sampler, position, &self.stream)?;
        self.launch(1)?;
        self.likeliest = None;
        match self.launches.choose.told(&self.state, &self.stream)? {
            Ok(token) => {
                self.ahead = Some(Row { token, ..next });
                Ok(token)
            }
            Err(fault) => {
                // The step again, since its logits are being written over.
                self.rows[0] = row;
                self.list(1, 1)?;
                self.launch(1)?;
                let (mut got, token) = ([0.0], fault as usize);
                self.state.logits.read(token, &mut got)?;
                Err(DeviceError::NotFinite { got: got[0], token })
            }
        }
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        Ok(self.stream.synchronize()?)
    }

    fn bytes(&self) -> OpsBytes {
        let layers = self.layers.as_ref().map_or(0, Layers::bytes);
        OpsBytes { cache: self.state.cache_bytes(), work: self.state.work_bytes() + layers }
    }

    fn quantized(&mut self) -> Result<Option<Quantized>, DeviceError> {
        self.stream.synchronize()?;
        Ok(self.state.quantized()?)
    }

    fn read(&mut self, buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        self.stream.synchronize()?;
        let (width, rows) = self.shape(buffer);
        let mut values = vec![0.0; rows * width];
        self.state.buffer(buffer).read(0, &mut values)?;
        Ok(values)
    }

    fn write(&mut self, buffer: Buffer, values: &[f32]) -> Result<(), DeviceError> {
        self.stream.synchronize()?;
        // What was chosen was chosen from other logits.
        self.likeliest = None;
        let (width, rows) = self.shape(buffer);
        assert_eq!(values.len(), rows * width, "{buffer:?} has {rows} rows of {width}");
        Ok(self.state.buffer(buffer).write(0, values)?)
    }
}
