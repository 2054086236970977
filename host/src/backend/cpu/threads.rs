//! A fixed pool of threads that share out chunks of a buffer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use crate::backend::DeviceError;

/// The pool. Chunks go to whichever thread is free: no result depends on which.
#[derive(Debug)]
pub(super) struct Threads {
    pool: rayon::ThreadPool,
}

impl Threads {
    pub(super) fn new(threads: usize) -> Result<Self, DeviceError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("tercet-cpu-{index}"))
            .build()
            .map_err(|error| DeviceError::Threads { threads, reason: error.to_string() })?;
        Ok(Self { pool })
    }

    pub(super) fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on a thread of the pool; at once when this is one.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Calls `work(index, chunk)` for each chunk of `chunk` elements.
    pub(super) fn chunks<T: Send>(
        &self,
        items: &mut [T],
        chunk: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        self.install(|| {
            if items.len() <= chunk {
                return work(0, items);
            }
            items.par_chunks_mut(chunk).enumerate().for_each(|(index, items)| work(index, items));
        });
    }

    /// Calls `work(index, [chunk of a, chunk of b])` for each chunk of `chunk` elements of two
    /// equally long buffers.
    pub(super) fn chunk_pairs<T: Send>(
        &self,
        a: &mut [T],
        b: &mut [T],
        chunk: usize,
        work: impl Fn(usize, [&mut [T]; 2]) + Sync + Send,
    ) {
        let pairs = a.par_chunks_mut(chunk).zip(b.par_chunks_mut(chunk)).enumerate();
        self.install(|| pairs.for_each(|(index, (a, b))| work(index, [a, b])));
    }

    /// Elements of a chunk such that every thread gets about four of `count` elements, in multiples
    /// of `multiple`: small enough to even out a slow neighbour, large enough to be worth a
    /// handover.
    pub(super) fn chunk_of(&self, count: usize, multiple: usize) -> usize {
        if self.count() == 1 {
            return count.max(1);
        }
        count.div_ceil(4 * self.count()).next_multiple_of(multiple)
    }
}

/// Something that every thread of a pool has for itself.
#[derive(Debug)]
pub(super) struct PerThread<T>(Vec<Mutex<T>>);

impl<T> PerThread<T> {
    /// Calls `one` for each thread; gives its first error.
    pub(super) fn new<E>(threads: &Threads, one: impl Fn() -> Result<T, E>) -> Result<Self, E> {
        let all: Result<_, E> = (0..threads.count()).map(|_| one().map(Mutex::new)).collect();
        all.map(Self)
    }

    /// The part of the thread that asks, one of the pool: nobody else ever locks it.
    pub(super) fn own(&self) -> MutexGuard<'_, T> {
        let thread = rayon::current_thread_index().unwrap_or(0);
        // What a panic left behind is written anew before it is read.
        self.0[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
