//! The driver's error codes by name, to CUDA 13.

use core::fmt;

/// A code that the driver answered with; 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// The device has not enough memory.
    pub const OUT_OF_MEMORY: Self = Self(2);
    /// No CUDA device that this process may use.
    pub const NO_DEVICE: Self = Self(100);
    /// The image holds no code for this device.
    pub const NO_BINARY_FOR_GPU: Self = Self(209);
    /// The PTX could not be compiled.
    pub const INVALID_PTX: Self = Self(218);
    /// The PTX is of a newer instruction set than the driver knows.
    pub const UNSUPPORTED_PTX_VERSION: Self = Self(222);
    /// Not found: a kernel, or a function of the driver.
    pub const NOT_FOUND: Self = Self(500);
    /// Still at work: no error.
    pub const NOT_READY: Self = Self(600);
    /// A kernel touched memory that is not its own.
    pub const ILLEGAL_ADDRESS: Self = Self(700);
    /// The graph's shape differs.
    pub const GRAPH_EXEC_UPDATE_FAILURE: Self = Self(910);
    /// Whatever the driver has no code for.
    pub const UNKNOWN: Self = Self(999);

    /// The name in `cuda.h`, without `CUDA_ERROR_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("not in the table of CUDA 13", |(_, name, _)| name)
    }

    /// What it means, in a few words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.entry().map_or("this driver is newer than this program", |(_, _, meaning)| meaning)
    }

    fn entry(self) -> Option<&'static (u32, &'static str, &'static str)> {
        let index = CODES.binary_search_by_key(&self.0, |(code, ..)| *code).ok()?;
        CODES.get(index)
    }

    /// Whether every later call of this process fails as well: what a kernel did, or the device.
    #[must_use]
    pub const fn is_sticky(self) -> bool {
        matches!(self.0, 214 | 220 | 226 | 700 | 702 | 710 | 714..=719 | 721 | 999)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {}: {})", self.name(), self.0, self.meaning())
    }
}

/// Code, name and meaning, in order of the code.
#[rustfmt::skip]
const CODES: &[(u32, &str, &str)] = &[
    (0, "SUCCESS", "no error"),
    (1, "INVALID_VALUE", "an argument out of range"),
    (2, "OUT_OF_MEMORY", "not enough memory on the device"),
    (3, "NOT_INITIALIZED", "the driver has not been initialised"),
    (4, "DEINITIALIZED", "the driver is shutting down"),
    (5, "PROFILER_DISABLED", "the profiler is not running"),
    (6, "PROFILER_NOT_INITIALIZED", "the profiler has not been initialised"),
    (7, "PROFILER_ALREADY_STARTED", "the profiler runs already"),
    (8, "PROFILER_ALREADY_STOPPED", "the profiler has been stopped already"),
    (34, "STUB_LIBRARY", "libcuda.so.1 is the toolkit's stub, not a driver"),
    (36, "CALL_REQUIRES_NEWER_DRIVER", "the call needs a newer driver"),
    (46, "DEVICE_UNAVAILABLE", "the device is in use, or set to exclusive"),
    (100, "NO_DEVICE", "no CUDA device to be seen"),
    (101, "INVALID_DEVICE", "no device has this number"),
    (102, "DEVICE_NOT_LICENSED", "the device lacks a licence"),
    (200, "INVALID_IMAGE", "the image is no kernel module"),
    (201, "INVALID_CONTEXT", "no context is current"),
    (202, "CONTEXT_ALREADY_CURRENT", "the context is current already"),
    (205, "MAP_FAILED", "memory could not be mapped"),
    (206, "UNMAP_FAILED", "memory could not be unmapped"),
    (207, "ARRAY_IS_MAPPED", "the array is mapped"),
    (208, "ALREADY_MAPPED", "the resource is mapped already"),
    (209, "NO_BINARY_FOR_GPU", "the module has no code for this device"),
    (210, "ALREADY_ACQUIRED", "the resource has been acquired already"),
    (211, "NOT_MAPPED", "the resource is not mapped"),
    (212, "NOT_MAPPED_AS_ARRAY", "the resource is not mapped as an array"),
    (213, "NOT_MAPPED_AS_POINTER", "the resource is not mapped as memory"),
    (214, "ECC_UNCORRECTABLE", "the device's memory has an error that cannot be corrected"),
    (215, "UNSUPPORTED_LIMIT", "the device does not know this limit"),
    (216, "CONTEXT_ALREADY_IN_USE", "the context belongs to another thread"),
    (217, "PEER_ACCESS_UNSUPPORTED", "the devices cannot reach each other"),
    (218, "INVALID_PTX", "the PTX could not be compiled"),
    (219, "INVALID_GRAPHICS_CONTEXT", "the graphics context is not valid"),
    (220, "NVLINK_UNCORRECTABLE", "NVLink has an error that cannot be corrected"),
    (221, "JIT_COMPILER_NOT_FOUND", "the driver's PTX compiler is missing"),
    (222, "UNSUPPORTED_PTX_VERSION", "the PTX is newer than the driver"),
    (223, "JIT_COMPILATION_DISABLED", "compiling PTX is switched off"),
    (224, "UNSUPPORTED_EXEC_AFFINITY", "the device does not support this affinity"),
    (225, "UNSUPPORTED_DEVSIDE_SYNC", "the PTX synchronises with its own launches"),
    (226, "CONTAINED", "an error of the device that was contained"),
    (300, "INVALID_SOURCE", "the kernel's source is not valid"),
    (301, "FILE_NOT_FOUND", "a file is missing"),
    (302, "SHARED_OBJECT_SYMBOL_NOT_FOUND", "a shared library lacks a symbol"),
    (303, "SHARED_OBJECT_INIT_FAILED", "a shared library could not be initialised"),
    (304, "OPERATING_SYSTEM", "a call of the operating system failed"),
    (400, "INVALID_HANDLE", "the handle is not valid"),
    (401, "ILLEGAL_STATE", "the resource is not in a state for this"),
    (402, "LOSSY_QUERY", "the answer would have lost information"),
    (500, "NOT_FOUND", "no symbol of this name"),
    (600, "NOT_READY", "still at work"),
    (700, "ILLEGAL_ADDRESS", "a kernel touched memory that is not its own"),
    (701, "LAUNCH_OUT_OF_RESOURCES", "the launch needs more registers or memory than there are"),
    (702, "LAUNCH_TIMEOUT", "a kernel ran longer than the system allows"),
    (703, "LAUNCH_INCOMPATIBLE_TEXTURING", "the launch's texturing mode does not fit"),
    (704, "PEER_ACCESS_ALREADY_ENABLED", "the devices reach each other already"),
    (705, "PEER_ACCESS_NOT_ENABLED", "the devices do not reach each other"),
    (708, "PRIMARY_CONTEXT_ACTIVE", "the device's primary context is in use"),
    (709, "CONTEXT_IS_DESTROYED", "the context has been destroyed"),
    (710, "ASSERT", "an assertion in a kernel failed"),
    (711, "TOO_MANY_PEERS", "too many devices reach each other"),
    (712, "HOST_MEMORY_ALREADY_REGISTERED", "the host's memory is registered already"),
    (713, "HOST_MEMORY_NOT_REGISTERED", "the host's memory is not registered"),
    (714, "HARDWARE_STACK_ERROR", "a kernel damaged its stack"),
    (715, "ILLEGAL_INSTRUCTION", "a kernel met an instruction that the device does not have"),
    (716, "MISALIGNED_ADDRESS", "a kernel read or wrote at a misaligned address"),
    (717, "INVALID_ADDRESS_SPACE", "a kernel used an address of the wrong space"),
    (718, "INVALID_PC", "a kernel jumped to nowhere"),
    (719, "LAUNCH_FAILED", "a kernel failed while it ran"),
    (720, "COOPERATIVE_LAUNCH_TOO_LARGE", "a cooperative launch has more blocks than fit"),
    (721, "TENSOR_MEMORY_LEAK", "a kernel did not give its tensor memory back"),
    (800, "NOT_PERMITTED", "the system does not permit it"),
    (801, "NOT_SUPPORTED", "this system does not support it"),
    (802, "SYSTEM_NOT_READY", "the system's fabric or services have not started"),
    (803, "SYSTEM_DRIVER_MISMATCH", "the kernel module and libcuda.so.1 are of different versions"),
    (804, "COMPAT_NOT_SUPPORTED_ON_DEVICE", "forward compatibility does not work on this device"),
    (805, "MPS_CONNECTION_FAILED", "the MPS server cannot be reached"),
    (806, "MPS_RPC_FAILURE", "the MPS server did not answer"),
    (807, "MPS_SERVER_NOT_READY", "the MPS server is not ready"),
    (808, "MPS_MAX_CLIENTS_REACHED", "the MPS server has no room for a client"),
    (809, "MPS_MAX_CONNECTIONS_REACHED", "the MPS server has no room for a connection"),
    (810, "MPS_CLIENT_TERMINATED", "the MPS server ended this client"),
    (811, "CDP_NOT_SUPPORTED", "kernels cannot launch kernels here"),
    (812, "CDP_VERSION_MISMATCH", "two ways of launching kernels from kernels are mixed"),
    (900, "STREAM_CAPTURE_UNSUPPORTED", "the call cannot be captured"),
    (901, "STREAM_CAPTURE_INVALIDATED", "the capture has been invalidated by an error"),
    (902, "STREAM_CAPTURE_MERGE", "the call would merge two captures"),
    (903, "STREAM_CAPTURE_UNMATCHED", "the capture was not begun on this stream"),
    (904, "STREAM_CAPTURE_UNJOINED", "a captured stream was not joined"),
    (905, "STREAM_CAPTURE_ISOLATION", "a dependency would cross the capture's border"),
    (906, "STREAM_CAPTURE_IMPLICIT", "the call depends on the legacy stream while capturing"),
    (907, "CAPTURED_EVENT", "the event was recorded in a capture"),
    (908, "STREAM_CAPTURE_WRONG_THREAD", "the capture belongs to another thread"),
    (909, "TIMEOUT", "the wait took too long"),
    (910, "GRAPH_EXEC_UPDATE_FAILURE", "the graph's shape has changed"),
    (911, "EXTERNAL_DEVICE", "another device failed"),
    (912, "INVALID_CLUSTER_SIZE", "the cluster does not fit the kernel"),
    (913, "FUNCTION_NOT_LOADED", "the function has not been loaded"),
    (914, "INVALID_RESOURCE_TYPE", "the resource is of another type"),
    (915, "INVALID_RESOURCE_CONFIGURATION", "the resources cannot be divided so"),
    (916, "KEY_ROTATION", "a key is being changed"),
    (917, "STREAM_DETACHED", "the stream has lost its context"),
    (999, "UNKNOWN", "the driver has no better word"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(CODES.is_sorted_by_key(|(code, ..)| *code), "binary search needs it");
        assert!(CODES.windows(2).all(|pair| pair[0].0 != pair[1].0), "a code stands twice");
    }

    #[test]
    fn codes_have_their_names() {
        let said = Code::UNSUPPORTED_PTX_VERSION.to_string();
        assert_eq!(said, "UNSUPPORTED_PTX_VERSION (code 222: the PTX is newer than the driver)");
        assert_eq!(Code::NO_BINARY_FOR_GPU.name(), "NO_BINARY_FOR_GPU");
        assert_eq!(Code::ILLEGAL_ADDRESS.name(), "ILLEGAL_ADDRESS");
        assert!(Code(1234).to_string().contains("1234"), "an unknown code keeps its number");
    }

    #[test]
    fn memory_is_not_sticky() {
        assert!(!Code::OUT_OF_MEMORY.is_sticky() && !Code::INVALID_PTX.is_sticky(), "go on");
        assert!(Code::ILLEGAL_ADDRESS.is_sticky() && Code(719).is_sticky(), "the process is lost");
    }
}
