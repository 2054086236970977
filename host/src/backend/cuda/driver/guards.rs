//! [`Guards`]: painted memory round every buffer, to find what writes beside its own.

#![allow(unsafe_code, reason = "paints and reads device memory that belongs to no typed buffer")]

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::device::Context;
use super::error::{CudaError, done};
use super::shim::{self, Ptr};

/// Bytes on either side of a guarded buffer: a multiple of every alignment that kernels ask for.
/// What is written further away is not seen.
pub(super) const GUARD: usize = 4096;

/// What stands in every word of a guard, and of memory that a trial paints: as a single a NaN that
/// no arithmetic gives, and no mark that a kernel writes (all bits set).
pub(in super::super) const PAINT: u32 = 0x7fc5_a5a5;

/// The guarded buffers of a context.
#[derive(Debug, Default)]
pub(super) struct Guards {
    on: AtomicBool,
    /// What each is for, and its bytes, by the address of its first.
    live: Mutex<BTreeMap<u64, (&'static str, usize)>>,
}

/// Something was written where it should not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun {
    /// What the memory is for.
    pub what: &'static str,
    /// Bytes that may be written.
    pub bytes: usize,
    /// Where the first word beside them is that was, counted from the first of them.
    pub at: i64,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, bytes, at } = self;
        write!(f, "{what} has {bytes} bytes, and the word at byte {at} was written")
    }
}

impl Guards {
    fn live(&self) -> MutexGuard<'_, BTreeMap<u64, (&'static str, usize)>> {
        // A panic between two locks leaves the map as it was.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a guard of buffers that are made now.
    pub(super) fn bytes(&self) -> usize {
        if self.on.load(Ordering::Relaxed) { GUARD } else { 0 }
    }

    /// Paints both guards of the `bytes` bytes at `start`, and looks after them.
    ///
    /// # Safety
    ///
    /// - The [`GUARD`] bytes before and behind are the caller's, until [`Guards::forget`].
    pub(super) unsafe fn watch(
        &self,
        start: u64,
        what: &'static str,
        bytes: usize,
    ) -> Result<(), CudaError> {
        let guard = [PAINT; GUARD / 4];
        let paint: Ptr = guard.as_ptr().cast_mut().cast();
        for side in sides(start, bytes) {
            // SAFETY: the caller's guard, which nobody else knows yet; `guard` has as many bytes
            // and is read before the call returns.
            done(unsafe { shim::cuMemcpyHtoD_v2(side, paint, GUARD) })?;
        }
        self.live().insert(start, (what, bytes));
        Ok(())
    }

    /// Looks no longer after the buffer at `start`.
    pub(super) fn forget(&self, start: u64) {
        self.live().remove(&start);
    }
}

/// Where the guards of `bytes` bytes at `start` begin.
fn sides(start: u64, bytes: usize) -> [u64; 2] {
    [start - GUARD as u64, start + bytes as u64]
}

impl Context {
    /// Has guards round every buffer that is made from here on: a trial's kernels are to write
    /// nothing beside theirs. Costs a little memory.
    pub fn guard_memory(&self) {
        self.guards().on.store(true, Ordering::Relaxed);
    }

    /// The first place beside a guarded buffer where something has been written. Waits for what is
    /// queued.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    pub fn overrun(&self) -> Result<Option<Overrun>, CudaError> {
        self.enter()?;
        let mut guard = [0_u32; GUARD / 4];
        let out: Ptr = guard.as_mut_ptr().cast();
        for (&start, &(what, bytes)) in &*self.guards().live() {
            for side in sides(start, bytes) {
                // SAFETY: a buffer leaves the map before its memory is freed, and the map is
                // locked; `out` has room for a guard.
                done(unsafe { shim::cuMemcpyDtoH_v2(out, side, GUARD) })?;
                if let Some(word) = guard.iter().position(|&word| word != PAINT) {
                    let at = (side + 4 * word as u64).wrapping_sub(start).cast_signed();
                    return Ok(Some(Overrun { what, bytes, at }));
                }
            }
        }
        Ok(None)
    }
}
