//! One kernel for all layers of a step: when it is launched, how, and on what. The stand-in for a
//! device looks at its arguments, as a checker of memory would.

use std::fs;
use std::path::PathBuf;

use tercet_host::backend::cuda::driver::{Context, usable};
use tercet_host::backend::cuda::kernels::KernelSet;
use tercet_host::backend::cuda::trials::Rig;
use tercet_host::backend::cuda::{CudaBackend, CudaOps};
use tercet_host::backend::{KvType, Limits, Ops, Row};
use tercet_kernels_ptx::launch::{DecodeLayersShape, DeviceShape, LayersModel};
use tercet_kernels_ptx::ptx::ComputeCapability;
use tercet_tests::cpu::step;
use tercet_tests::files::{Stored, safetensors};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::on;

use super::inside;

const LOG: &str = "FAKE_CUDA_LAUNCHES";
/// As a GPU that is made for it has; each takes one part of attention at most.
const MULTIPROCESSORS: u32 = 132;

/// Four sequences of up to 40 positions.
fn limits(kv: KvType) -> Limits {
    Limits { slots: 4, positions_max: 40, rows_max: 4, logits_max: 4, kv }
}

/// Runs `work` in the process whose driver is the stand-in, with the file that it notes launches
/// in.
fn trial(name: &str, settings: &[(&str, &str)], work: impl FnOnce(&Log)) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("launches");
    let file = file.to_str().unwrap();
    let many = MULTIPROCESSORS.to_string();
    let ours =
        [("FAKE_CUDA_KERNEL", "idle"), ("FAKE_CUDA_MULTIPROCESSORS", &many[..]), (LOG, file)];
    // The last of two settings counts.
    if inside(name, &[&ours, settings].concat()) {
        work(&Log(std::env::var_os(LOG).unwrap().into()));
    }
}

struct Log(PathBuf);

impl Log {
    /// The launches since this was asked last.
    fn take(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        fs::write(&self.0, "").unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn backend() -> CudaBackend {
    CudaBackend::new(&usable(None).unwrap(), KernelSet::program()).unwrap()
}

/// A row of `slot`, whose logits are wanted.
fn row(slot: usize, position: usize) -> Row {
    Row { slot, position, token: 3, logits: true }
}

/// Steps in every way that a session has.
fn all_kinds_of_steps(ops: &mut CudaOps<'_>, layers: usize) {
    for rows in [
        // A prompt, a batch, a row in between, one that asks for nothing, a batch to be padded.
        vec![row(2, 0), row(2, 1), row(2, 2)],
        vec![row(0, 0), row(1, 0)],
        vec![row(3, 0)],
        vec![row(2, 3)],
        vec![Row { logits: false, ..row(3, 1) }],
        vec![row(0, 1), row(1, 1), row(2, 4)],
        vec![row(3, 2)],
    ] {
        step(ops, layers, &rows).unwrap();
    }
}

/// Whether a line of the log is about the kernel.
fn is_layers(line: &&String) -> bool {
    line.starts_with("decode_layers")
}

#[test]
fn a_step_of_one_row_is_one_launch_for_all_layers() {
    const NAME: &str = "cuda::layers::a_step_of_one_row_is_one_launch_for_all_layers";
    trial(NAME, &[], |log| {
        // With sub-norms and without, four layers and two.
        for shape in [Shape { layers: 4, tied: false, ..Shape::MICROSOFT }, Shape::LLAMA] {
            let layers = shape.layers;
            let package = Tiny::new(shape, 1).folder(Form::Multiply).package();
            on::with_ops(&backend(), &package, limits(KvType::F16), |mut ops| {
                let launched = log.take();
                let recorded = launched.iter().filter(|line| line.contains(" recorded"));
                let recorded: Vec<_> = recorded.map(String::as_str).collect();
                // Recordings of 1, 2 and 4 rows, each of which begins with the embedding.
                let starts = recorded.iter().enumerate();
                let starts = starts.filter(|(_, line)| line.starts_with("embed "));
                let starts: Vec<_> = starts.map(|(at, _)| at).collect();
                assert_eq!((starts.len(), starts[0]), (3, 0), "{recorded:?}");
                let (one, more) = recorded.split_at(starts[1]);
                assert_eq!(
                    one[..2],
                    ["embed recorded", "decode_layers_f16_128_c8 recorded cooperative"]
                );
                assert!(one[2].starts_with("normalize ") && one.len() == 4, "the head: {one:?}");
                assert!(one[3].starts_with("float_linear"), "the head: {one:?}");
                assert!(!more.iter().any(|line| line.contains("cooperative")), "{more:?}");
                let attends = |line: &&&str| line.starts_with("decode_attend");
                assert_eq!(more.iter().filter(attends).count(), 2 * layers, "{more:?}");

                all_kinds_of_steps(&mut ops, layers);
                let direct = log.take();
                assert!(!direct.is_empty(), "a prompt is not recorded");
                assert_eq!(direct.iter().find(is_layers), None, "{direct:?}");
            });
        }
    });
}

#[test]
fn other_sessions_have_a_launch_for_each_operation() {
    const NAME: &str = "cuda::layers::other_sessions_have_a_launch_for_each_operation";
    trial(NAME, &[], |log| {
        let tiny = |shape| Tiny::new(shape, 1).folder(Form::Multiply).package();
        let (served, odd) = (tiny(Shape::LLAMA), tiny(Shape::ONE_BIT));
        let single = tiny(Shape { layers: 1, ..Shape::LLAMA });
        for (what, backend, package, kv) in [
            ("deterministic", backend().with_deterministic(true), &served, KvType::F16),
            ("one by one", backend().one_by_one(), &served, KvType::F16),
            ("a cache of singles", backend(), &served, KvType::F32),
            ("heads of 10", backend(), &odd, KvType::F16),
            ("a single layer", backend(), &single, KvType::F16),
        ] {
            on::with_ops(&backend, package, limits(kv), |mut ops| {
                all_kinds_of_steps(&mut ops, package.config.layers);
            });
            let launched = log.take();
            assert!(!launched.is_empty());
            assert_eq!(launched.iter().find(is_layers), None, "{what}");
        }
    });
}

/// A file may carry kernels without Hopper's own: its launches are theirs then, on any GPU.
#[test]
fn kernels_for_older_gpus_are_launched_as_such() {
    const NAME: &str = "cuda::layers::kernels_for_older_gpus_are_launched_as_such";
    trial(NAME, &[], |log| {
        let package = Tiny::new(Shape::LLAMA, 1).folder(Form::Multiply).package();
        let oldest = ComputeCapability { major: 8, minor: 0 };
        let kernels = KernelSet::program().of_device(oldest);
        for (kernels, is_own) in [(KernelSet::program(), true), (kernels, false)] {
            let backend = CudaBackend::new(&usable(None).unwrap(), kernels).unwrap();
            let limits = Limits { rows_max: 40, logits_max: 1, ..limits(KvType::F16) };
            on::with_ops(&backend, &package, limits, |mut ops| {
                let of_prompt = |at| Row { logits: at == 39, ..row(0, at) };
                let prompt: Vec<_> = (0..40).map(of_prompt).collect();
                step(&mut ops, package.config.layers, &prompt).unwrap();
            });
            let launched = log.take();
            let linear = launched.iter().find(|line| line.starts_with("linear_"));
            let linear = linear.expect("a prompt is multiplied");
            assert_eq!(linear.contains('x'), is_own, "a tile of features x rows: {linear}");
        }
    });
}

/// What a row is split into depends on the type of the matrix it is multiplied with.
#[test]
fn matrices_of_different_types_do_not_share_a_split_row() {
    const NAME: &str = "cuda::layers::matrices_of_different_types_do_not_share_a_split_row";
    trial(NAME, &[], |log| {
        let tiny = Tiny::new(Shape::LLAMA, 1);
        let layers = tiny.shape.layers;
        for (halved, of_qkv) in [(None, 1), (Some(".k_proj."), 3), (Some(".v_proj."), 2)] {
            let mut config = tiny.config(Form::Online("F32"));
            config.as_object_mut().unwrap().remove("quantization_config");
            let mut tensors = tiny.stored(Form::Online("F32"));
            let of_type = |tensor: &&mut Stored| halved.is_some_and(|of| tensor.name.contains(of));
            for tensor in tensors.iter_mut().filter(of_type) {
                tensor.dtype = "BF16";
                let upper = tensor.bytes.chunks_exact(4).flat_map(|x| [x[2], x[3]]);
                tensor.bytes = upper.collect();
            }
            let folder = tiny.folder(Form::Online("F32"));
            folder.put_json("config.json", &config);
            folder.put("model.safetensors", &safetensors(&tensors));
            let package = folder.package();
            let limits = Limits { positions_max: 80, rows_max: 80, ..limits(KvType::F16) };
            on::with_ops(&backend(), &package, limits, |mut ops| {
                log.take();
                let prompt: Vec<_> =
                    (0..70).map(|at| Row { logits: at == 69, ..row(0, at) }).collect();
                step(&mut ops, layers, &prompt).unwrap();
            });
            let splits = log.take().iter().filter(|line| line.starts_with("normalize")).count();
            // Beside those: of the mixed rows, of gate and up, of down; and of the head.
            assert_eq!(splits, layers * (of_qkv + 3) + 1, "{halved:?}");
        }
    });
}

/// Attention of a model with three key heads has 24 parts.
#[test]
fn a_device_with_few_multiprocessors_has_a_launch_for_each_operation() {
    const NAME: &str =
        "cuda::layers::a_device_with_few_multiprocessors_has_a_launch_for_each_operation";
    trial(NAME, &[("FAKE_CUDA_MULTIPROCESSORS", "23")], |log| {
        let package = Tiny::new(Shape::LLAMA, 1).folder(Form::Multiply).package();
        on::with_ops(&backend(), &package, limits(KvType::F16), |mut ops| {
            all_kinds_of_steps(&mut ops, package.config.layers);
        });
        assert_eq!(log.take().iter().find(is_layers), None);
    });
}

/// The grid has to be resident as a whole.
#[test]
fn a_block_that_no_multiprocessor_has_room_for_is_not_launched() {
    const NAME: &str = "cuda::layers::a_block_that_no_multiprocessor_has_room_for_is_not_launched";
    trial(NAME, &[("FAKE_CUDA_RESIDENT", "0")], |log| {
        let package = Tiny::new(Shape::LLAMA, 1).folder(Form::Multiply).package();
        on::with_ops(&backend(), &package, limits(KvType::F16), |mut ops| {
            all_kinds_of_steps(&mut ops, package.config.layers);
        });
        let launched = log.take();
        assert_eq!(launched.iter().find(is_layers), None);
        assert!(launched.iter().any(|line| line.starts_with("decode_qkv_4 recorded")));
    });
}

/// The kernels of this kind that the trials would be said to have missed, had they launched
/// nothing.
fn missed() -> Vec<&'static str> {
    let context = Context::new(&usable(None).unwrap()).unwrap();
    let missed = Rig::new(&context, &KernelSet::program()).unwrap().never_launched();
    assert!(missed.contains(&"decode_qkv_4"), "nothing was launched: {missed:?}");
    missed.into_iter().filter(|entry| entry.starts_with("decode_layers")).collect()
}

#[test]
fn trials_have_to_lead_to_it() {
    trial("cuda::layers::trials_have_to_lead_to_it", &[], |_| {
        assert_eq!(missed(), ["decode_layers_f16_128_c4", "decode_layers_f16_128_c8"]);
    });
}

#[test]
fn trials_need_not_lead_to_it_where_the_device_is_too_small() {
    const NAME: &str = "cuda::layers::trials_need_not_lead_to_it_where_the_device_is_too_small";
    trial(NAME, &[("FAKE_CUDA_MULTIPROCESSORS", "4")], |_| assert_eq!(missed(), [""; 0]));
}

#[test]
fn what_it_takes_is_counted() {
    const NAME: &str = "cuda::layers::what_it_takes_is_counted";
    trial(NAME, &[], |_| {
        let Shape { layers, hidden, heads, kv_heads, head_dim, ffn, .. } = Shape::LLAMA;
        let package = Tiny::new(Shape::LLAMA, 1).folder(Form::Multiply).package();
        let work = |backend: &CudaBackend| {
            on::with_ops(backend, &package, limits(KvType::F16), |ops| ops.bytes().work)
        };
        let number = |n: usize| u32::try_from(n).unwrap();
        let model = LayersModel {
            layers: number(layers),
            hidden: number(hidden),
            heads: number(heads),
            kv_heads: number(kv_heads),
            head_dim: number(head_dim),
            ffn: number(ffn),
        };
        // The stand-in's.
        let device = DeviceShape { multiprocessors: MULTIPROCESSORS, shared_bytes: 227 << 10 };
        let rooms = DecodeLayersShape::new(model, true, device).unwrap().rooms_words();
        let expected = 4 * u64::from(rooms) + 12 * 8 * layers as u64;
        let (with, without) = (work(&backend()), work(&backend().with_deterministic(true)));
        assert_eq!(with - without, expected);
    });
}
