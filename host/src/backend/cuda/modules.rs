//! [`Modules`]: the kernels that a model needs, compiled by the driver for its device.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use tercet_kernels_ptx::contract::ArgumentBlock;
use tercet_kernels_ptx::ptx::Target;

use super::driver::{Context, CudaError, Function, Launch, Module};
use super::kernels::KernelSet;

/// A kernel and how it is launched.
#[derive(Debug)]
pub(super) struct Loaded<B: ArgumentBlock> {
    pub(super) function: Function<B>,
    pub(super) target: Target,
}

impl<B: ArgumentBlock> Loaded<B> {
    /// `launch`, begun while the kernel before it ends, where the kernel is made for that.
    pub(super) fn prepare(&self, launch: Launch) -> Launch {
        if self.target.begins_early() { launch.dependent() } else { launch }
    }
}

/// Modules by entry. Clones share what was compiled.
#[derive(Debug, Clone)]
pub(super) struct Modules {
    modules: BTreeMap<&'static str, (Target, Module)>,
    /// Shared memory that a block can have.
    shared_bytes_max: u32,
    /// How long the driver took to compile them, or to find them compiled.
    pub(super) compiled_in: Duration,
}

impl Modules {
    /// Loads `entries` from `kernels`; `loaded` counts them. One after the other: the driver's
    /// compiler lets nobody else in, and eight threads that wait for it took a fifth longer.
    pub(super) fn load(
        context: &Context,
        kernels: &KernelSet,
        entries: &[&'static str],
        loaded: &AtomicUsize,
    ) -> Result<Self, CudaError> {
        let start = Instant::now();
        let capability = context.device().capability;
        let mut modules = BTreeMap::new();
        for text in entries.iter().filter_map(|entry| kernels.best(entry, capability)) {
            let module = Module::load(context, &text.name, text.ptx())?;
            modules.insert(text.entry, (text.target, module));
            loaded.store(modules.len(), Ordering::Relaxed);
        }
        let shared_bytes_max = context.device().shared_per_block_max;
        Ok(Self { modules, shared_bytes_max, compiled_in: start.elapsed() })
    }

    /// The kernels that are loaded.
    pub(super) fn entries(&self) -> impl Iterator<Item = &'static str> {
        self.modules.keys().copied()
    }

    /// What `entry` was compiled for, if it is loaded.
    pub(super) fn target(&self, entry: &str) -> Option<Target> {
        self.modules.get(entry).map(|(target, _)| *target)
    }

    /// A kernel that every device has.
    pub(super) fn need<B: ArgumentBlock>(
        &self,
        entry: &'static str,
    ) -> Result<Loaded<B>, CudaError> {
        self.get(entry)?.ok_or(CudaError::NoKernel { entry })
    }

    /// Those of `entries` that are loaded.
    pub(super) fn several<B: ArgumentBlock>(
        &self,
        entries: &[&'static str],
    ) -> Result<Vec<(&'static str, Loaded<B>)>, CudaError> {
        let loaded = entries.iter().map(|entry| {
            let loaded = self.get(entry)?;
            Ok(loaded.map(|loaded| (*entry, loaded)))
        });
        loaded.filter_map(Result::transpose).collect()
    }

    /// The kernel `entry`, or `None` where it was not loaded: no model wants it, or the device is
    /// below its targets. It may have all the shared memory that a block can have.
    pub(super) fn get<B: ArgumentBlock>(
        &self,
        entry: &str,
    ) -> Result<Option<Loaded<B>>, CudaError> {
        let Some((target, module)) = self.modules.get(entry) else { return Ok(None) };
        let function = module.entry::<B>(entry)?;
        let own = function.attributes().shared_bytes;
        function.allow_shared(self.shared_bytes_max.saturating_sub(own))?;
        function.prefer_shared()?;
        Ok(Some(Loaded { function, target: *target }))
    }
}

/// Modules that are there, or on their way while weights are copied.
#[derive(Debug)]
pub(super) enum Loading<'s> {
    Done(Modules),
    Underway {
        thread: ScopedJoinHandle<'s, Result<Modules, CudaError>>,
        /// How many are loaded.
        loaded: &'s AtomicUsize,
        /// How many there will be.
        count: usize,
    },
}

impl Loading<'_> {
    /// Of `done` copied bytes of `total` as many as the loading is as far as: one bar tells of
    /// both, and the first time on a machine compiling takes longer than copying.
    pub(super) fn as_far(&self, done: u64, total: u64) -> u64 {
        match self {
            Self::Done(_) => done,
            Self::Underway { loaded, count, .. } => {
                let loaded = loaded.load(Ordering::Relaxed) as u64;
                let part = u128::from(total) * u128::from(loaded) / (*count).max(1) as u128;
                done.min(u64::try_from(part).unwrap_or(total)).min(total.saturating_sub(1))
            }
        }
    }

    /// Waits for them; `progress` hears how far they are as if it were copied bytes of `total`.
    pub(super) fn wait(
        self,
        total: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Modules, CudaError> {
        /// Between two looks: what it adds to a start is not felt.
        const PAUSE: Duration = Duration::from_millis(2);
        while let Self::Underway { thread, .. } = &self
            && !thread.is_finished()
        {
            progress(self.as_far(total, total), total);
            thread::sleep(PAUSE);
        }
        let modules = match self {
            Self::Done(modules) => modules,
            Self::Underway { thread, .. } => match thread.join() {
                Ok(modules) => modules?,
                Err(panic) => std::panic::resume_unwind(panic),
            },
        };
        progress(total, total);
        Ok(modules)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn progress_is_that_of_the_slower() {
        let loaded = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (go_on, waits) = mpsc::channel();
            let thread = scope.spawn(move || {
                waits.recv().expect("whoever waits lets it go on");
                Err(CudaError::NoKernel { entry: "embed" })
            });
            let loading = Loading::Underway { thread, loaded: &loaded, count: 4 };
            assert_eq!(loading.as_far(70, 100), 0);
            loaded.store(2, Ordering::Relaxed);
            assert_eq!((loading.as_far(70, 100), loading.as_far(30, 100)), (50, 30));
            loaded.store(4, Ordering::Relaxed);
            assert_eq!(loading.as_far(100, 100), 99, "the end is heard from who waits");
            assert_eq!(loading.as_far(u64::MAX, u64::MAX), u64::MAX - 1);
            let mut heard = 0;
            let error = loading.wait(100, &mut |done, total| {
                assert_eq!((done, total), (99, 100));
                heard += 1;
                // Once is enough for the thread, which may have ended by the next time.
                let _ = go_on.send(());
            });
            assert!(matches!(error, Err(CudaError::NoKernel { entry: "embed" })));
            assert!(heard > 0, "progress while it waits");
        });
    }

    #[test]
    fn the_end_is_heard_of() {
        let modules =
            Modules { modules: BTreeMap::new(), shared_bytes_max: 0, compiled_in: Duration::ZERO };
        let loading = Loading::Done(modules);
        assert_eq!(loading.as_far(70, 100), 70);
        let mut heard = Vec::new();
        loading.wait(100, &mut |done, total| heard.push((done, total))).unwrap();
        assert_eq!(heard, [(100, 100)]);
    }
}
