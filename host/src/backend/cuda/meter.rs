//! What a GPU has to tell about itself: memory in use, and how fast it reads.

#![allow(unsafe_code, reason = "launches a kernel")]

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use tercet_kernels_ptx::contract::ReadMemoryArgs;

use super::driver::{CudaError, Device, DeviceBuffer, Event, Launch, Module, Stream};
use super::{CudaBackend, driver};

/// Device memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuMemory {
    /// In use now, less what was in use before this process had a context.
    pub used: u64,
    /// The part of that which a context takes by itself: before kernels, weights and buffers.
    pub context: u64,
    /// What the driver accounts to this process; not everywhere known (containers hide processes).
    pub process: Option<u64>,
}

/// The management library's view of a device.
#[derive(Debug)]
pub(super) struct Meter {
    nvml: Nvml,
    bus: String,
    /// In use before there was a context.
    idle: u64,
}

impl Meter {
    /// Notes what is in use now. `None` without the management library, which comes with drivers.
    pub(super) fn start(device: &Device) -> Option<Self> {
        let meter = Self { nvml: Nvml::init().ok()?, bus: device.bus.clone(), idle: 0 };
        let idle = meter.in_use()?;
        Some(Self { idle, ..meter })
    }

    fn in_use(&self) -> Option<u64> {
        let device = self.nvml.device_by_pci_bus_id(self.bus.as_str()).ok()?;
        Some(device.memory_info().ok()?.used)
    }

    /// In use since the start.
    pub(super) fn used(&self) -> Option<u64> {
        Some(self.in_use()?.saturating_sub(self.idle))
    }

    /// What the driver accounts to this process.
    pub(super) fn process(&self) -> Option<u64> {
        let device = self.nvml.device_by_pci_bus_id(self.bus.as_str()).ok()?;
        let processes = device.running_compute_processes().ok()?;
        let ours = processes.iter().find(|process| process.pid == std::process::id())?;
        match ours.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        }
    }
}

impl CudaBackend {
    /// Device memory in use, as the driver counts it.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn gpu_memory(&self) -> Result<GpuMemory, CudaError> {
        let driver::Memory { free, total } = self.context.memory()?;
        let used = self.meter.as_ref().and_then(Meter::used);
        let process = self.meter.as_ref().and_then(Meter::process);
        Ok(GpuMemory { used: used.unwrap_or(total - free), context: self.context_bytes, process })
    }

    /// Bytes a second that the device reads, of `bytes` of its memory; the fastest of several
    /// passes, since others can only slow it down.
    ///
    /// # Errors
    ///
    /// What the driver answered; [`CudaError::OutOfMemory`] when there is no room for the buffer.
    pub fn read_bandwidth(&self, bytes: usize) -> Result<f64, CudaError> {
        const PASSES: usize = 8;
        const ENTRY: &str = "read_memory";
        let device = self.context.device();
        let text = self.kernels.best(ENTRY, device.capability);
        let text = text.ok_or(CudaError::NoKernel { entry: ENTRY })?;
        let kernel = Module::load(&self.context, &text.name, text.ptx())?;
        let kernel = kernel.function::<ReadMemoryArgs>()?;
        let words = DeviceBuffer::<u32>::zeroed(&self.context, "the bandwidth's buffer", bytes / 4)?;
        let mut sums = DeviceBuffer::<u32>::zeroed(&self.context, "the bandwidth's sum", 1)?;
        let vectors = u32::try_from(words.len() / 4).unwrap_or(u32::MAX);
        let args =
            ReadMemoryArgs { words: words.ptr(0), sums: sums.ptr_mut(0), vectors, zero: 0 };
        let blocks = device.multiprocessors * ReadMemoryArgs::BLOCKS_PER_MULTIPROCESSOR;
        let stream = Stream::new(&self.context)?;
        let (start, end) = (Event::new(&self.context)?, Event::new(&self.context)?);
        let mut fastest = f64::INFINITY;
        for _ in 0..PASSES {
            start.record(&stream)?;
            // SAFETY: `words` has 4 · `vectors` numbers and `sums` one; both outlive the kernel,
            // for which `synchronize` waits.
            unsafe { kernel.launch(Launch::grid(blocks, 1, 1), &stream, &args) }?;
            end.record(&stream)?;
            end.synchronize()?;
            fastest = fastest.min(end.since(&start)?.as_secs_f64());
        }
        Ok(f64::from(vectors) * 16.0 / fastest)
    }
}
