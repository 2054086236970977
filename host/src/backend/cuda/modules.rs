//! [`Modules`]: the kernels that a model needs, compiled by the driver for its device.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tercet_kernels_ptx::contract::ArgumentBlock;
use tercet_kernels_ptx::ptx::Target;

use super::driver::{Context, CudaError, Function, Launch, Module};
use super::kernels::{KernelSet, KernelText};

/// Threads that compile side by side; the driver's compiler runs on the CPU.
const COMPILERS: usize = 8;

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
    /// Loads `entries` from `kernels`, several at a time.
    pub(super) fn load(
        context: &Context,
        kernels: &KernelSet,
        entries: &[&'static str],
    ) -> Result<Self, CudaError> {
        let start = Instant::now();
        let capability = context.device().capability;
        let texts = entries.iter().filter_map(|entry| kernels.best(entry, capability));
        let queue: Mutex<Vec<&KernelText>> = Mutex::new(texts.collect());
        let modules = Mutex::new(BTreeMap::new());
        // A panic between two locks leaves both as they were.
        let work = || -> Result<(), CudaError> {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(text) = next else { return Ok(()) };
                let module = Module::load(context, &text.name, text.ptx())?;
                let mut modules = modules.lock().unwrap_or_else(PoisonError::into_inner);
                modules.insert(text.entry, (text.target, module));
            }
        };
        std::thread::scope(|scope| {
            let threads = entries.len().min(COMPILERS);
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        let modules = modules.into_inner().unwrap_or_else(PoisonError::into_inner);
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
