//! The driver's functions, found at run time: what `cust` calls, and the few newer ones it lacks.
//!
//! `cust` is made to be linked to `libcuda.so.1`, and a program linked to it does not start where
//! there is no NVIDIA driver. So this module *defines* the `cu*` functions. Each looks its namesake
//! up in the driver on first use and hands the call on; where there is no driver, or where it does
//! not know the function, the answer is an error code.
//!
//! `cust` takes answers into a closed enum of CUDA 11.4, and newer drivers have newer codes. So the
//! functions are declared with `u32` as their answer, [`last`] keeps the true one, and what `cust`
//! does not know it hears as 999 (unknown error).

#![allow(
    unsafe_code,
    reason = "defines C functions and calls those of a library found at run time"
)]

use core::cell::Cell;
use core::error::Error as _;
use core::ffi::c_void;
use std::sync::OnceLock;

use libloading::Library;

/// Any pointer or handle of the driver's interface.
pub(super) type Ptr = *mut c_void;

/// How a failed call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no driver.
    NoLibrary,
    /// The driver is older than the function.
    NoFunction,
    /// The driver's own code, as it came.
    Code(u32),
}

/// The latest call of this thread that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) call: &'static str,
    pub(super) why: Why,
}

thread_local! {
    static LAST: Cell<Option<Failed>> = const { Cell::new(None) };
}

/// Takes what [`Failed`] says of this thread; afterwards there is nothing to take.
pub(super) fn last() -> Option<Failed> {
    LAST.take()
}

/// `CUDA_ERROR_NO_DEVICE`: what `cust` hears where there is no driver.
const NO_DEVICE: u32 = 100;
/// `CUDA_ERROR_NOT_FOUND`: what `cust` hears where the driver lacks a function.
const NOT_FOUND: u32 = 500;
/// `CUDA_ERROR_UNKNOWN`: what `cust` hears for a code that it does not know.
const UNKNOWN: u32 = 999;

/// Whether `cudaError_enum` of cust_raw 0.11.3 has `code`.
///
/// Here and nowhere else it is decided what may become a value of that enum.
const fn cust_knows(code: u32) -> bool {
    matches!(
        code,
        0..=8
            | 34
            | 100..=102
            | 200..=202
            | 205..=224
            | 300..=304
            | 400..=401
            | 500
            | 600
            | 700..=705
            | 708..=720
            | 800..=809
            | 900..=911
            | 999
    )
}

/// The driver, or why it cannot be had. Never unloaded.
fn library() -> Result<&'static Library, &'static str> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let opened = LIBRARY.get_or_init(|| {
        // SAFETY: loading NVIDIA's driver runs its initialisers, which every CUDA program relies
        // on; the name is the one under which the driver's package installs it.
        unsafe { Library::new("libcuda.so.1") }.map_err(|error| reason(&error))
    });
    opened.as_ref().map_err(String::as_str)
}

/// The dynamic linker's own words, which `libloading` keeps one level down.
fn reason(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The dynamic linker's reason why there is no driver; `None` where there is one.
pub(super) fn no_library() -> Option<&'static str> {
    library().err()
}

/// Keeps the answer of `call` for [`last`]; returns what `cust` may hear.
fn settle(call: &'static str, why: Why) -> u32 {
    let told = match why {
        Why::Code(0) => return 0,
        Why::Code(code) if cust_knows(code) => code,
        Why::Code(_) => UNKNOWN,
        Why::NoLibrary => NO_DEVICE,
        Why::NoFunction => NOT_FOUND,
    };
    LAST.set(Some(Failed { call, why }));
    told
}

/// Defines the functions. Every name is looked up once.
macro_rules! driver_functions {
    ($(fn $name:ident($($argument:ident: $ty:ty),* $(,)?);)*) => {$(
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "the driver's name")]
        #[allow(
            clippy::too_many_arguments,
            clippy::missing_safety_doc,
            reason = "the driver's function, and its duties"
        )]
        pub(super) unsafe extern "C" fn $name($($argument: $ty),*) -> u32 {
            type Function = unsafe extern "C" fn($($ty),*) -> u32;
            static FUNCTION: OnceLock<Result<Function, Why>> = OnceLock::new();
            let name = stringify!($name);
            let function = FUNCTION.get_or_init(|| {
                let library = library().map_err(|_| Why::NoLibrary)?;
                // SAFETY: the table below repeats the prototype of `cuda.h`: every argument has
                // the same register class and width, the answer is an enum of 32 bits.
                let found = unsafe { library.get::<Function>(name.as_bytes()) };
                found.map(|function| *function).map_err(|_| Why::NoFunction)
            });
            match function {
                // SAFETY: the caller of `cuXxx` keeps that function's contract, and this is it.
                Ok(function) => settle(name, Why::Code(unsafe { function($($argument),*) })),
                Err(why) => settle(name, *why),
            }
        }
    )*};
}

// What cust 0.3.2 calls, as CUDA 11.4's cuda.h declares it, and what of later drivers the files
// beside this one use. Handles and pointers are `Ptr`, enums `u32`, device addresses `u64`.
driver_functions! {
    fn cuArray3DCreate_v2(handle: Ptr, allocate_array: Ptr);
    fn cuArray3DGetDescriptor_v2(array_descriptor: Ptr, array: Ptr);
    fn cuArrayDestroy(array: Ptr);
    fn cuCtxCreate_v2(pctx: Ptr, flags: u32, device: i32);
    fn cuCtxDestroy_v2(ctx: Ptr);
    fn cuCtxGetApiVersion(ctx: Ptr, version: Ptr);
    fn cuCtxGetCacheConfig(pconfig: Ptr);
    fn cuCtxGetCurrent(pctx: Ptr);
    fn cuCtxGetDevice(device: Ptr);
    fn cuCtxGetFlags(flags: Ptr);
    fn cuCtxGetLimit(pvalue: Ptr, limit: u32);
    fn cuCtxGetSharedMemConfig(config: Ptr);
    fn cuCtxGetStreamPriorityRange(least_priority: Ptr, greatest_priority: Ptr);
    fn cuCtxPopCurrent_v2(pctx: Ptr);
    fn cuCtxPushCurrent_v2(ctx: Ptr);
    fn cuCtxSetCacheConfig(config: u32);
    fn cuCtxSetCurrent(ctx: Ptr);
    fn cuCtxSetLimit(limit: u32, value: usize);
    fn cuCtxSetSharedMemConfig(config: u32);
    fn cuCtxSynchronize();
    fn cuDestroyExternalMemory(ext_mem: Ptr);
    fn cuDeviceGet(device: Ptr, ordinal: i32);
    fn cuDeviceGetAttribute(value: Ptr, attrib: u32, device: i32);
    fn cuDeviceGetCount(count: Ptr);
    fn cuDeviceGetName(name: Ptr, len: i32, device: i32);
    fn cuDeviceGetPCIBusId(pci_bus_id: Ptr, len: i32, device: i32);
    fn cuDevicePrimaryCtxRelease_v2(device: i32);
    fn cuDevicePrimaryCtxReset_v2(device: i32);
    fn cuDevicePrimaryCtxRetain(pctx: Ptr, device: i32);
    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32);
    fn cuDeviceTotalMem_v2(bytes: Ptr, device: i32);
    fn cuDriverGetVersion(driver_version: Ptr);
    fn cuEventCreate(event: Ptr, flags: u32);
    fn cuEventDestroy_v2(event: Ptr);
    fn cuEventElapsedTime(milliseconds: Ptr, start: Ptr, end: Ptr);
    fn cuEventQuery(event: Ptr);
    fn cuEventRecord(event: Ptr, stream: Ptr);
    fn cuEventSynchronize(event: Ptr);
    fn cuExternalMemoryGetMappedBuffer(dev_ptr: Ptr, ext_mem: Ptr, buffer_desc: Ptr);
    fn cuFuncGetAttribute(value: Ptr, attrib: u32, hfunc: Ptr);
    fn cuFuncSetAttribute(hfunc: Ptr, attrib: u32, value: i32);
    fn cuFuncSetCacheConfig(hfunc: Ptr, config: u32);
    fn cuFuncSetSharedMemConfig(hfunc: Ptr, config: u32);
    fn cuGetErrorString(error: u32, str: Ptr);
    fn cuGraphAddKernelNode(
        graph_node: Ptr, graph: Ptr, dependencies: Ptr, num_dependencies: usize, node_params: Ptr,
    );
    fn cuGraphCreate(graph: Ptr, flags: u32);
    fn cuGraphDebugDotPrint(graph: Ptr, path: Ptr, flags: u32);
    fn cuGraphDestroy(graph: Ptr);
    fn cuGraphExecDestroy(graph_exec: Ptr);
    fn cuGraphExecUpdate_v2(exec: Ptr, graph: Ptr, result_info: Ptr);
    fn cuGraphGetEdges(graph: Ptr, sources: Ptr, targets: Ptr, num_edges: Ptr);
    fn cuGraphGetNodes(graph: Ptr, nodes: Ptr, num_nodes: Ptr);
    fn cuGraphInstantiateWithFlags(exec: Ptr, graph: Ptr, flags: u64);
    fn cuGraphKernelNodeGetParams(node: Ptr, node_params: Ptr);
    fn cuGraphLaunch(graph_exec: Ptr, stream: Ptr);
    fn cuGraphNodeGetType(node: Ptr, kind: Ptr);
    fn cuGraphUpload(graph_exec: Ptr, stream: Ptr);
    fn cuImportExternalMemory(ext_mem_out: Ptr, mem_handle_desc: Ptr);
    fn cuInit(flags: u32);
    fn cuLaunchHostFunc(stream: Ptr, function: Ptr, user_data: Ptr);
    fn cuLaunchKernel(
        function: Ptr, grid_dim_x: u32, grid_dim_y: u32, grid_dim_z: u32, block_dim_x: u32,
        block_dim_y: u32, block_dim_z: u32, shared_mem_bytes: u32, stream: Ptr, kernel_params: Ptr,
        extra: Ptr,
    );
    fn cuLaunchKernelEx(config: Ptr, function: Ptr, kernel_params: Ptr, extra: Ptr);
    fn cuLinkAddData_v2(
        state: Ptr, kind: u32, data: Ptr, size: usize, name: Ptr, num_options: u32, options: Ptr,
        option_values: Ptr,
    );
    fn cuLinkComplete(state: Ptr, cubin_out: Ptr, size_out: Ptr);
    fn cuLinkCreate_v2(num_options: u32, options: Ptr, option_values: Ptr, state_out: Ptr);
    fn cuLinkDestroy(state: Ptr);
    fn cuMemAdvise(dev_ptr: u64, count: usize, advice: u32, device: i32);
    fn cuMemAlloc_v2(dptr: Ptr, bytesize: usize);
    fn cuMemAllocAsync(dptr: Ptr, bytesize: usize, stream: Ptr);
    fn cuMemAllocHost_v2(address: Ptr, bytesize: usize);
    fn cuMemAllocManaged(dptr: Ptr, bytesize: usize, flags: u32);
    fn cuMemcpy2D_v2(copy: Ptr);
    fn cuMemcpyAtoH_v2(dst_host: Ptr, src_array: Ptr, src_offset: usize, byte_count: usize);
    fn cuMemcpyDtoD_v2(dst_device: u64, src_device: u64, byte_count: usize);
    fn cuMemcpyDtoDAsync_v2(dst_device: u64, src_device: u64, byte_count: usize, stream: Ptr);
    fn cuMemcpyDtoH_v2(dst_host: Ptr, src_device: u64, byte_count: usize);
    fn cuMemcpyDtoHAsync_v2(dst_host: Ptr, src_device: u64, byte_count: usize, stream: Ptr);
    fn cuMemcpyHtoA_v2(dst_array: Ptr, dst_offset: usize, src_host: Ptr, byte_count: usize);
    fn cuMemcpyHtoD_v2(dst_device: u64, src_host: Ptr, byte_count: usize);
    fn cuMemcpyHtoDAsync_v2(dst_device: u64, src_host: Ptr, byte_count: usize, stream: Ptr);
    fn cuMemFree_v2(dptr: u64);
    fn cuMemFreeAsync(dptr: u64, stream: Ptr);
    fn cuMemFreeHost(address: Ptr);
    fn cuMemGetInfo_v2(free: Ptr, total: Ptr);
    fn cuMemHostAlloc(address: Ptr, bytesize: usize, flags: u32);
    fn cuMemHostGetDevicePointer_v2(pdptr: Ptr, address: Ptr, flags: u32);
    fn cuMemPrefetchAsync(dev_ptr: u64, count: usize, dst_device: i32, stream: Ptr);
    fn cuMemsetD16_v2(dst_device: u64, value: u16, count: usize);
    fn cuMemsetD16Async(dst_device: u64, value: u16, count: usize, stream: Ptr);
    fn cuMemsetD32_v2(dst_device: u64, value: u32, count: usize);
    fn cuMemsetD32Async(dst_device: u64, value: u32, count: usize, stream: Ptr);
    fn cuMemsetD8_v2(dst_device: u64, value: u8, count: usize);
    fn cuMemsetD8Async(dst_device: u64, value: u8, count: usize, stream: Ptr);
    fn cuModuleGetFunction(hfunc: Ptr, hmod: Ptr, name: Ptr);
    fn cuModuleGetGlobal_v2(dptr: Ptr, bytes: Ptr, hmod: Ptr, name: Ptr);
    fn cuModuleLoad(module: Ptr, fname: Ptr);
    fn cuModuleLoadData(module: Ptr, image: Ptr);
    fn cuModuleLoadDataEx(
        module: Ptr, image: Ptr, num_options: u32, options: Ptr, option_values: Ptr,
    );
    fn cuModuleUnload(hmod: Ptr);
    fn cuOccupancyAvailableDynamicSMemPerBlock(
        dynamic_smem_size: Ptr, function: Ptr, num_blocks: i32, block_size: i32,
    );
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        num_blocks: Ptr, function: Ptr, block_size: i32, dynamic_smem_size: usize,
    );
    fn cuOccupancyMaxPotentialBlockSize(
        min_grid_size: Ptr, block_size: Ptr, function: Ptr, block_size_to_dynamic_smem_size: Ptr,
        dynamic_smem_size: usize, block_size_limit: i32,
    );
    fn cuStreamBeginCapture_v2(stream: Ptr, mode: u32);
    fn cuStreamCreateWithPriority(stream: Ptr, flags: u32, priority: i32);
    fn cuStreamDestroy_v2(stream: Ptr);
    fn cuStreamEndCapture(stream: Ptr, graph: Ptr);
    fn cuStreamGetFlags(stream: Ptr, flags: Ptr);
    fn cuStreamGetPriority(stream: Ptr, priority: Ptr);
    fn cuStreamQuery(stream: Ptr);
    fn cuStreamSynchronize(stream: Ptr);
    fn cuStreamWaitEvent(stream: Ptr, event: Ptr, flags: u32);
    fn cuSurfObjectCreate(surf_object: Ptr, res_desc: Ptr);
    fn cuSurfObjectDestroy(surf_object: u64);
    fn cuSurfObjectGetResourceDesc(res_desc: Ptr, surf_object: u64);
    fn cuTexObjectCreate(tex_object: Ptr, res_desc: Ptr, tex_desc: Ptr, res_view_desc: Ptr);
    fn cuTexObjectDestroy(tex_object: u64);
    fn cuTexObjectGetResourceDesc(res_desc: Ptr, tex_object: u64);
    fn cuTexObjectGetResourceViewDesc(res_view_desc: Ptr, tex_object: u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cust_hears_only_what_it_knows() {
        // CUDA 13's codes that CUDA 11.4 does not have.
        for code in [36, 46, 47, 225, 226, 227, 402, 721, 810, 811, 812, 912, 915, 919, 1000] {
            assert_eq!(settle("cuInit", Why::Code(code)), UNKNOWN, "{code}");
            assert_eq!(last(), Some(Failed { call: "cuInit", why: Why::Code(code) }));
        }
        for code in [1, 2, 100, 209, 218, 222, 700, 719, 804, 911, 999] {
            assert_eq!(settle("cuInit", Why::Code(code)), code);
            assert_eq!(last(), Some(Failed { call: "cuInit", why: Why::Code(code) }));
        }
    }

    #[test]
    fn success_leaves_no_trace() {
        assert_eq!(settle("cuInit", Why::Code(0)), 0);
        assert_eq!(last(), None);
    }

    #[test]
    fn what_cust_may_hear_is_in_its_enum() {
        let source = include_str!("shim.rs");
        assert!(source.contains("fn cuInit(flags: u32);"), "the table is in this file");
        // Every value that `cust_knows` lets through, by cust's own list.
        let known: Vec<u32> = (0..2000).filter(|&code| cust_knows(code)).collect();
        assert_eq!(known.len(), 87, "{known:?}");
    }
}
