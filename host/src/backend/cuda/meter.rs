//! What a GPU has to tell about itself: memory in use, and how fast it reads.

#![allow(unsafe_code, reason = "launches a kernel")]

use std::sync::Arc;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::struct_wrappers::device::MemoryInfo;
use tercet_kernels_ptx::contract::ReadMemoryArgs;

use super::driver::{CudaError, Device, DeviceBuffer, Event, Launch, Module, Stream};
use super::{CudaBackend, driver};
use crate::measure::memory::DeviceCounts;

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

/// How a device is doing; each number is `None` where the device or its driver does not tell it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GpuState {
    /// Power drawn, in watts.
    pub watts: Option<f64>,
    /// Energy since the driver was loaded, in joules.
    pub joules: Option<f64>,
    /// Share of the last moment in which a kernel ran, in percent.
    pub busy: Option<u32>,
    /// Temperature of the chip.
    pub celsius: Option<u32>,
    /// What holds its clocks down.
    pub slowed: Slowed,
}

/// What holds a device's clocks down (NVML's reasons, in three groups).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slowed {
    /// It is too hot.
    pub heat: bool,
    /// It would draw more power than it may.
    pub power: bool,
    /// A fault, or a signal of the machine around it.
    pub hardware: bool,
}

impl Slowed {
    /// The reasons as words.
    pub fn reasons(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.heat, "heat"), (self.power, "power limit"), (self.hardware, "hardware")];
        all.into_iter().filter_map(|(is_so, word)| is_so.then_some(word))
    }
}

impl From<ThrottleReasons> for Slowed {
    fn from(reasons: ThrottleReasons) -> Self {
        use ThrottleReasons as Is;
        let heat = Is::SW_THERMAL_SLOWDOWN.union(Is::HW_THERMAL_SLOWDOWN);
        let power = Is::SW_POWER_CAP.union(Is::HW_POWER_BRAKE_SLOWDOWN);
        let (heat, power) = (reasons.intersects(heat), reasons.intersects(power));
        // `HW_SLOWDOWN` is set beside the two that say more.
        let hardware = reasons.contains(Is::HW_SLOWDOWN) && !heat && !power;
        Self { heat, power, hardware }
    }
}

/// The management library's view of a device.
///
/// It needs no context, so copies of it work on any thread, also while another computes. What it
/// is asked may take milliseconds.
#[derive(Debug, Clone)]
pub struct GpuMeter {
    nvml: Arc<Nvml>,
    bus: String,
    /// In use before there was a context.
    idle: u64,
}

impl GpuMeter {
    /// Notes what is in use now: to be made before the process has a context on `device`. `None`
    /// without the management library, which comes with drivers.
    #[must_use]
    pub fn start(device: &Device) -> Option<Self> {
        let nvml = Arc::new(Nvml::init().ok()?);
        let meter = Self { nvml, bus: device.bus.clone(), idle: 0 };
        let idle = meter.memory()?.used;
        Some(Self { idle, ..meter })
    }

    fn device(&self) -> Option<nvml_wrapper::Device<'_>> {
        self.nvml.device_by_pci_bus_id(self.bus.as_str()).ok()
    }

    fn memory(&self) -> Option<MemoryInfo> {
        self.device()?.memory_info().ok()
    }

    /// Bytes in use since the start.
    pub(super) fn used(&self) -> Option<u64> {
        Some(self.memory()?.used.saturating_sub(self.idle))
    }

    /// Bytes that the driver accounts to this process.
    pub(super) fn process(&self) -> Option<u64> {
        let processes = self.device()?.running_compute_processes().ok()?;
        let ours = processes.iter().find(|process| process.pid == std::process::id())?;
        match ours.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        }
    }

    /// What the driver counts on the whole device. `None` when it no longer answers.
    #[must_use]
    pub fn counts(&self) -> Option<DeviceCounts> {
        let memory = self.memory()?;
        let ours = self.process().unwrap_or(memory.used.saturating_sub(self.idle));
        Some(DeviceCounts { ours, free: memory.free, total: memory.total })
    }

    /// How the device is doing.
    #[must_use]
    pub fn state(&self) -> Option<GpuState> {
        let device = self.device()?;
        let slowed = device.current_throttle_reasons().map(Slowed::from).unwrap_or_default();
        #[allow(clippy::cast_precision_loss, reason = "shown with few digits")]
        let joules = device.total_energy_consumption().ok().map(|mj| mj as f64 / 1e3);
        Some(GpuState {
            watts: device.power_usage().ok().map(|mw| f64::from(mw) / 1e3),
            joules,
            busy: device.utilization_rates().ok().map(|rates| rates.gpu),
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            slowed,
        })
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
        let used = self.meter.as_ref().and_then(GpuMeter::used);
        let process = self.meter.as_ref().and_then(GpuMeter::process);
        Ok(GpuMemory { used: used.unwrap_or(total - free), context: self.context_bytes, process })
    }

    /// Bytes of device memory that anybody can have.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn free_memory(&self) -> Result<u64, CudaError> {
        Ok(self.context.memory()?.free)
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
        let words =
            DeviceBuffer::<u32>::zeroed(&self.context, "the bandwidth's buffer", bytes / 4)?;
        let mut sums = DeviceBuffer::<u32>::zeroed(&self.context, "the bandwidth's sum", 1)?;
        let vectors = u32::try_from(words.len() / 4).unwrap_or(u32::MAX);
        let args = ReadMemoryArgs { words: words.ptr(0), sums: sums.ptr_mut(0), vectors, zero: 0 };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_in_words() {
        let words = |reasons| Slowed::from(reasons).reasons().collect::<Vec<_>>();
        assert_eq!(words(ThrottleReasons::NONE | ThrottleReasons::GPU_IDLE), [""; 0]);
        assert_eq!(words(ThrottleReasons::SW_POWER_CAP), ["power limit"]);
        let hot = ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        assert_eq!(words(hot), ["heat"]);
        assert_eq!(words(ThrottleReasons::HW_SLOWDOWN), ["hardware"]);
    }
}
