//! [`Stream`]: work in order. [`Event`]: a mark in it.

#![allow(unsafe_code, reason = "calls what cust does not have")]

use core::ptr::null_mut;
use core::time::Duration;

use cust::stream::{Stream as CustStream, StreamFlags};

use super::codes::Code;
use super::device::Context;
use super::error::{CudaError, checked, done};
use super::graph::Graph;
use super::shim::{self, Ptr};

/// A queue of work that the device does in order, while the host goes on.
///
/// It is ordered with the copies of [`DeviceBuffer`](super::DeviceBuffer) that take no stream:
/// those wait for everything queued before them, and what is queued later waits for them.
#[derive(Debug)]
pub struct Stream {
    // Before `context`, so that it goes first.
    inner: CustStream,
    context: Context,
}

impl Stream {
    /// A stream of its own.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn new(context: &Context) -> Result<Self, CudaError> {
        context.enter()?;
        let inner = checked(|| CustStream::new(StreamFlags::DEFAULT, None))?;
        Ok(Self { inner, context: context.clone() })
    }

    /// Its context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn raw(&self) -> Ptr {
        self.inner.as_inner().cast()
    }

    /// Waits until everything queued is done. An error of a kernel shows here at the latest.
    ///
    /// # Errors
    ///
    /// What went wrong in the queued work.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.enter()?;
        checked(|| self.inner.synchronize())
    }

    /// Whether everything queued is done. Does not wait.
    ///
    /// # Errors
    ///
    /// What went wrong in the queued work.
    pub fn is_done(&self) -> Result<bool, CudaError> {
        self.context.enter()?;
        // SAFETY: the stream lives as long as `self`, and its context is current.
        ready(done(unsafe { shim::cuStreamQuery(self.raw()) }))
    }

    /// What is queued from here on waits for `event`, which may belong to another stream.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: stream and event live as long as their borrows; no flags are defined.
        done(unsafe { shim::cuStreamWaitEvent(self.raw(), event.raw, 0) })
    }

    /// Records what `work` queues on this stream instead of doing it.
    ///
    /// Meanwhile this thread may neither allocate nor wait; other threads go on as they like.
    ///
    /// # Errors
    ///
    /// The error of `work`, whose recording is dropped; what the driver answered.
    pub fn capture<E: From<CudaError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Graph, E> {
        /// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`.
        const THREAD_LOCAL: u32 = 1;
        self.context.enter()?;
        // SAFETY: the stream lives as long as `self`, and its context is current.
        done(unsafe { shim::cuStreamBeginCapture_v2(self.raw(), THREAD_LOCAL) })?;
        let worked = work();
        let mut raw: Ptr = null_mut();
        // SAFETY: begun above on this thread; `raw` is where the driver writes the graph's handle.
        let ended = done(unsafe { shim::cuStreamEndCapture(self.raw(), (&raw mut raw).cast()) });
        // Owned before any return, so that it is destroyed.
        let graph = Graph { raw, context: self.context.clone() };
        worked?;
        ended?;
        Ok(graph)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // `inner` is destroyed next, on this thread.
        let _ = self.context.enter();
    }
}

/// "Still at work" is an answer, not an error.
fn ready(answer: Result<(), CudaError>) -> Result<bool, CudaError> {
    match answer {
        Ok(()) => Ok(true),
        Err(CudaError::Call { code: Code::NOT_READY, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A mark in a stream, to wait for and to measure between.
#[derive(Debug)]
pub struct Event {
    raw: Ptr,
    context: Context,
}

// SAFETY: an event's handle may be used from any thread, and by several at once: CUDA's driver
// interface is thread-safe, and no method changes the handle itself.
unsafe impl Send for Event {}
// SAFETY: as above, the handle may be used by several threads at once.
unsafe impl Sync for Event {}

impl Event {
    /// An event that has not happened, with a time of half a microsecond's resolution.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn new(context: &Context) -> Result<Self, CudaError> {
        context.enter()?;
        let mut raw: Ptr = null_mut();
        // SAFETY: `raw` is where the driver writes the handle; flags 0 are the default.
        done(unsafe { shim::cuEventCreate((&raw mut raw).cast(), 0) })?;
        Ok(Self { raw, context: context.clone() })
    }

    /// Marks what is queued in `stream` so far.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: event and stream live as long as their borrows.
        done(unsafe { shim::cuEventRecord(self.raw, stream.raw()) })
    }

    /// Whether it has happened. Does not wait.
    ///
    /// # Errors
    ///
    /// What went wrong in the work before it.
    pub fn is_done(&self) -> Result<bool, CudaError> {
        self.context.enter()?;
        // SAFETY: the event lives as long as `self`.
        ready(done(unsafe { shim::cuEventQuery(self.raw) }))
    }

    /// Waits until it has happened.
    ///
    /// # Errors
    ///
    /// What went wrong in the work before it.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: the event lives as long as `self`.
        done(unsafe { shim::cuEventSynchronize(self.raw) })
    }

    /// Time on the device from `earlier` to this; both must have happened.
    ///
    /// # Errors
    ///
    /// What the driver answered, also when one of them has not happened.
    pub fn since(&self, earlier: &Self) -> Result<Duration, CudaError> {
        self.context.enter()?;
        let mut milliseconds = 0.0_f32;
        let out: Ptr = (&raw mut milliseconds).cast();
        // SAFETY: both events live as long as their borrows; `out` is the `float` to be written.
        done(unsafe { shim::cuEventElapsedTime(out, earlier.raw, self.raw) })?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: the handle is ours alone and is not used again; the driver lets work that
            // still refers to it end first.
            let _ = unsafe { shim::cuEventDestroy_v2(self.raw) };
        }
    }
}
