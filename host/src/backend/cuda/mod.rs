//! NVIDIA GPUs: the driver, found at run time, and the precompiled kernels on it.
//!
//! ```text
//! driver/      the CUDA driver as safe Rust sees it
//! kernels      whose PTX is used: the program's or that of a model's file
//! modules      PTX, compiled by the driver: what a model needs of it
//! weights      the model in device memory; staging: its way there
//! state        the buffers of a session
//! launches     which kernels make an operation, with what arguments
//! attention    those of `attend`; decode: the fused ones for one row; layers: all layers in one
//! ops          the operations of a session, recorded where steps repeat
//! meter        memory in use, bandwidth
//! trials       small models in lock step with the CPU, and which kernels they reach
//! ```

mod attention;
mod choose;
mod decode;
pub mod driver;
pub mod kernels;
mod launches;
mod layers;
mod meter;
mod modules;
mod ops;
mod staging;
mod state;
pub mod trials;
mod weights;

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use self::driver::{Context, CudaError, Device};
use self::kernels::KernelSet;
pub use self::meter::{GpuMemory, GpuMeter, GpuState, Slowed};
use self::modules::{Loading, Modules};
pub use self::ops::CudaOps;
use self::staging::Staging;
pub use self::weights::CudaWeights;
use super::{Backend, DeviceError, HeadType, Limits};
use crate::model::Model;

/// The kernel that weights need on their way to the device.
const TILE_WEIGHTS: &str = "tile_weights";

/// A GPU with this process's context on it.
#[derive(Debug)]
pub struct CudaBackend {
    context: Context,
    kernels: KernelSet,
    meter: Option<GpuMeter>,
    /// Device memory that the context takes by itself.
    context_bytes: u64,
    head: HeadType,
    deterministic: bool,
    /// Whether operations run one by one.
    direct: bool,
    /// All kernels of the device, where they are loaded in advance.
    modules: Option<Modules>,
}

impl CudaBackend {
    /// Makes a context on `device`, for models whose operations are done by `kernels`.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn new(device: &Device, kernels: KernelSet) -> Result<Self, CudaError> {
        let meter = GpuMeter::start(device);
        let context = Context::new(device)?;
        let context_bytes = meter.as_ref().and_then(GpuMeter::used).unwrap_or(0);
        Ok(Self {
            context,
            kernels: kernels.with_whole_families(),
            meter,
            context_bytes,
            head: HeadType::Stored,
            deterministic: false,
            direct: false,
            modules: None,
        })
    }

    /// Runs every operation when it is called instead of whole steps at once, so that buffers can
    /// be looked at in between ([`LockStep`](super::lock_step::LockStep)). Slower.
    #[must_use]
    pub fn one_by_one(self) -> Self {
        Self { direct: true, ..self }
    }

    /// The same GPU, holding the head of models that are uploaded from now on as `head` says.
    #[must_use]
    pub fn with_head(self, head: HeadType) -> Self {
        Self { head, ..self }
    }

    /// Whether a row's bits are to be the same whatever the chunks of a prompt and whatever is
    /// reused: a row that decodes then takes the kernel of attention that rows of a prompt take.
    #[must_use]
    pub fn with_deterministic(self, deterministic: bool) -> Self {
        Self { deterministic, ..self }
    }

    /// Whether bits are the same whatever the chunks of a prompt.
    #[must_use]
    pub fn deterministic(&self) -> bool {
        self.deterministic
    }

    /// How the head is held.
    #[must_use]
    pub fn head(&self) -> HeadType {
        self.head
    }

    /// What looks at the device's memory, for another thread. `None` without the management
    /// library.
    #[must_use]
    pub fn meter(&self) -> Option<GpuMeter> {
        self.meter.clone()
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.context.device()
    }
}

impl CudaWeights {
    /// How long it took to bring the weights to the device, repacked for it; the kernels were
    /// compiled meanwhile.
    #[must_use]
    pub fn copied_in(&self) -> Duration {
        self.copied_in
    }

    /// How long the driver took to compile the kernels, or to find them compiled.
    #[must_use]
    pub fn compiled_in(&self) -> Duration {
        self.modules.compiled_in
    }
}

impl Backend for CudaBackend {
    type Weights<'c> = CudaWeights;
    type Ops<'w> = CudaOps<'w>;

    fn upload<'c>(
        &self,
        model: &Model<'c>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<CudaWeights, DeviceError> {
        if let Some(modules) = &self.modules {
            let staging = Staging::new(&self.context, modules.need(TILE_WEIGHTS)?.function)?;
            let modules = Loading::Done(modules.clone());
            return weights::upload(&self.context, model, self.head, staging, modules, progress);
        }
        let loaded = AtomicUsize::new(0);
        let first = Modules::load(&self.context, &self.kernels, &[TILE_WEIGHTS], &loaded)?;
        let tile_weights = first.need(TILE_WEIGHTS)?.function;
        let staging = Staging::new(&self.context, tile_weights)?;
        // The compiler needs the CPU, copies need the bus: side by side.
        let entries = launches::entries(&self.context, &self.kernels, model, self.head);
        loaded.store(0, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let load = || Modules::load(&self.context, &self.kernels, &entries, &loaded);
            let thread = scope.spawn(load);
            let modules = Loading::Underway { thread, loaded: &loaded, count: entries.len() };
            weights::upload(&self.context, model, self.head, staging, modules, progress)
        })
    }

    fn weights_bytes(&self, weights: &CudaWeights) -> u64 {
        weights.bytes()
    }

    fn ops<'w>(
        &'w self,
        weights: &'w CudaWeights,
        limits: Limits,
    ) -> Result<CudaOps<'w>, DeviceError> {
        CudaOps::new(self, weights, limits)
    }
}
