//! [`Benched`]: what a measurement asks of a device beside computing.

use tercet_host::backend::cpu::{CpuBackend, CpuWeights};
use tercet_host::backend::cuda::{CudaBackend, CudaOps, CudaWeights};
use tercet_host::backend::{Backend, DeviceError, HeadType, Limits, Ops, OpsBytes};
use tercet_host::measure::{machine, read_bandwidth, session_bytes, upload_bytes};
use tercet_host::model::Model;
use tercet_host::package::Package;

use super::row::{Context, Gpu};
use crate::engine;
use crate::failure::Failure;

/// A device that is measured.
pub trait Benched: Backend {
    /// Most prompt rows of a step, unless the user says otherwise.
    fn prefill_rows(&self, package: &Package) -> usize;

    /// What rows say of the device.
    fn describe(&self, context: &mut Context);

    /// Bytes of weights that a step reads, however many rows it has.
    fn step_bytes(&self, weights: &Self::Weights<'_>) -> u64;

    /// Bytes that the weights take beside those of the stored model.
    fn added_bytes(&self, _: &Self::Weights<'_>) -> u64 {
        0
    }

    /// Refuses what would take more memory than there is; `limits` are those of a
    /// session.
    ///
    /// # Errors
    ///
    /// [`DeviceError::TooLarge`].
    fn room_for(&self, model: &Model<'_>, limits: Limits) -> Result<(), DeviceError>;

    /// Bytes a second that plain loads read, `None` where there is no room for the buffer.
    fn bandwidth(&self) -> Option<f64>;

    /// Notes memory in use at the end of a test.
    fn note_memory(&self, weights: &Self::Weights<'_>, ops: &Self::Ops<'_>, context: &mut Context);

    /// Runs `work` where it is fastest.
    ///
    /// # Errors
    ///
    /// Those of `work`.
    fn run<R: Send>(&self, work: impl FnOnce() -> Result<R, Failure> + Send) -> Result<R, Failure>;
}

impl Benched for CpuBackend {
    fn prefill_rows(&self, package: &Package) -> usize {
        engine::prefill_rows(self, package)
    }

    fn describe(&self, context: &mut Context) {
        context.backends = "CPU";
        context.simd = self.simd().to_string();
        context.threads = self.threads();
        if self.head() == HeadType::Int8 {
            context.head = "int8";
        }
        // The CPU knows no other way.
        context.deterministic = true;
    }

    fn step_bytes(&self, weights: &CpuWeights<'_>) -> u64 {
        weights.bytes_per_step()
    }

    fn added_bytes(&self, weights: &CpuWeights<'_>) -> u64 {
        weights.head_bytes_added()
    }

    fn room_for(&self, model: &Model<'_>, limits: Limits) -> Result<(), DeviceError> {
        let what = "the model with its session";
        let needed =
            upload_bytes(model, self.head()) + session_bytes(model, &limits, self.threads());
        match machine::available_memory() {
            Some(available) if available < needed => {
                Err(DeviceError::TooLarge { what, needed, available })
            }
            _ => Ok(()),
        }
    }

    /// Reads a buffer several times as large as the last cache, with all threads.
    fn bandwidth(&self) -> Option<f64> {
        const LEAST: u64 = 256 << 20;
        const MOST: u64 = 2 << 30;
        let wanted = machine::cache_bytes().unwrap_or(0).saturating_mul(4).clamp(LEAST, MOST);
        // No more than a quarter of what is free: measuring must not push others out.
        if machine::available_memory().is_some_and(|available| available / 4 < wanted) {
            return None;
        }
        read_bandwidth(self.threads(), self.simd(), usize::try_from(wanted).ok()?)
    }

    fn note_memory(&self, _: &CpuWeights<'_>, _: &Self::Ops<'_>, context: &mut Context) {
        context.peak_memory = machine::peak_memory();
    }

    fn run<R: Send>(&self, work: impl FnOnce() -> Result<R, Failure> + Send) -> Result<R, Failure> {
        Self::run(self, work)
    }
}

impl Benched for CudaBackend {
    fn prefill_rows(&self, _: &Package) -> usize {
        engine::GPU_PREFILL_ROWS
    }

    fn describe(&self, context: &mut Context) {
        let device = self.device();
        context.backends = "CUDA";
        context.gpu = Some(Gpu {
            name: device.name.clone(),
            driver: device.driver.to_string(),
            ..Gpu::default()
        });
        context.simd = "PTX".into();
        if self.head() == HeadType::Int8 {
            context.head = "int8";
        }
        context.threads = 1;
        context.deterministic = self.deterministic();
    }

    fn step_bytes(&self, weights: &CudaWeights) -> u64 {
        weights.bytes_per_step()
    }

    /// The driver refuses by itself, with sizes.
    fn room_for(&self, _: &Model<'_>, _: Limits) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Reads 2 GiB, or an eighth of what is free.
    fn bandwidth(&self) -> Option<f64> {
        let free = self.free_memory().ok()?;
        let bytes = (free / 8).min(2 << 30);
        self.read_bandwidth(usize::try_from(bytes).ok()?).ok()
    }

    fn note_memory(&self, weights: &CudaWeights, ops: &CudaOps<'_>, context: &mut Context) {
        context.peak_memory = machine::peak_memory();
        let Some(gpu) = &mut context.gpu else { return };
        if let Ok(memory) = self.gpu_memory() {
            gpu.memory_bytes = Some(memory.process.unwrap_or(memory.used));
            gpu.context_bytes = Some(memory.context);
        }
        gpu.weights_bytes = weights.bytes();
        let OpsBytes { cache, work } = ops.bytes();
        (gpu.cache_bytes, gpu.work_bytes) = (cache, work);
        gpu.upload_ms = weights.copied_in().as_secs_f64() * 1e3;
        gpu.compile_ms = weights.compiled_in().as_secs_f64() * 1e3;
    }

    fn run<R: Send>(&self, work: impl FnOnce() -> Result<R, Failure> + Send) -> Result<R, Failure> {
        work()
    }
}
