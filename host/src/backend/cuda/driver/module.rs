//! [`Module`]: compiled PTX. [`Function`]: a kernel of it, with the type of its argument block.

#![allow(unsafe_code, reason = "launches kernels, and asks for the compiler's log")]

use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::null_mut;
use std::ffi::CString;
use std::sync::Arc;

use cust::function::{BlockSize, FunctionAttribute};
use cust::module::Module as CustModule;
use tercet_kernels_ptx::contract::ArgumentBlock;
use tercet_kernels_ptx::ptx::Ptx;

use super::codes::Code;
use super::device::Context;
use super::error::{CudaError, DriverVersion, checked, done};
use super::shim::{self, Ptr};
use super::stream::Stream;

/// PTX, compiled by the driver for the device of a context.
#[derive(Debug, Clone)]
pub struct Module(Arc<Inner>);

struct Inner {
    // Before `context`, so that it goes first.
    inner: CustModule,
    name: String,
    context: Context,
}

impl Module {
    /// Compiles `ptx`, or takes it from the driver's cache (`~/.nv/ComputeCache`). The first time
    /// it takes some hundred milliseconds. `name` is for errors.
    ///
    /// # Errors
    ///
    /// [`CudaError::PtxTooNew`], [`CudaError::Ptx`] with what the compiler said.
    pub fn load(context: &Context, name: &str, ptx: &str) -> Result<Self, CudaError> {
        context.enter()?;
        let Ok(text) = CString::new(ptx) else {
            let log = "the text has a zero byte in it".into();
            return Err(CudaError::Ptx { kernel: name.into(), code: Code::INVALID_PTX, log });
        };
        // Not `JitOption::DetermineTargetFromContext`: cust gives it no value, and those of the
        // options behind it would shift. The driver compiles for the current device anyway.
        let inner = checked(|| CustModule::from_ptx_cstr(&text, &[]))
            .map_err(|error| refused(context, name, &text, error))?;
        Ok(Self(Arc::new(Inner { inner, name: name.into(), context: context.clone() })))
    }

    /// The kernel whose argument block is `B`.
    ///
    /// # Errors
    ///
    /// [`CudaError::Ptx`] when the module has no such kernel.
    pub fn function<B: ArgumentBlock>(&self) -> Result<Function<B>, CudaError> {
        self.entry(B::SPEC.entry)
    }

    /// The kernel `entry`, one of those whose argument block is `B`.
    ///
    /// # Errors
    ///
    /// [`CudaError::Ptx`] when the module has no such kernel.
    ///
    /// # Panics
    ///
    /// When no kernel of that name takes a `B`.
    pub fn entry<B: ArgumentBlock>(&self, entry: &str) -> Result<Function<B>, CudaError> {
        let spec = B::SPECS.iter().find(|spec| spec.entry == entry);
        let spec = spec.unwrap_or_else(|| panic!("`{entry}` takes another block"));
        let (entry, threads) = (spec.entry, spec.threads);
        let Inner { inner, name, context } = &*self.0;
        context.enter()?;
        let function = checked(|| inner.get_function(entry)).map_err(|error| match error {
            CudaError::Call { code: code @ Code::NOT_FOUND, .. } => CudaError::Ptx {
                kernel: name.clone(),
                code,
                log: format!("there is no entry `{entry}` in it"),
            },
            other => other,
        })?;
        let ask = |attribute| {
            let value = checked(|| function.get_attribute(attribute))?;
            Ok::<_, CudaError>(u32::try_from(value).unwrap_or(0))
        };
        let attributes = FunctionAttributes {
            registers: ask(FunctionAttribute::NumRegisters)?,
            local_bytes: ask(FunctionAttribute::LocalSizeBytes)?,
            shared_bytes: ask(FunctionAttribute::SharedMemorySizeBytes)?,
            threads_max: ask(FunctionAttribute::MaxThreadsPerBlock)?,
            ptx_version: ask(FunctionAttribute::PtxVersion)?,
            binary_version: ask(FunctionAttribute::BinaryVersion)?,
        };
        let raw = function.to_raw().cast();
        Ok(Function { raw, entry, threads, attributes, module: self.clone(), block: PhantomData })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // `inner` is unloaded next, on this thread. What cannot be goes with the context.
        let _ = self.context.enter();
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Makes the most of a refusal: which version is missing, or what the compiler complains about.
fn refused(context: &Context, name: &str, text: &CString, error: CudaError) -> CudaError {
    let code = match error {
        CudaError::Call { code: Code::OUT_OF_MEMORY, .. } => {
            return context.refused(error, "a kernel", text.as_bytes().len() as u64);
        }
        CudaError::Call { code, .. } if !code.is_sticky() => code,
        other => return other,
    };
    let kernel = name.to_owned();
    let head = text.to_str().ok().and_then(|text| Ptx::parse(text).ok());
    if let (Code::UNSUPPORTED_PTX_VERSION, Some(head)) = (code, head) {
        return CudaError::PtxTooNew {
            kernel,
            ptx: head.version().to_string(),
            needed: DriverVersion::for_ptx(head.version().major, head.version().minor),
            driver: context.device().driver,
            code,
        };
    }
    CudaError::Ptx { kernel, code, log: compiler_log(text) }
}

/// What the compiler says to `text`: loads it once more, with a place for the log, which cust has
/// no option for.
fn compiler_log(text: &CString) -> String {
    /// `CU_JIT_ERROR_LOG_BUFFER` and the option for its size.
    const OPTIONS: [u32; 2] = [5, 6];
    const BYTES: usize = 8192;
    let mut options = OPTIONS;
    let mut log = vec![0_u8; BYTES];
    // The driver wants numbers in the place of pointers, by value.
    let mut values: [Ptr; 2] =
        [log.as_mut_ptr().cast(), core::ptr::without_provenance_mut::<c_void>(BYTES)];
    let mut module: Ptr = null_mut();
    // SAFETY: the text ends with a zero; there are two options with two values; the log has the
    // bytes that the second value states, and outlives the call.
    let answer = unsafe {
        shim::cuModuleLoadDataEx(
            (&raw mut module).cast(),
            text.as_ptr().cast::<c_void>().cast_mut(),
            2,
            options.as_mut_ptr().cast(),
            values.as_mut_ptr().cast(),
        )
    };
    if answer == 0 {
        // SAFETY: just loaded, and known to nobody else.
        let _ = unsafe { shim::cuModuleUnload(module) };
        return "the second attempt succeeded".into();
    }
    let said = log.split(|&byte| byte == 0).next().unwrap_or(&[]);
    String::from_utf8_lossy(said).into_owned()
}

/// What the compiler made of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionAttributes {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of local memory of a thread: stack and spilled registers.
    pub local_bytes: u32,
    /// Bytes of shared memory that a block has without asking.
    pub shared_bytes: u32,
    /// Threads of a block at most.
    pub threads_max: u32,
    /// Target of the PTX: 80 for `sm_80`.
    pub ptx_version: u32,
    /// The device that it was compiled for: 90 for 9.0.
    pub binary_version: u32,
}

/// How a kernel is launched. The threads of a block are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    grid: [u32; 3],
    shared_bytes: u32,
    cluster: u32,
    dependent: bool,
    cooperative: bool,
}

impl Launch {
    /// `x · y · z` blocks, without anything special.
    #[must_use]
    pub const fn grid(x: u32, y: u32, z: u32) -> Self {
        Self { grid: [x, y, z], shared_bytes: 0, cluster: 1, dependent: false, cooperative: false }
    }

    /// Gives each block so many bytes of dynamic shared memory. Beyond 48 KiB the function must
    /// have been told ([`Function::allow_shared`]).
    #[must_use]
    pub const fn shared(self, bytes: u32) -> Self {
        Self { shared_bytes: bytes, ..self }
    }

    /// Lets it begin while the kernel before it in the stream still ends (programmatic dependent
    /// launch, compute capability 9.0): the kernel itself waits with `griddepcontrol.wait`.
    #[must_use]
    pub const fn dependent(self) -> Self {
        Self { dependent: true, ..self }
    }

    /// Groups the blocks along x by `blocks` (clusters, compute capability 9.0).
    #[must_use]
    pub const fn cluster(self, blocks: u32) -> Self {
        Self { cluster: blocks, ..self }
    }

    /// Has all blocks resident at once, or fails: a barrier over the grid needs it.
    #[must_use]
    pub const fn cooperative(self) -> Self {
        Self { cooperative: true, ..self }
    }
}

/// A kernel that takes an argument block `B`.
#[derive(Debug, Clone)]
pub struct Function<B: ArgumentBlock> {
    raw: Ptr,
    entry: &'static str,
    /// Of a block.
    threads: u32,
    attributes: FunctionAttributes,
    /// Keeps the code loaded.
    module: Module,
    block: PhantomData<fn(B)>,
}

// SAFETY: a function's handle may be used from any thread, and by several at once: CUDA's driver
// interface is thread-safe, and the module that it points into is kept.
unsafe impl<B: ArgumentBlock> Send for Function<B> {}
// SAFETY: as above, the handle may be used by several threads at once.
unsafe impl<B: ArgumentBlock> Sync for Function<B> {}

/// `CUlaunchAttribute`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Attribute {
    id: u32,
    pad: u32,
    /// The first of the 64 bytes of a union.
    value: [u32; 16],
}

impl Attribute {
    const COOPERATIVE: u32 = 2;
    const CLUSTER_DIMENSION: u32 = 4;
    const PROGRAMMATIC_STREAM_SERIALIZATION: u32 = 6;

    fn new(id: u32, first: [u32; 3]) -> Self {
        let mut value = [0; 16];
        value[..3].copy_from_slice(&first);
        Self { id, pad: 0, value }
    }
}

/// `CUlaunchConfig`.
#[repr(C)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: Ptr,
    attributes: *mut Attribute,
    attribute_count: u32,
}

// The sizes in CUDA 12's cuda.h on a 64-bit system.
const _: () = assert!(size_of::<Attribute>() == 72 && size_of::<LaunchConfig>() == 56);

impl<B: ArgumentBlock> Function<B> {
    /// What the compiler made of it.
    #[must_use]
    pub fn attributes(&self) -> FunctionAttributes {
        self.attributes
    }

    /// Allows launches with up to `bytes` of dynamic shared memory, beyond the 48 KiB that every
    /// kernel may have; the device's limit is
    /// [`shared_per_block_max`](super::Device::shared_per_block_max).
    ///
    /// # Errors
    ///
    /// What the driver answered: INVALID_VALUE beyond the limit.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), CudaError> {
        /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
        const MAX_DYNAMIC_SHARED: u32 = 8;
        self.module.0.context.enter()?;
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: the function's module is kept by `self`.
        done(unsafe { shim::cuFuncSetAttribute(self.raw, MAX_DYNAMIC_SHARED, bytes) })
    }

    /// Has multiprocessors give as much of their fast memory as they can to blocks, whatever this
    /// kernel takes. Where kernels overlap ([`Launch::dependent`]) they should agree on it: a
    /// multiprocessor divides its memory anew only when it is empty.
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn prefer_shared(&self) -> Result<(), CudaError> {
        /// `CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`, in percent.
        const PREFERRED_SHARED: u32 = 9;
        self.module.0.context.enter()?;
        // SAFETY: the function's module is kept by `self`.
        done(unsafe { shim::cuFuncSetAttribute(self.raw, PREFERRED_SHARED, 100) })
    }

    /// Blocks with `shared_bytes` of dynamic shared memory that a multiprocessor can have resident:
    /// 0 where it has not as much, or the function was not told ([`Function::allow_shared`]).
    ///
    /// # Errors
    ///
    /// What the driver answered.
    pub fn blocks_per_multiprocessor(&self, shared_bytes: u32) -> Result<u32, CudaError> {
        let Inner { inner, context, .. } = &*self.module.0;
        context.enter()?;
        checked(|| {
            inner.get_function(self.entry)?.max_active_blocks_per_multiprocessor(
                BlockSize::x(self.threads),
                shared_bytes as usize,
            )
        })
    }

    /// Queues the kernel. `args` is copied before this returns.
    ///
    /// # Errors
    ///
    /// What the driver answered; errors of earlier work as well. Those of the kernel itself come
    /// later, from whatever waits for it.
    ///
    /// # Safety
    ///
    /// - Grid and arguments keep the preconditions that the contract states for the kernel: every
    ///   address is that of device memory of this context, with the length and the alignment that
    ///   go with the numbers beside it.
    /// - That memory is not freed, read or written by anybody else in a way that conflicts, until
    ///   the kernel is done.
    pub unsafe fn launch(
        &self,
        launch: Launch,
        stream: &Stream,
        args: &B,
    ) -> Result<(), CudaError> {
        let Launch { grid, shared_bytes, cluster, dependent, cooperative } = launch;
        self.module.0.context.enter()?;
        self.module.0.context.note_launch(self.entry);
        let mut attributes = [Attribute::new(0, [0; 3]); 3];
        let wanted = [
            (dependent, Attribute::PROGRAMMATIC_STREAM_SERIALIZATION, [1, 0, 0]),
            (cooperative, Attribute::COOPERATIVE, [1, 0, 0]),
            (cluster > 1, Attribute::CLUSTER_DIMENSION, [cluster, 1, 1]),
        ];
        let mut count = 0;
        for (_, id, value) in wanted.into_iter().filter(|(is_wanted, ..)| *is_wanted) {
            attributes[count as usize] = Attribute::new(id, value);
            count += 1;
        }
        let block = [self.threads, 1, 1];
        // The driver reads the one parameter through the one pointer.
        let mut parameters: [Ptr; 1] = [core::ptr::from_ref(args).cast::<c_void>().cast_mut()];
        let parameters: Ptr = parameters.as_mut_ptr().cast();
        if count == 0 {
            // SAFETY: the module is kept by `self`, the stream by its borrow. The kernel's one
            // parameter is a `B`: `Module::function` found it by the name in B's contract, and
            // the contract's tests compare the block with the PTX. The rest is the caller's.
            return done(unsafe {
                shim::cuLaunchKernel(
                    self.raw,
                    grid[0],
                    grid[1],
                    grid[2],
                    block[0],
                    block[1],
                    block[2],
                    shared_bytes,
                    stream.raw(),
                    parameters,
                    null_mut(),
                )
            });
        }
        let mut config = LaunchConfig {
            grid,
            block,
            shared_bytes,
            stream: stream.raw(),
            attributes: attributes.as_mut_ptr(),
            attribute_count: count,
        };
        let config: Ptr = (&raw mut config).cast();
        // SAFETY: as above; `config` and its attributes have the layout of CUDA 12's cuda.h, and
        // outlive the call.
        done(unsafe { shim::cuLaunchKernelEx(config, self.raw, parameters, null_mut()) })
    }
}
