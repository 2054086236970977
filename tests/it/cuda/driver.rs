//! The driver's layer: what goes in comes out, what is refused is said, memory comes back.

use tercet_host::backend::Backend;
use tercet_host::backend::cuda::CudaBackend;
use tercet_host::backend::cuda::driver::{
    Code, Context, CudaError, DeviceBuffer, Driver, DriverVersion, Event, Function, Launch, Module,
    Overrun, PinnedBuffer, PinnedUse, Stream, usable,
};
use tercet_host::backend::cuda::kernels::KernelSet;
use tercet_kernels_ptx::contract::{DevicePtr, DevicePtrMut, EmbedArgs};
use tercet_kernels_ptx::kernel_for;
use tercet_kernels_ptx::ptx::Target;
use tercet_tests::folder::Folder;

use super::{in_base3, inside};
use crate::oracle::builtin;

fn context() -> Context {
    Context::new(&usable(None).unwrap()).unwrap()
}

/// A kernel that the stand-in runs.
fn ptx() -> &'static str {
    kernel_for("embed", Target::SM_80.capability).unwrap().ptx
}

#[test]
fn devices_say_what_they_are() {
    if !inside("cuda::driver::devices_say_what_they_are", &[]) {
        return;
    }
    let driver = Driver::open().unwrap();
    assert_eq!(driver.version(), DriverVersion(12040));
    let device = driver.device(0).unwrap();
    assert_eq!((device.name.as_str(), device.bus.as_str()), ("Fake GPU", "0000:1a:00.0"));
    assert_eq!((device.capability.major, device.capability.minor), (9, 0));
    assert_eq!((device.multiprocessors, device.memory), (4, 1 << 30));
    assert_eq!((device.shared_per_block_max, device.l2_bytes), (227 << 10, 50 << 20));
    match driver.device(1) {
        Err(CudaError::NoSuchDevice { number: 1, count: 1 }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn buffers_keep_what_they_are_given() {
    if !inside("cuda::driver::buffers_keep_what_they_are_given", &[]) {
        return;
    }
    let context = context();
    let stream = Stream::new(&context).unwrap();
    let mut buffer = DeviceBuffer::from_slice(&context, "numbers", &[1_i32, 2, 3, 4]).unwrap();
    buffer.write(1, &[20, 30]).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [1, 20, 30, 4]);
    let mut two = [0; 2];
    buffer.read(2, &mut two).unwrap();
    assert_eq!(two, [30, 4]);

    let mut other = DeviceBuffer::zeroed(&context, "numbers", 3).unwrap();
    other.copy_queued(1, &buffer, 0, 2, &stream).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(other.to_vec().unwrap(), [0, 1, 20]);
    other.fill_queued(0xff, &stream).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(other.to_vec().unwrap(), [-1; 3]);

    let mut pinned = PinnedBuffer::<i32>::zeroed(&context, "staging", 3, PinnedUse::Both).unwrap();
    assert_eq!(*pinned, [0; 3]);
    pinned.copy_from_slice(&[7, 8, 9]);
    assert_eq!(pinned.device_address(2).unwrap() - pinned.device_address(0).unwrap(), 8);
    let (mut there, nothing) = (other, DeviceBuffer::<u8>::zeroed(&context, "none", 0).unwrap());
    // A copy of its own in between: the buffer may not be read while it is written.
    there.write(0, &pinned).unwrap();
    there.read(0, &mut pinned).unwrap();
    assert_eq!(*pinned, [7, 8, 9]);
    assert!(nothing.is_empty() && nothing.to_vec().unwrap().is_empty(), "nothing stays nothing");

    // On any thread: the context follows.
    let on_another = std::thread::spawn(move || there.to_vec()).join().unwrap().unwrap();
    assert_eq!(on_another, [7, 8, 9]);
}

#[test]
#[should_panic(expected = "numbers 3..3+2 of a buffer of 4")]
fn beyond_the_end_is_a_bug() {
    const NAME: &str = "cuda::driver::beyond_the_end_is_a_bug";
    assert!(inside(NAME, &[]), "numbers 3..3+2 of a buffer of 4: seen in the other process");
    let mut buffer = DeviceBuffer::from_slice(&context(), "numbers", &[1_i32, 2, 3, 4]).unwrap();
    let _ = buffer.write(3, &[1, 2]);
}

#[test]
fn memory_that_is_not_there_leaves_the_process_able_to_go_on() {
    const NAME: &str = "cuda::driver::memory_that_is_not_there_leaves_the_process_able_to_go_on";
    if !inside(NAME, &[("FAKE_CUDA_MEMORY", "1000000")]) {
        return;
    }
    let context = context();
    let before = context.memory().unwrap();
    for _ in 0..100 {
        let kept = DeviceBuffer::<u8>::zeroed(&context, "kept", 600_000).unwrap();
        match DeviceBuffer::<u16>::zeroed(&context, "keys and values", 300_000) {
            Err(CudaError::OutOfMemory { what, needed, free, total, call }) => {
                assert_eq!((what, needed, free), ("keys and values", 600_000, 400_000));
                assert_eq!((total, call), (1_000_000, "cuMemAlloc_v2"));
            }
            other => panic!("{other:?}"),
        }
        let smaller = DeviceBuffer::<u16>::zeroed(&context, "keys and values", 200_000).unwrap();
        assert_eq!((kept.bytes(), smaller.bytes()), (600_000, 400_000));
    }
    assert_eq!(context.memory().unwrap(), before, "nothing is lost");
}

/// A table of two tokens with four numbers each; a step of both, the second first.
struct Step {
    table: DeviceBuffer<f32>,
    tokens: DeviceBuffer<u32>,
    positions: DeviceBuffer<u32>,
}

const ROWS: [f32; 8] = [5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0];

impl Step {
    fn new(context: &Context) -> Self {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        Self {
            table: DeviceBuffer::from_slice(context, "the table", &table).unwrap(),
            tokens: DeviceBuffer::from_slice(context, "tokens", &[1, 0]).unwrap(),
            positions: DeviceBuffer::from_slice(context, "positions", &[0, 1]).unwrap(),
        }
    }

    fn args(&self, hidden: DevicePtrMut<f32>) -> EmbedArgs {
        EmbedArgs {
            table: DevicePtr::new(self.table.address(0)),
            learned: DevicePtr::null(),
            tokens: self.tokens.ptr(0),
            positions: self.positions.ptr(0),
            hidden,
            cols: 4,
            table_form: EmbedArgs::F32,
            learned_form: 0,
            learned_offset: 0,
            tiled: 0,
            reserved: 0,
        }
    }
}

/// Queues the kernel for tests whose buffers outlive it.
fn launch(
    function: &Function<EmbedArgs>,
    launch: Launch,
    stream: &Stream,
    args: &EmbedArgs,
) -> Result<(), CudaError> {
    // SAFETY: the stand-in for the driver looks up every range before it touches it, and does its
    // work at once.
    unsafe { function.launch(launch, stream, args) }
}

#[test]
fn work_is_recorded_and_repeated() {
    if !inside("cuda::driver::work_is_recorded_and_repeated", &[]) {
        return;
    }
    let context = context();
    let stream = Stream::new(&context).unwrap();
    let module = Module::load(&context, "embed", ptx()).unwrap();
    let function = module.function::<EmbedArgs>().unwrap();
    assert_eq!((function.attributes().registers, function.attributes().threads_max), (40, 256));
    function.allow_shared(100 << 10).unwrap();
    let refused = function.allow_shared(1 << 20).unwrap_err();
    assert!(matches!(refused, CudaError::Call { call: "cuFuncSetAttribute", .. }), "{refused}");

    let step = Step::new(&context);
    let mut hidden = DeviceBuffer::<f32>::zeroed(&context, "hidden", 8).unwrap();
    let args = step.args(hidden.ptr_mut(0));
    let queue =
        |how: Launch| stream.capture::<CudaError>(|| launch(&function, how, &stream, &args));
    let graph = queue(Launch::grid(2, 1, 1)).unwrap();
    assert_eq!(graph.nodes().unwrap(), 1);
    assert_eq!(hidden.to_vec().unwrap(), [0.0; 8], "recorded, not done");
    let mut exec = graph.instantiate().unwrap();
    exec.upload(&stream).unwrap();
    // SAFETY: as in `launch`, the stand-in looks up what the recorded kernel touches.
    unsafe { exec.launch(&stream) }.unwrap();
    assert_eq!(hidden.to_vec().unwrap(), ROWS);

    let dependent = queue(Launch::grid(2, 1, 1).dependent()).unwrap();
    assert!(exec.update(&dependent).unwrap(), "the same shape");
    let twice = stream
        .capture::<CudaError>(|| {
            launch(&function, Launch::grid(2, 1, 1), &stream, &args)?;
            launch(&function, Launch::grid(2, 1, 1), &stream, &args)
        })
        .unwrap();
    assert!(!exec.update(&twice).unwrap(), "one node more");
    let failed = stream
        .capture::<CudaError>(|| Err(CudaError::Call { call: "mine", code: Code::NOT_FOUND }));
    assert!(failed.unwrap_err().to_string().contains("mine"), "the work's own error comes back");

    // Nobody has asked for launches to be noted so far.
    assert_eq!(context.launched(), [""; 0]);
    context.watch_launches();
    launch(&function, Launch::grid(2, 1, 1), &stream, &args).unwrap();
    assert_eq!(context.launched(), ["embed"]);
    assert_eq!(context.launched(), [""; 0], "asked for once");

    let (start, end) = (Event::new(&context).unwrap(), Event::new(&context).unwrap());
    start.record(&stream).unwrap();
    end.record(&stream).unwrap();
    assert!(end.is_done().unwrap() && stream.is_done().unwrap(), "software waits for nobody");
    assert_eq!(end.since(&start).unwrap().as_micros(), 1500);
}

#[test]
fn guards_find_what_is_written_beside_a_buffer() {
    if !inside("cuda::driver::guards_find_what_is_written_beside_a_buffer", &[]) {
        return;
    }
    let context = context();
    let stream = Stream::new(&context).unwrap();
    let module = Module::load(&context, "embed", ptx()).unwrap();
    let function = module.function::<EmbedArgs>().unwrap();
    let step = Step::new(&context);
    context.guard_memory();
    let mut hidden = DeviceBuffer::<f32>::zeroed(&context, "hidden", 8).unwrap();
    let run = |hidden| {
        launch(&function, Launch::grid(2, 1, 1), &stream, &step.args(hidden)).unwrap();
        context.overrun().unwrap()
    };
    assert_eq!(run(hidden.ptr_mut(0)), None);
    assert_eq!(hidden.to_vec().unwrap(), ROWS, "numbers behind a guard");
    // Two rows of four singles where one has room, and where one stands before the first.
    let mut small = DeviceBuffer::<f32>::zeroed(&context, "a row", 4).unwrap();
    let behind = run(small.ptr_mut(0)).unwrap();
    assert_eq!(behind, Overrun { what: "a row", bytes: 16, at: 16 });
    assert!(behind.to_string().contains("a row has 16 bytes, and the word at byte 16"), "{behind}");
    drop(small);
    assert_eq!(context.overrun().unwrap(), None, "its guards went with it");
    let before = DevicePtrMut::new(hidden.address(0) - 16);
    assert_eq!(run(before), Some(Overrun { what: "hidden", bytes: 32, at: -16 }));
}

#[test]
fn refused_kernels_say_why() {
    if !inside("cuda::driver::refused_kernels_say_why", &[]) {
        return;
    }
    let context = context();
    let good = ptx();
    let newer = good.replace(".version 8.0", ".version 99.0");
    let error = Module::load(&context, "mine", &newer).unwrap_err();
    let said = error.to_string();
    for word in ["`mine`", "99.0", "103.0", "12.4", "222", "UNSUPPORTED_PTX_VERSION"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let broken = good.replace(".entry embed(", ".entry other(");
    let error = Module::load(&context, "mine", &broken).unwrap_err();
    let said = error.to_string();
    for word in ["`mine`", "218", "INVALID_PTX", "nothing in here that I know"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let error = Module::load(&context, "mine", "a\0b").unwrap_err();
    assert!(error.to_string().contains("zero byte"), "{error}");
}

#[test]
fn every_call_may_fail_with_every_code() {
    const NAME: &str = "cuda::driver::every_call_may_fail_with_every_code";
    // 919 and 4711 are in no table of cust's, and 226 in none of CUDA 11.4's.
    let plan = "cuMemcpyHtoD_v2=919@1,cuMemcpyHtoD_v2=4711@2,cuMemcpyDtoH_v2=700@1,\
                cuStreamSynchronize=226@1,cuStreamCreateWithPriority=46@1,cuMemAlloc_v2=999@3";
    if !inside(NAME, &[("FAKE_CUDA_FAIL", plan)]) {
        return;
    }
    let context = context();
    let error = Stream::new(&context).unwrap_err();
    assert_eq!(error.code(), Some(Code(46)), "{error}");
    let stream = Stream::new(&context).unwrap();
    let mut buffer = DeviceBuffer::<u8>::uninitialized(&context, "bytes", 4).unwrap();
    for (code, sticky) in [(919, false), (4711, false)] {
        let error = buffer.write(0, &[1, 2, 3, 4]).unwrap_err();
        assert_eq!(error.code(), Some(Code(code)), "{error}");
        assert_eq!(error.is_sticky(), sticky, "{error}");
        assert!(error.to_string().contains("cuMemcpyHtoD_v2"), "{error}");
    }
    buffer.write(0, &[1, 2, 3, 4]).unwrap();
    let error = buffer.to_vec().unwrap_err();
    assert!(error.is_sticky() && error.to_string().contains("ILLEGAL_ADDRESS"), "{error}");
    let error = stream.synchronize().unwrap_err();
    assert!(error.to_string().contains("CONTAINED (code 226"), "{error}");
    let _second = DeviceBuffer::<u8>::uninitialized(&context, "bytes", 4).unwrap();
    let error = DeviceBuffer::<u8>::uninitialized(&context, "bytes", 4).unwrap_err();
    assert!(matches!(error, CudaError::Call { code: Code::UNKNOWN, .. }), "{error}");
}

#[test]
fn addresses_are_the_drivers() {
    if !inside("cuda::driver::addresses_are_the_drivers", &[]) {
        return;
    }
    let mut buffer = DeviceBuffer::<u32>::zeroed(&context(), "numbers", 4).unwrap();
    let start = buffer.address(0);
    assert!(start.is_multiple_of(256), "{start:#x}");
    assert_eq!(buffer.ptr(2), DevicePtr::new(start + 8));
    assert_eq!(buffer.ptr_mut(4), DevicePtrMut::new(start + 16));
}

/// Weights in base 3 take the way of all others: what arrives is two-bit codes.
#[test]
fn five_trits_a_byte_take_as_many_bytes_as_codes() {
    if !inside("cuda::driver::five_trits_a_byte_take_as_many_bytes_as_codes", &[]) {
        return;
    }
    let backend = CudaBackend::new(&usable(None).unwrap(), KernelSet::program()).unwrap();
    let folder = Folder::new();
    let codes = builtin::package();
    let digits = in_base3(&folder, &codes);
    let bytes = [&codes, &digits].map(|package| {
        let model = package.bind().unwrap();
        let mut reported = (0, 0);
        let weights = backend.upload(&model, &mut |done, total| reported = (done, total)).unwrap();
        assert_eq!(reported.0, reported.1, "all of it was uploaded");
        (weights.bytes(), weights.bytes_per_step())
    });
    assert_eq!(bytes[0], bytes[1]);
}
