//! A stand-in for `libcuda.so.1`: one GPU in software, which fails where it is told to.
//!
//! Device memory is host memory. It loads every kernel of ours, and runs four: `embed`, by its
//! definition, from tables as they are stored; `choose`, where it takes the likeliest;
//! `read_memory` and `tile_weights`, which here do nothing. Launches of others are not supported
//! (801), unless they are to do nothing. The environment says what it is like and what goes wrong:
//!
//! | variable | meaning |
//! |---|---|
//! | `FAKE_CUDA_VERSION` | version of the driver, 12040 unless said |
//! | `FAKE_CUDA_CAPABILITY` | 90 for 9.0, which it is unless said |
//! | `FAKE_CUDA_MEMORY` | bytes of the device, 1 GiB unless said |
//! | `FAKE_CUDA_FAIL` | `cuXxx=CODE`, or `cuXxx=CODE@N` for the N-th call; several with commas |
//! | `FAKE_CUDA_KERNEL` | `wrong`: `embed`'s last number is off by one; `idle`: others do nothing |
//! | `FAKE_CUDA_MULTIPROCESSORS` | how many it has, 4 unless said |
//! | `FAKE_CUDA_RESIDENT` | blocks that a multiprocessor has room for, 1 unless said |
//! | `FAKE_CUDA_LAUNCHES` | file in which each launch leaves a line: entry, and how |
//! | `FAKE_CUDA_ALLOCATIONS` | file in which each allocation leaves a line: the call |

#![allow(unsafe_code, reason = "it is a C library")]
#![allow(non_snake_case, reason = "the driver's names")]
#![allow(
    clippy::missing_safety_doc,
    clippy::missing_panics_doc,
    reason = "the driver's functions, and their duties"
)]
#![allow(unreachable_pub, reason = "exported by their C names")]
#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod layers;

use core::alloc::Layout;
use core::ffi::{CStr, c_char, c_void};
use core::slice::{from_raw_parts, from_raw_parts_mut};
use std::alloc::{alloc, dealloc};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Mutex;

use half::{bf16, f16};
use tercet_kernels_ptx::contract::{
    ArgumentBlock, ChooseArgs, DecodeLayersArgs, EmbedArgs, KERNELS, ReadMemoryArgs,
};

type Ptr = *mut c_void;

const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_CONTEXT: u32 = 201;
const INVALID_PTX: u32 = 218;
const UNSUPPORTED_PTX_VERSION: u32 = 222;
const NOT_FOUND: u32 = 500;
const NOT_SUPPORTED: u32 = 801;

/// What is allocated, and how often each function was called.
#[derive(Default)]
struct State {
    memory: HashMap<u64, usize>,
    calls: HashMap<&'static str, u32>,
    context: bool,
    /// Launches recorded between the begin and the end of a capture.
    capture: Option<Vec<Launch>>,
}

/// A kernel with its arguments.
#[derive(Clone)]
enum Launch {
    Embed { args: EmbedArgs, rows: usize },
    Choose { args: ChooseArgs, rows: usize },
    ReadMemory(ReadMemoryArgs),
    Layers { args: DecodeLayersArgs, entry: &'static str, how: How },
    Idle,
}

/// `CUlaunchAttribute` of cuda.h.
#[repr(C)]
struct Attribute {
    id: u32,
    pad: u32,
    value: [u64; 8],
}

/// `CUlaunchConfig` of cuda.h.
#[repr(C)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: Ptr,
    attributes: *const Attribute,
    attribute_count: u32,
}

const _: () = assert!(size_of::<Attribute>() == 72 && size_of::<LaunchConfig>() == 56);

/// A launch beside its arguments.
#[derive(Clone)]
struct How {
    grid: [u32; 3],
    threads: [u32; 3],
    shared: u32,
    attributes: Vec<u32>,
    blocks_of_cluster: u32,
}

impl How {
    const COOPERATIVE: u32 = 2;
    const CLUSTER_DIMENSION: u32 = 4;

    fn of(config: Ptr) -> Self {
        // SAFETY: the caller's `CUlaunchConfig`.
        let config = unsafe { &*(config as *const LaunchConfig) };
        let count = config.attribute_count as usize;
        let attributes = if count == 0 {
            &[]
        } else {
            // SAFETY: the caller states that there are so many.
            unsafe { from_raw_parts(config.attributes, count) }
        };
        let cluster = attributes.iter().find(|attribute| attribute.id == Self::CLUSTER_DIMENSION);
        let blocks_of_cluster = cluster.map_or(1, |cluster| cluster.value[0] as u32);
        let attributes = attributes.iter().map(|attribute| attribute.id).collect();
        let &LaunchConfig { grid, block, shared, .. } = config;
        Self { grid, threads: block, shared, attributes, blocks_of_cluster }
    }

    fn is_cooperative(&self) -> bool {
        self.attributes.contains(&Self::COOPERATIVE)
    }
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

fn with<R>(work: impl FnOnce(&mut State) -> R) -> R {
    work(STATE.lock().unwrap().get_or_insert_default())
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// The code with which this call of `name` is to fail.
fn planned(name: &'static str) -> Option<u32> {
    let call = with(|state| {
        let calls = state.calls.entry(name).or_default();
        *calls += 1;
        *calls
    });
    let plan = std::env::var("FAKE_CUDA_FAIL").ok()?;
    plan.split(',').find_map(|entry| {
        let (function, how) = entry.split_once('=')?;
        let (code, at) = how.split_once('@').map_or((how, None), |(code, at)| (code, Some(at)));
        let hit = function == name && at.is_none_or(|at| at.parse() == Ok(call));
        hit.then(|| code.parse().unwrap())
    })
}

/// Defines functions of the driver: a planned failure, or the body's answer.
macro_rules! driver {
    ($(fn $name:ident($($argument:ident: $ty:ty),*) $body:block)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of cuda.h.")]
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments, reason = "the driver's function")]
        pub unsafe extern "C" fn $name($($argument: $ty),*) -> u32 {
            if let Some(code) = planned(stringify!($name)) {
                return code;
            }
            $body
        }
    )*};
}

/// Writes an answer through a pointer of the caller.
fn put<T>(target: Ptr, value: T) -> u32 {
    // SAFETY: the caller of the driver's function gives room for what it asks for.
    unsafe { target.cast::<T>().write_unaligned(value) };
    0
}

/// A handle that is not null and means nothing.
const HANDLE: usize = 0x1000;

fn text(target: Ptr, text: &CStr, len: i32) -> u32 {
    let bytes = text.to_bytes_with_nul();
    assert!(bytes.len() <= len as usize, "room for the name");
    // SAFETY: the caller says that there are `len` bytes.
    unsafe { target.cast::<u8>().copy_from(bytes.as_ptr(), bytes.len()) };
    0
}

fn device_memory() -> usize {
    number("FAKE_CUDA_MEMORY", 1 << 30)
}

fn used() -> usize {
    with(|state| state.memory.values().sum())
}

fn memory_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 256).unwrap()
}

/// Whether all of the range was allocated, as a memory checker would ask.
fn is_device(address: u64, bytes: usize) -> bool {
    with(|state| {
        let inside = |(start, len): (&u64, &usize)| {
            *start <= address && address + bytes as u64 <= *start + *len as u64
        };
        state.memory.iter().any(inside)
    })
}

fn copy(target: Ptr, source: Ptr, device: u64, bytes: usize) -> u32 {
    if !with(|state| state.context) {
        return INVALID_CONTEXT;
    }
    if !is_device(device, bytes) {
        return INVALID_VALUE;
    }
    // SAFETY: one side was just found to be ours, the other is the caller's.
    unsafe { target.cast::<u8>().copy_from(source.cast(), bytes) };
    0
}

fn fill(address: u64, byte: u8, bytes: usize) -> u32 {
    if !is_device(address, bytes) {
        return INVALID_VALUE;
    }
    // SAFETY: the range was just found to be allocated.
    unsafe { (address as *mut u8).write_bytes(byte, bytes) };
    0
}

fn attribute(which: u32) -> i32 {
    let capability = number("FAKE_CUDA_CAPABILITY", 90) as i32;
    match which {
        13 => 1_500_000,
        16 => number("FAKE_CUDA_MULTIPROCESSORS", 4) as i32,
        36 => 2_000_000,
        37 => 512,
        38 => 50 << 20,
        39 => 2048,
        75 => capability / 10,
        76 => capability % 10,
        81 => 228 << 10,
        97 => 227 << 10,
        _ => 0,
    }
}

/// `.version` of PTX, as the driver would need it.
fn ptx_needs(ptx: &str) -> Option<u32> {
    let version = ptx.lines().find_map(|line| line.trim().strip_prefix(".version "))?;
    let (major, minor) = version.trim().split_once('.')?;
    Some((major.parse::<u32>().ok()? + 4) * 1000 + minor.parse::<u32>().ok()? * 10)
}

/// Numbers of device memory, for a kernel.
fn numbers<'a, T>(address: u64, len: usize) -> &'a mut [T] {
    assert!(is_device(address, len * size_of::<T>()), "a kernel went out of bounds");
    // SAFETY: allocated, as was just asserted; the one thread that launches is the one that uses.
    unsafe { from_raw_parts_mut(address as *mut T, len) }
}

/// A handle that stands for kernel `number` of the contract.
fn handle(number: usize) -> usize {
    HANDLE + number
}

/// The kernel that a handle stands for.
fn entry(handle: Ptr) -> &'static str {
    KERNELS[handle as usize - HANDLE].entry
}

impl Launch {
    /// What the kernel does, by its definition.
    fn run(&self) {
        match self {
            Self::Embed { args, rows } => embed(args, *rows),
            Self::ReadMemory(args) => {
                let _ = numbers::<u32>(args.words.address(), 4 * args.vectors as usize);
            }
            Self::Choose { args, rows } => choose(args, *rows),
            Self::Layers { args, entry, how } => layers::look(args, entry, how.grid, how.shared),
            Self::Idle => {}
        }
    }
}

fn embed(args: &EmbedArgs, rows: usize) {
    let cols = args.cols as usize;
    let tokens = numbers::<u32>(args.tokens.address(), rows);
    let positions = numbers::<u32>(args.positions.address(), rows);
    let hidden = numbers::<f32>(args.hidden.address(), rows * cols);
    for (row, out) in hidden.chunks_exact_mut(cols).enumerate() {
        if positions[row] == EmbedArgs::NONE {
            out.fill(0.0);
            continue;
        }
        let first = tokens[row] as usize * cols;
        let element = |size: usize| args.table.address() + (first * size) as u64;
        match args.table_form {
            EmbedArgs::F32 => out.copy_from_slice(numbers(element(4), cols)),
            EmbedArgs::F16 => {
                let halves = numbers::<u16>(element(2), cols).iter();
                out.iter_mut().zip(halves).for_each(|(x, &h)| *x = f16::from_bits(h).to_f32());
            }
            _ => {
                let halves = numbers::<u16>(element(2), cols).iter();
                out.iter_mut().zip(halves).for_each(|(x, &h)| *x = bf16::from_bits(h).to_f32());
            }
        }
    }
    if std::env::var("FAKE_CUDA_KERNEL").as_deref() == Ok("wrong") {
        hidden[rows * cols - 1] += 1.0;
    }
}

/// The likeliest token of each row, of equals the first.
fn choose(args: &ChooseArgs, rows: usize) {
    let vocab = args.vocab as usize;
    let chosen = numbers::<u32>(args.chosen.address(), rows);
    let faults = numbers::<u32>(args.faults.address(), rows);
    let logits = numbers::<f32>(args.logits.address(), rows * vocab);
    for (row, logits) in logits.chunks_exact(vocab).enumerate() {
        let fault = logits.iter().position(|logit| !logit.is_finite());
        faults[row] = fault.map_or(ChooseArgs::NONE, |token| token as u32);
        let better = |best, token| if logits[token] > logits[best] { token } else { best };
        chosen[row] = if fault.is_some() { 0 } else { (0..vocab).fold(0, better) as u32 };
    }
    if args.position.address() != 0 {
        numbers::<u32>(args.position.address(), 1)[0] = args.next;
    }
    if args.told.address() != 0 {
        let fault = (faults[0] != ChooseArgs::NONE).then(|| ChooseArgs::FAULT + faults[0]);
        let told = args.told.address() as *mut [u32; 2];
        // SAFETY: two words of host memory, which who launches looks at only later.
        unsafe { told.write([fault.unwrap_or(chosen[0]), args.serial]) };
    }
}

driver! {
    fn cuDriverGetVersion(version: Ptr) {
        put(version, number("FAKE_CUDA_VERSION", 12040) as i32)
    }
    fn cuInit(_flags: u32) { 0 }
    fn cuGetErrorString(_error: u32, text: Ptr) { put(text, c"fake".as_ptr()) }
    fn cuDeviceGetCount(count: Ptr) { put(count, 1_i32) }
    fn cuDeviceGet(device: Ptr, _ordinal: i32) { put(device, 0_i32) }
    fn cuDeviceGetName(name: Ptr, len: i32, _device: i32) { text(name, c"Fake GPU", len) }
    fn cuDeviceGetPCIBusId(name: Ptr, len: i32, _device: i32) {
        text(name, c"0000:1A:00.0", len)
    }
    fn cuDeviceGetAttribute(value: Ptr, which: u32, _device: i32) { put(value, attribute(which)) }
    fn cuDeviceTotalMem_v2(bytes: Ptr, _device: i32) { put(bytes, device_memory()) }

    fn cuDevicePrimaryCtxRetain(context: Ptr, _device: i32) { put(context, HANDLE) }
    fn cuDevicePrimaryCtxRelease_v2(_device: i32) { 0 }
    fn cuCtxSetCurrent(context: Ptr) {
        with(|state| state.context = !context.is_null());
        0
    }
    fn cuCtxSetLimit(_limit: u32, _value: usize) { 0 }
    fn cuCtxSynchronize() { 0 }
    fn cuMemGetInfo_v2(free: Ptr, total: Ptr) {
        put(free, device_memory() - used());
        put(total, device_memory())
    }

    fn cuMemAlloc_v2(address: Ptr, bytes: usize) {
        leave("FAKE_CUDA_ALLOCATIONS", || "cuMemAlloc".into());
        if bytes > device_memory() - used() {
            return OUT_OF_MEMORY;
        }
        // SAFETY: `cust` allocates no zero bytes.
        let memory = unsafe { alloc(memory_layout(bytes)) } as u64;
        with(|state| state.memory.insert(memory, bytes));
        put(address, memory)
    }
    fn cuMemFree_v2(address: u64) {
        let Some(bytes) = with(|state| state.memory.remove(&address)) else {
            return INVALID_VALUE;
        };
        // SAFETY: allocated above with this layout, and just taken out of the table.
        unsafe { dealloc(address as *mut u8, memory_layout(bytes)) };
        0
    }
    fn cuMemHostAlloc(address: Ptr, bytes: usize, _flags: u32) {
        leave("FAKE_CUDA_ALLOCATIONS", || "cuMemHostAlloc".into());
        // SAFETY: the caller allocates no zero bytes.
        put(address, unsafe { alloc(memory_layout(bytes + 256)) })
    }
    fn cuMemFreeHost(_address: Ptr) { 0 } // the process is short
    fn cuMemHostGetDevicePointer_v2(device: Ptr, host: Ptr, _flags: u32) { put(device, host) }
    fn cuMemcpyHtoD_v2(target: u64, source: Ptr, bytes: usize) {
        copy(target as Ptr, source, target, bytes)
    }
    fn cuMemcpyDtoH_v2(target: Ptr, source: u64, bytes: usize) {
        copy(target, source as Ptr, source, bytes)
    }
    fn cuMemcpyHtoDAsync_v2(target: u64, source: Ptr, bytes: usize, _stream: Ptr) {
        copy(target as Ptr, source, target, bytes)
    }
    fn cuMemcpyDtoHAsync_v2(target: Ptr, source: u64, bytes: usize, _stream: Ptr) {
        copy(target, source as Ptr, source, bytes)
    }
    fn cuMemcpyDtoDAsync_v2(target: u64, source: u64, bytes: usize, _stream: Ptr) {
        if !is_device(source, bytes) {
            return INVALID_VALUE;
        }
        copy(target as Ptr, source as Ptr, target, bytes)
    }
    fn cuMemsetD8_v2(target: u64, byte: u8, bytes: usize) { fill(target, byte, bytes) }
    fn cuMemsetD8Async(target: u64, byte: u8, bytes: usize, _stream: Ptr) {
        fill(target, byte, bytes)
    }

    fn cuStreamCreateWithPriority(stream: Ptr, _flags: u32, _priority: i32) {
        put(stream, HANDLE)
    }
    fn cuStreamDestroy_v2(_stream: Ptr) { 0 }
    fn cuStreamSynchronize(_stream: Ptr) { 0 }
    fn cuStreamQuery(_stream: Ptr) { 0 }
    fn cuStreamWaitEvent(_stream: Ptr, _event: Ptr, _flags: u32) { 0 }
    fn cuEventCreate(event: Ptr, _flags: u32) { put(event, HANDLE) }
    fn cuEventDestroy_v2(_event: Ptr) { 0 }
    fn cuEventRecord(_event: Ptr, _stream: Ptr) { 0 }
    fn cuEventQuery(_event: Ptr) { 0 }
    fn cuEventSynchronize(_event: Ptr) { 0 }
    fn cuEventElapsedTime(milliseconds: Ptr, _start: Ptr, _end: Ptr) { put(milliseconds, 1.5_f32) }

    fn cuModuleLoadDataEx(module: Ptr, image: Ptr, count: u32, options: Ptr, values: Ptr) {
        // SAFETY: PTX ends with a zero.
        let ptx = unsafe { CStr::from_ptr(image as *const c_char) }.to_str().unwrap();
        // SAFETY: the caller says that there are `count` of each.
        let options = unsafe { from_raw_parts(options as *const u32, count as usize) };
        if ptx_needs(ptx).is_some_and(|needed| needed as usize > number("FAKE_CUDA_VERSION", 12040)) {
            return UNSUPPORTED_PTX_VERSION;
        }
        let holds = |entry: &str| ptx.contains(&format!(".entry {entry}("));
        let Some(number) = KERNELS.iter().position(|spec| holds(spec.entry)) else {
            if let Some(at) = options.iter().position(|&option| option == 5) {
                // SAFETY: the caller says that there are `count` values, one for each option.
                let values = unsafe { from_raw_parts(values as *const Ptr, count as usize) };
                text(values[at], c"ptxas fatal: nothing in here that I know", 4096);
            }
            return INVALID_PTX;
        };
        put(module, handle(number))
    }
    fn cuModuleUnload(_module: Ptr) { 0 }
    fn cuModuleGetFunction(function: Ptr, module: Ptr, name: Ptr) {
        // SAFETY: names end with a zero.
        let name = unsafe { CStr::from_ptr(name as *const c_char) };
        if name.to_str() != Ok(entry(module)) {
            return NOT_FOUND;
        }
        put(function, module)
    }
    fn cuFuncGetAttribute(value: Ptr, which: u32, _function: Ptr) {
        put(value, [256_i32, 4096, 0, 0, 40, 80, 90][which as usize])
    }
    fn cuFuncSetAttribute(_function: Ptr, _which: u32, value: i32) {
        if value > 227 << 10 { INVALID_VALUE } else { 0 }
    }
    fn cuLaunchKernel(
        function: Ptr, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
        _stream: Ptr, parameters: Ptr, _extra: Ptr
    ) {
        let (grid, threads) = ([gx, gy, gz], [bx, by, bz]);
        let how = How { grid, threads, shared, attributes: vec![], blocks_of_cluster: 1 };
        launch(entry(function), how, parameters)
    }
    fn cuLaunchKernelEx(config: Ptr, function: Ptr, parameters: Ptr, _extra: Ptr) {
        launch(entry(function), How::of(config), parameters)
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Ptr, _function: Ptr, _threads: i32, _shared: usize
    ) {
        put(blocks, number("FAKE_CUDA_RESIDENT", 1) as i32)
    }

    fn cuStreamBeginCapture_v2(_stream: Ptr, _mode: u32) {
        with(|state| state.capture = Some(Vec::new()));
        0
    }
    fn cuStreamEndCapture(_stream: Ptr, graph: Ptr) {
        let launches = with(|state| state.capture.take()).unwrap();
        put(graph, Box::into_raw(Box::new(launches)))
    }
    fn cuGraphGetNodes(graph: Ptr, _nodes: Ptr, count: Ptr) { put(count, launches(graph).len()) }
    fn cuGraphInstantiateWithFlags(exec: Ptr, graph: Ptr, _flags: u64) {
        put(exec, Box::into_raw(Box::new(launches(graph).to_vec())))
    }
    fn cuGraphExecUpdate_v2(exec: Ptr, graph: Ptr, _result: Ptr) {
        const GRAPH_EXEC_UPDATE_FAILURE: u32 = 910;
        if launches(exec).len() != launches(graph).len() {
            return GRAPH_EXEC_UPDATE_FAILURE;
        }
        launches(exec).clone_from_slice(launches(graph));
        0
    }
    fn cuGraphUpload(_exec: Ptr, _stream: Ptr) { 0 }
    fn cuGraphLaunch(exec: Ptr, _stream: Ptr) {
        launches(exec).iter().for_each(Launch::run);
        0
    }
    fn cuGraphDestroy(_graph: Ptr) { 0 } // the process is short
    fn cuGraphExecDestroy(_exec: Ptr) { 0 }
}

fn launches<'a>(graph: Ptr) -> &'a mut [Launch] {
    // SAFETY: handles of graphs are boxes that are never freed; one thread uses them.
    unsafe { &mut *(graph as *mut Vec<Launch>) }
}

/// The argument block of a launch.
fn block<B: ArgumentBlock>(parameters: Ptr) -> B {
    // SAFETY: a pointer for each parameter, and there is one.
    let args = unsafe { *(parameters as *const *const B) };
    // SAFETY: of the type that the contract states.
    unsafe { *args }
}

/// Leaves a line where it was asked for.
fn leave(variable: &str, line: impl FnOnce() -> String) {
    let Some(file) = std::env::var_os(variable) else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    writeln!(file, "{}", line()).unwrap();
}

/// What a launch's line says.
fn said(entry: &str, how: &How) -> String {
    let recorded = with(|state| state.capture.is_some());
    let words = [(recorded, " recorded"), (how.is_cooperative(), " cooperative")];
    let words = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word);
    format!("{entry}{}", words.collect::<String>())
}

fn launch(entry: &'static str, how: How, parameters: Ptr) -> u32 {
    let spec = KERNELS.iter().find(|spec| spec.entry == entry);
    let grid = how.grid;
    if spec.is_none_or(|spec| how.threads != [spec.threads, 1, 1]) || grid.contains(&0) {
        return INVALID_VALUE;
    }
    leave("FAKE_CUDA_LAUNCHES", || said(entry, &how));
    let is_idle = std::env::var("FAKE_CUDA_KERNEL").as_deref() == Ok("idle");
    let launch = match entry {
        "read_memory" => Launch::ReadMemory(block(parameters)),
        "tile_weights" => Launch::Idle,
        "choose" => {
            let args: ChooseArgs = block(parameters);
            if args.temperature != 0.0 || args.seen.address() != 0 {
                return NOT_SUPPORTED;
            }
            Launch::Choose { args, rows: (grid[0] / how.blocks_of_cluster) as usize }
        }
        "embed" => {
            let args: EmbedArgs = block(parameters);
            if args.tiled != 0 || args.learned.address() != 0 {
                return NOT_SUPPORTED;
            }
            Launch::Embed { args, rows: grid[0] as usize }
        }
        _ if is_idle && entry.starts_with("decode_layers") => {
            Launch::Layers { args: block(parameters), entry, how }
        }
        _ if is_idle => Launch::Idle,
        _ => return NOT_SUPPORTED,
    };
    let recorded = with(|state| match &mut state.capture {
        Some(launches) => {
            launches.push(launch.clone());
            true
        }
        None => false,
    });
    if !recorded {
        launch.run();
    }
    0
}
