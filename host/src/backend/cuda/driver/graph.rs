//! [`Graph`]: a recorded stretch of work; [`GraphExec`]: the same, ready to be repeated.

#![allow(unsafe_code, reason = "calls what cust does not have")]

use core::ptr::null_mut;

use super::codes::Code;
use super::device::Context;
use super::error::{CudaError, done};
use super::shim::{self, Ptr};
use super::stream::Stream;

/// What [`Stream::capture`] recorded.
#[derive(Debug)]
pub struct Graph {
    /// Null when the recording failed.
    pub(super) raw: Ptr,
    pub(super) context: Context,
}

// SAFETY: the driver's graph handles belong to no thread; every method that changes the graph
// takes `&mut self` or `self`, so that no two threads do it at once.
unsafe impl Send for Graph {}

impl Graph {
    /// Makes the graph ready to be launched. Slow: some microseconds for each node.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn instantiate(&self) -> Result<GraphExec, CudaError> {
        self.context.enter()?;
        let mut raw: Ptr = null_mut();
        // SAFETY: the graph lives as long as `self`; `raw` is where the driver writes the handle.
        done(unsafe { shim::cuGraphInstantiateWithFlags((&raw mut raw).cast(), self.raw, 0) })?;
        Ok(GraphExec { raw, context: self.context.clone() })
    }

    /// Nodes of the graph.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn nodes(&self) -> Result<usize, CudaError> {
        self.context.enter()?;
        let mut count = 0_usize;
        // SAFETY: without a place for nodes the driver writes their number and nothing else.
        done(unsafe { shim::cuGraphGetNodes(self.raw, null_mut(), (&raw mut count).cast()) })?;
        Ok(count)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.raw.is_null() && self.context.enter().is_ok() {
            // SAFETY: the handle is ours alone and is not used again. What cannot be destroyed
            // goes with the context.
            let _ = unsafe { shim::cuGraphDestroy(self.raw) };
        }
    }
}

/// A graph that can be launched.
#[derive(Debug)]
pub struct GraphExec {
    raw: Ptr,
    context: Context,
}

// SAFETY: as for `Graph`: the handle belongs to no thread, and what changes it takes `&mut self`.
unsafe impl Send for GraphExec {}

/// `CUgraphExecUpdateResultInfo` of CUDA 12.
#[repr(C)]
struct UpdateResult {
    result: u32,
    error_node: Ptr,
    error_from_node: Ptr,
}

impl GraphExec {
    /// Queues everything that was recorded.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    ///
    /// # Safety
    ///
    /// As [`Function::launch`](super::Function::launch), for every kernel of the graph: the memory
    /// that it was recorded with is still there, and nobody else uses it until the graph is done.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: graph and stream live as long as their borrows; the caller vouches for what the
        // kernels touch.
        done(unsafe { shim::cuGraphLaunch(self.raw, stream.raw()) })
    }

    /// Brings to the device what the first launch would otherwise wait for.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn upload(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: graph and stream live as long as their borrows; nothing of the graph runs.
        done(unsafe { shim::cuGraphUpload(self.raw, stream.raw()) })
    }

    /// Takes over arguments and grids from `graph`, if it has the same nodes in the same order.
    /// Much cheaper than a new [`Graph::instantiate`]. False when the shape differs: then nothing
    /// has changed.
    ///
    /// # Errors
    ///
    /// What else the driver answered.
    pub fn update(&mut self, graph: &Graph) -> Result<bool, CudaError> {
        self.context.enter()?;
        let mut result =
            UpdateResult { result: 0, error_node: null_mut(), error_from_node: null_mut() };
        // SAFETY: both graphs live as long as their borrows, this one is borrowed alone; `result`
        // has the layout of the structure that the driver fills.
        let answer =
            unsafe { shim::cuGraphExecUpdate_v2(self.raw, graph.raw, (&raw mut result).cast()) };
        match done(answer) {
            Ok(()) => Ok(true),
            Err(CudaError::Call { code: Code::GRAPH_EXEC_UPDATE_FAILURE, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: the handle is ours alone and is not used again; the driver waits for a
            // launch that is under way.
            let _ = unsafe { shim::cuGraphExecDestroy(self.raw) };
        }
    }
}
