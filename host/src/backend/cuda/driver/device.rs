//! The driver, its devices, and the context in which everything else lives.

#![allow(unsafe_code, reason = "asks the driver what cust has no question for")]

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cust::context::{Context as CustContext, CurrentContext, ResourceLimit};
use cust::device::{Device as CustDevice, DeviceAttribute};
use cust::{CudaApiVersion, CudaFlags};
use tercet_kernels_ptx::ptx::{ComputeCapability, Target};

use super::codes::Code;
use super::error::{CudaError, DriverVersion, checked, done};
use super::guards::Guards;
use super::shim;

/// `CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`, which cust does not name.
const SHARED_MEMORY_PER_BLOCK_OPTIN: u32 = 97;

/// What the driver says of its version, even before it has been initialised.
fn version() -> Result<DriverVersion, CudaError> {
    let version = checked(CudaApiVersion::get)?;
    let number = version.major() * 1000 + version.minor() * 10;
    Ok(DriverVersion(u32::try_from(number).unwrap_or(0)))
}

/// The driver of this machine, initialised.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    version: DriverVersion,
}

impl Driver {
    /// Loads and initialises the driver. Costs some ten milliseconds with a device, nothing
    /// without a driver.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoDriver`], [`CudaError::DriverTooOld`], [`CudaError::NoDevice`], or what
    /// `cuInit` answered.
    pub fn open() -> Result<Self, CudaError> {
        let version = version()?;
        if version < DriverVersion::MIN {
            return Err(CudaError::DriverTooOld { driver: Some(version), symbol: None });
        }
        checked(|| cust::init(CudaFlags::empty()))?;
        Ok(Self { version })
    }

    /// The version of CUDA that the driver speaks.
    #[must_use]
    pub fn version(self) -> DriverVersion {
        self.version
    }

    /// The devices that this process may use.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoDevice`] where there are none, so the list is never empty.
    pub fn devices(self) -> Result<Vec<Device>, CudaError> {
        let count = checked(CustDevice::num_devices)?;
        if count == 0 {
            return Err(CudaError::NoDevice { call: "cuDeviceGetCount", code: Code::NO_DEVICE });
        }
        (0..count).map(|number| Device::open(number, self.version)).collect()
    }

    /// Device `number`, counted from 0.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoSuchDevice`], [`CudaError::NoDevice`].
    pub fn device(self, number: usize) -> Result<Device, CudaError> {
        let mut devices = self.devices()?;
        let count = devices.len();
        if number >= count {
            return Err(CudaError::NoSuchDevice { number, count });
        }
        Ok(devices.swap_remove(number))
    }
}

/// A device that the kernels run on: number `number`, or the first there is.
///
/// # Errors
///
/// Those of [`Driver::open`] and [`Driver::device`], and [`CudaError::DeviceTooOld`].
pub fn usable(number: Option<u32>) -> Result<Device, CudaError> {
    let driver = Driver::open()?;
    let fit = |device: &Device| device.capability >= Target::SM_80.capability;
    let device = match number {
        Some(number) => driver.device(number as usize)?,
        None => {
            let mut devices = driver.devices()?;
            let first = devices.iter().position(fit).unwrap_or(0);
            devices.swap_remove(first)
        }
    };
    if fit(&device) {
        return Ok(device);
    }
    let Device { name, capability, .. } = device;
    Err(CudaError::DeviceTooOld { name, capability })
}

/// A device, and what it says of itself.
#[derive(Debug, Clone)]
pub struct Device {
    inner: CustDevice,
    /// Its number, counted from 0.
    pub number: u32,
    /// Its name: `NVIDIA H200`.
    pub name: String,
    /// Its place on the bus: `0000:1a:00.0`.
    pub bus: String,
    /// The driver's version.
    pub driver: DriverVersion,
    /// Which instructions it has.
    pub capability: ComputeCapability,
    /// Bytes of its memory.
    pub memory: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Threads that are resident on a multiprocessor at most.
    pub threads_per_multiprocessor: u32,
    /// Bytes of its second-level cache.
    pub l2_bytes: u32,
    /// Bytes of shared memory that one block may have, if its kernel asks for them
    /// ([`Function::allow_shared`](super::Function::allow_shared)).
    pub shared_per_block_max: u32,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_per_multiprocessor: u32,
    /// Clock of its multiprocessors in kHz.
    pub clock_khz: u32,
    /// Clock of its memory in kHz.
    pub memory_clock_khz: u32,
    /// Width of its memory's bus in bits.
    pub memory_bus_bits: u32,
}

impl Device {
    fn open(number: u32, driver: DriverVersion) -> Result<Self, CudaError> {
        use DeviceAttribute as Ask;
        let inner = checked(|| CustDevice::get_device(number))?;
        let ask = |attribute| checked(|| inner.get_attribute(attribute)).map(positive);
        Ok(Self {
            number,
            name: checked(|| inner.name())?,
            bus: bus(inner.as_raw())?,
            driver,
            capability: ComputeCapability {
                major: ask(Ask::ComputeCapabilityMajor)?,
                minor: ask(Ask::ComputeCapabilityMinor)?,
            },
            memory: checked(|| inner.total_memory())? as u64,
            multiprocessors: ask(Ask::MultiprocessorCount)?,
            threads_per_multiprocessor: ask(Ask::MaxThreadsPerMultiprocessor)?,
            l2_bytes: ask(Ask::L2CacheSize)?,
            shared_per_block_max: attribute(inner.as_raw(), SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            shared_per_multiprocessor: ask(Ask::MaxSharedMemoryPerMultiprocessor)?,
            clock_khz: ask(Ask::ClockRate)?,
            memory_clock_khz: ask(Ask::MemoryClockRate)?,
            memory_bus_bits: ask(Ask::GlobalMemoryBusWidth)?,
            inner,
        })
    }
}

/// What the driver counts is not negative.
fn positive(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn attribute(device: i32, attribute: u32) -> Result<u32, CudaError> {
    let mut value = 0_i32;
    // SAFETY: `value` is the `int` that the driver writes, and lives longer than the call.
    done(unsafe { shim::cuDeviceGetAttribute((&raw mut value).cast(), attribute, device) })?;
    Ok(positive(value))
}

fn bus(device: i32) -> Result<String, CudaError> {
    let mut name = [0_u8; 32];
    // SAFETY: the driver writes at most the 32 bytes that it is told of, with a zero at the end.
    done(unsafe { shim::cuDeviceGetPCIBusId(name.as_mut_ptr().cast(), 32, device) })?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or(&[]);
    Ok(String::from_utf8_lossy(name).to_lowercase())
}

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Free for anybody.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// A device with this process's context on it: modules, buffers, streams live in one.
///
/// Copies are the same context; it goes when the last of them and of what lives in it has gone.
/// Every operation makes it current on its thread first, so all of them work on any thread.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    inner: CustContext,
    device: Device,
    /// No other context of this process ever had this number.
    id: u64,
    /// Whether launches are noted, and those that were since somebody asked.
    watched: AtomicBool,
    launched: Mutex<Vec<&'static str>>,
    guards: Guards,
}

thread_local! {
    /// [`Inner::id`] of the context that is current on this thread, or 0.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

impl Context {
    /// Makes a context: the slow part of the start, some hundred milliseconds.
    ///
    /// What the driver would set aside for kernels' stacks, their `printf` and their heap is
    /// brought down to nothing: our kernels use none of them, and on an H200 that is half of the
    /// 527 MiB that a bare context takes. A kernel that does use a stack gets it at its launch.
    ///
    /// # Errors
    ///
    /// What the driver answered: out of memory, device in exclusive use, and the like.
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let inner = checked(|| CustContext::new(device.inner))?;
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let context = Self(Arc::new(Inner {
            inner,
            device: device.clone(),
            id,
            watched: AtomicBool::new(false),
            launched: Mutex::default(),
            guards: Guards::default(),
        }));
        context.enter()?;
        const KIB: usize = 1024;
        for (limit, bytes) in [
            (ResourceLimit::StackSize, 0),
            (ResourceLimit::PrintfFifoSize, 64 * KIB),
            (ResourceLimit::MallocHeapSize, 64 * KIB),
        ] {
            // Memory saved and nothing else: a driver that does not want to is as good.
            let _ = checked(|| CurrentContext::set_resource_limit(limit, bytes));
        }
        Ok(context)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// What looks after memory beside buffers.
    pub(super) fn guards(&self) -> &Guards {
        &self.0.guards
    }

    /// Makes the context current on this thread. Costs a comparison where it is already.
    pub(super) fn enter(&self) -> Result<(), CudaError> {
        if CURRENT.get() != self.0.id {
            checked(|| CurrentContext::set_current(&self.0.inner))?;
            CURRENT.set(self.0.id);
        }
        Ok(())
    }

    /// Has every launch noted from here on.
    pub fn watch_launches(&self) {
        self.0.watched.store(true, Ordering::Relaxed);
    }

    /// The kernels launched, or recorded to be, since this was last asked, in their order. Empty
    /// unless they are watched.
    #[must_use]
    pub fn launched(&self) -> Vec<&'static str> {
        // A panic between two locks leaves the list as it was.
        core::mem::take(&mut *self.0.launched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a launch, if somebody wants to know.
    pub(super) fn note_launch(&self, entry: &'static str) {
        if self.0.watched.load(Ordering::Relaxed) {
            self.0.launched.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
    }

    /// Memory of the device at this moment, other processes' included.
    ///
    /// # Errors
    ///
    /// What `cuMemGetInfo` answered.
    pub fn memory(&self) -> Result<Memory, CudaError> {
        self.enter()?;
        let (free, total) = checked(cust::memory::mem_get_info)?;
        Ok(Memory { free: free as u64, total: total as u64 })
    }

    /// Waits until the device has done everything that it was given; an error of a kernel shows
    /// here at the latest.
    ///
    /// # Errors
    ///
    /// What went wrong since the last time somebody asked.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.enter()?;
        checked(CurrentContext::synchronize)
    }

    /// `error`, with what there was and what was wanted if it says that memory is short.
    pub(super) fn refused(&self, error: CudaError, what: &'static str, needed: u64) -> CudaError {
        match error {
            CudaError::Call { call, code: Code::OUT_OF_MEMORY } => {
                let memory = self.memory().unwrap_or(Memory { free: 0, total: 0 });
                let Memory { free, total } = memory;
                CudaError::OutOfMemory { what, needed, free, total, call }
            }
            other => other,
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.0.device.name).field(&self.0.id).finish()
    }
}
