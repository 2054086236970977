//! [`DeviceBuffer`]: numbers in device memory. [`PinnedBuffer`]: numbers in host memory that the
//! device copies from and to without a detour.

#![allow(
    unsafe_code,
    reason = "hands memory to the driver, which cust does for its own types only"
)]

use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;
use cust::memory::DeviceBuffer as CustBuffer;
use tercet_kernels_ptx::contract::{DevicePtr, DevicePtrMut, Scalar};

use super::device::Context;
use super::error::{CudaError, checked, done};
use super::shim::{self, Ptr};
use super::stream::Stream;

/// `len` numbers in device memory, at an address that is a multiple of 256.
///
/// Copies without a stream wait for everything that was queued before them in any [`Stream`] of the
/// context, and what is queued after them waits for them.
pub struct DeviceBuffer<T: Pod> {
    // Before `context`, so that it goes first.
    inner: CustBuffer<u8>,
    /// Bytes before the first number, and as many behind the last.
    guard: usize,
    len: usize,
    context: Context,
    element: PhantomData<T>,
}

impl<T: Pod> DeviceBuffer<T> {
    /// Room for `len` numbers, with whatever was there before. `what` names it in an error.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`]: nothing is lost, the process can go on with less.
    ///
    /// # Panics
    ///
    /// When `len` numbers have more bytes than there are addresses.
    pub fn uninitialized(
        context: &Context,
        what: &'static str,
        len: usize,
    ) -> Result<Self, CudaError> {
        let bytes =
            len.checked_mul(size_of::<T>()).expect("sizes are checked before they get here");
        context.enter()?;
        let guard = context.guards().bytes();
        // SAFETY: every pattern of bits is a `u8` and, `T` being `Pod`, a `T`.
        let inner = checked(|| unsafe { CustBuffer::uninitialized(bytes + 2 * guard) })
            .map_err(|error| context.refused(error, what, bytes as u64))?;
        let buffer = Self { inner, guard, len, context: context.clone(), element: PhantomData };
        if guard > 0 {
            // SAFETY: as many bytes as that were just allocated on either side, and `drop` has
            // them forgotten.
            unsafe { context.guards().watch(buffer.address(0), what, bytes) }?;
        }
        Ok(buffer)
    }

    /// `len` zeros.
    ///
    /// # Errors
    ///
    /// As [`DeviceBuffer::uninitialized`].
    pub fn zeroed(context: &Context, what: &'static str, len: usize) -> Result<Self, CudaError> {
        let mut buffer = Self::uninitialized(context, what, len)?;
        buffer.fill(0)?;
        Ok(buffer)
    }

    /// A copy of `values`.
    ///
    /// # Errors
    ///
    /// As [`DeviceBuffer::uninitialized`].
    pub fn from_slice(
        context: &Context,
        what: &'static str,
        values: &[T],
    ) -> Result<Self, CudaError> {
        let mut buffer = Self::uninitialized(context, what, values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Numbers in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Its context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Address of number `index` in device memory.
    ///
    /// # Panics
    ///
    /// When `index` is beyond the end; the end itself is allowed.
    #[must_use]
    pub fn address(&self, index: usize) -> u64 {
        assert!(index <= self.len, "{index} of {} numbers", self.len);
        self.inner.as_device_ptr().as_raw() + (self.guard + index * size_of::<T>()) as u64
    }

    /// Copies `values` to the numbers from `at` on. Returns when they have been read.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    ///
    /// # Panics
    ///
    /// When they do not fit.
    pub fn write(&mut self, at: usize, values: &[T]) -> Result<(), CudaError> {
        let (address, bytes) = self.range(at, values.len());
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: `range` asserts that the bytes lie in this buffer, which is borrowed alone;
        // `values` holds as many and is read before the call returns.
        done(unsafe { shim::cuMemcpyHtoD_v2(address, source(values), bytes) })
    }

    /// Copies the numbers from `at` on into `values`.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn read(&self, at: usize, values: &mut [T]) -> Result<(), CudaError> {
        let (address, bytes) = self.range(at, values.len());
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        let target: Ptr = values.as_mut_ptr().cast();
        // SAFETY: `range` asserts that the bytes lie in this buffer; `values` has room for as
        // many, takes every pattern of bits, and is written before the call returns.
        done(unsafe { shim::cuMemcpyDtoH_v2(target, address, bytes) })
    }

    /// All numbers.
    ///
    /// # Errors
    ///
    /// As [`DeviceBuffer::read`].
    pub fn to_vec(&self) -> Result<Vec<T>, CudaError> {
        let mut values = vec![T::zeroed(); self.len];
        self.read(0, &mut values)?;
        Ok(values)
    }

    /// Sets every byte to `byte`, and waits for it.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    pub fn fill(&mut self, byte: u8) -> Result<(), CudaError> {
        let (address, bytes) = self.range(0, self.len);
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: the bytes are those of this buffer, which is borrowed alone.
        done(unsafe { shim::cuMemsetD8_v2(address, byte, bytes) })
    }

    /// Queues the setting of every byte to `byte`.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    pub fn fill_queued(&mut self, byte: u8, stream: &Stream) -> Result<(), CudaError> {
        let (address, bytes) = self.range(0, self.len);
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: the bytes are those of this buffer. Only the device touches them, and freeing
        // the buffer waits for what is queued.
        done(unsafe { shim::cuMemsetD8Async(address, byte, bytes, stream.raw()) })
    }

    /// Queues a copy of `len` numbers of `other`, from `from` on, to the numbers from `at` on.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    ///
    /// # Panics
    ///
    /// When they do not fit, or `other` has fewer.
    pub fn copy_queued(
        &mut self,
        at: usize,
        other: &Self,
        from: usize,
        len: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let (target, bytes) = self.range(at, len);
        let (source, _) = other.range(from, len);
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: both ranges lie in their buffers, which are two. Only the device touches them,
        // and freeing a buffer waits for what is queued.
        done(unsafe { shim::cuMemcpyDtoDAsync_v2(target, source, bytes, stream.raw()) })
    }

    /// Queues a copy of `values` to the numbers from `at` on. From pinned memory the copy runs
    /// beside the host; from other memory the driver may copy twice, and wait.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    ///
    /// # Panics
    ///
    /// When they do not fit.
    ///
    /// # Safety
    ///
    /// - `values` stays where it is, unchanged, until the copy is done.
    pub unsafe fn write_queued(
        &mut self,
        at: usize,
        values: &[T],
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let (address, bytes) = self.range(at, values.len());
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: `range` asserts that the bytes lie in this buffer; the caller keeps `values`
        // until they have been read.
        done(unsafe { shim::cuMemcpyHtoDAsync_v2(address, source(values), bytes, stream.raw()) })
    }

    /// Queues a copy of the numbers from `at` on into `values`.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    ///
    /// # Safety
    ///
    /// - `values` stays where it is, neither read nor written by the host, until the copy is done.
    pub unsafe fn read_queued(
        &self,
        at: usize,
        values: &mut [T],
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let (address, bytes) = self.range(at, values.len());
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        let target: Ptr = values.as_mut_ptr().cast();
        // SAFETY: `range` asserts that the bytes lie in this buffer; the caller keeps `values`
        // until they have been written.
        done(unsafe { shim::cuMemcpyDtoHAsync_v2(target, address, bytes, stream.raw()) })
    }

    /// Address and bytes of `len` numbers from `at` on.
    fn range(&self, at: usize, len: usize) -> (u64, usize) {
        assert!(
            at <= self.len && len <= self.len - at,
            "numbers {at}..{at}+{len} of a buffer of {}",
            self.len
        );
        (self.address(at), len * size_of::<T>())
    }
}

impl<T: Pod + Scalar> DeviceBuffer<T> {
    /// Where a kernel reads, from number `index` on. Carries neither length nor lifetime.
    ///
    /// # Panics
    ///
    /// When `index` is beyond the end.
    #[must_use]
    pub fn ptr(&self, index: usize) -> DevicePtr<T> {
        DevicePtr::new(self.address(index))
    }

    /// Where a kernel writes, from number `index` on. Carries neither length nor lifetime.
    ///
    /// # Panics
    ///
    /// When `index` is beyond the end.
    #[must_use]
    pub fn ptr_mut(&mut self, index: usize) -> DevicePtrMut<T> {
        DevicePtrMut::new(self.address(index))
    }
}

fn source<T: Pod>(values: &[T]) -> Ptr {
    values.as_ptr().cast::<c_void>().cast_mut()
}

impl<T: Pod> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        // `inner` frees the memory next, on this thread. What cannot be freed goes with the
        // context.
        let _ = self.context.enter();
        if self.guard > 0 {
            self.context.guards().forget(self.address(0));
        }
    }
}

impl<T: Pod> fmt::Debug for DeviceBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceBuffer")
            .field("address", &format_args!("{:#x}", self.address(0)))
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// What pinned memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinnedUse {
    /// The host writes and reads it.
    Both,
    /// The host only writes it, front to back: faster over the bus, very slow to read.
    Upload,
}

/// `len` numbers in pinned host memory. The device can also reach them where they are, at
/// [`PinnedBuffer::device_address`].
pub struct PinnedBuffer<T: Pod> {
    /// Dangling when there are no bytes.
    start: NonNull<T>,
    len: usize,
    context: Context,
}

// SAFETY: the memory belongs to this value alone, as a boxed slice's does.
unsafe impl<T: Pod + Send> Send for PinnedBuffer<T> {}
// SAFETY: as above; only `&mut` gives write access.
unsafe impl<T: Pod + Sync> Sync for PinnedBuffer<T> {}

impl<T: Pod> PinnedBuffer<T> {
    /// `len` zeros. `what` names it in an error. Slow: the system locks every page.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`] when the system gives no more locked memory.
    ///
    /// # Panics
    ///
    /// When `len` numbers have more bytes than there are addresses.
    pub fn zeroed(
        context: &Context,
        what: &'static str,
        len: usize,
        purpose: PinnedUse,
    ) -> Result<Self, CudaError> {
        const PORTABLE: u32 = 1;
        const DEVICE_MAP: u32 = 2;
        const WRITE_COMBINED: u32 = 4;
        const { assert!(align_of::<T>() <= 4096, "the driver gives whole pages") };
        let bytes =
            len.checked_mul(size_of::<T>()).expect("sizes are checked before they get here");
        let context = context.clone();
        if bytes == 0 {
            return Ok(Self { start: NonNull::dangling(), len, context });
        }
        context.enter()?;
        let flags = match purpose {
            PinnedUse::Both => PORTABLE | DEVICE_MAP,
            PinnedUse::Upload => PORTABLE | DEVICE_MAP | WRITE_COMBINED,
        };
        let mut start: Ptr = null_mut();
        // SAFETY: `start` is where the driver writes the address of the memory.
        done(unsafe { shim::cuMemHostAlloc((&raw mut start).cast(), bytes, flags) })
            .map_err(|error| context.refused(error, what, bytes as u64))?;
        let start = NonNull::new(start.cast::<T>()).expect("success comes with an address");
        // SAFETY: the driver has just given these bytes, and nobody else knows them.
        unsafe { start.as_ptr().cast::<u8>().write_bytes(0, bytes) };
        Ok(Self { start, len, context })
    }

    /// Address of number `index` for the device, which reads and writes host memory through it.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    ///
    /// # Panics
    ///
    /// When `index` is beyond the end, or there are no bytes.
    pub fn device_address(&self, index: usize) -> Result<u64, CudaError> {
        assert!(index < self.len && size_of::<T>() > 0, "{index} of {} numbers", self.len);
        self.context.enter()?;
        let mut address = 0_u64;
        let out: Ptr = (&raw mut address).cast();
        // SAFETY: the memory was allocated with the flag that maps it; `out` is the `u64` to be
        // written.
        done(unsafe { shim::cuMemHostGetDevicePointer_v2(out, self.start.as_ptr().cast(), 0) })?;
        Ok(address + (index * size_of::<T>()) as u64)
    }
}

impl PinnedBuffer<u64> {
    /// Number `index` as it is at this moment, though the device may be writing it.
    ///
    /// # Panics
    ///
    /// When `index` is beyond the end.
    #[must_use]
    pub fn observe(&self, index: usize) -> u64 {
        assert!(index < self.len, "{index} of {} numbers", self.len);
        // SAFETY: inside the allocation, as was just asserted.
        let place = unsafe { self.start.as_ptr().add(index) };
        // SAFETY: aligned, allocated as long as `self`, and written by this process through
        // `&mut self` alone; the device writes 64 bits at once.
        unsafe { AtomicU64::from_ptr(place) }.load(Ordering::Acquire)
    }
}

impl<T: Pod> Deref for PinnedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` numbers from the driver (none at a dangling address), zeroed when they
        // were allocated, ours until `drop`; `T` takes every pattern of bits.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for PinnedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as `deref`, and `self` is borrowed alone.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> Drop for PinnedBuffer<T> {
    fn drop(&mut self) {
        if self.len * size_of::<T>() > 0 && self.context.enter().is_ok() {
            // SAFETY: allocated in `zeroed`, not used again; the driver waits for copies.
            let _ = unsafe { shim::cuMemFreeHost(self.start.as_ptr().cast()) };
        }
    }
}

impl<T: Pod> fmt::Debug for PinnedBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}
