//! Synthetic models are the same everywhere, and they work.

use std::fs;
use std::path::Path;

use super::*;
use crate::backend::cpu::{CpuBackend, Simd};
use crate::backend::{Backend, KvType, Limits};
use crate::convert::{Kernels, check_digests, write_tercet};
use crate::inspect;
use crate::package::{Package, Source};
use crate::preset::PRESETS;
use crate::session::Session;

/// Awkward on purpose: columns that fill no block, rows that fill no quarter, shared heads.
const TINY: &str = r#"{
    "architectures": ["ARCHITECTURE"], "hidden_size": 96, "intermediate_size": 202,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 18,
    "vocab_size": 301, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "hidden_act": "silu", "tie_word_embeddings": TIED QUANTIZATION
}"#;

const TINY_OPT: &str = r#"{
    "architectures": ["OPTForCausalLM"], "hidden_size": 96, "ffn_dim": 202,
    "num_hidden_layers": 2, "num_attention_heads": 6, "vocab_size": 301,
    "max_position_embeddings": 64, "word_embed_proj_dim": 96, "do_layer_norm_before": true,
    "activation_function": "relu", "enable_bias": true, "tie_word_embeddings": true
}"#;

/// The families, with their scale rules and float types.
fn tiny() -> [Preset; 5] {
    let preset = |architecture: &str, tied, quantization: &str, float| {
        let config = TINY.replace("ARCHITECTURE", architecture).replace("TIED", tied);
        let config = config.replace("QUANTIZATION", quantization);
        Preset { name: "tiny", model: "none", config: Box::leak(config.into()), float }
    };
    let multiply =
        r#", "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"}"#;
    let divide = r#", "quantization_config": {"quant_method": "bitnet"}"#;
    [
        preset("BitnetForCausalLM", "true", "", FloatType::F16),
        preset("BitNetForCausalLM", "true", multiply, FloatType::Bf16),
        preset("LlamaForCausalLM", "false", divide, FloatType::Bf16),
        preset("LlamaForCausalLM", "false", "", FloatType::F16),
        Preset { name: "tiny", model: "none", config: TINY_OPT, float: FloatType::F16 },
    ]
}

fn write_to(preset: &Preset, kind: Kind, path: &Path, seed: u64) {
    write(preset, kind, path, seed, &mut |_, _| {}).unwrap();
}

fn logits(package: &Package) -> Vec<f32> {
    let model = package.bind().unwrap();
    let backend = CpuBackend::new(1, Simd::detect()).unwrap();
    let weights = backend.upload(&model, &mut |_, _| {}).unwrap();
    let limits =
        Limits { slots: 1, positions_max: 16, rows_max: 16, logits_max: 16, kv: KvType::F32 };
    let ops = backend.ops(&weights, limits).unwrap();
    let mut session = Session::new(ops, &package.config, limits);
    let mut all = Vec::new();
    session.logits(&[5, 300, 0, 17, 17, 250], |logits| all.extend_from_slice(logits)).unwrap();
    all
}

#[test]
fn every_kind_holds_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    for (number, preset) in tiny().into_iter().enumerate() {
        let memory = Package::from_checkpoint(
            in_memory(&preset, WeightLayout::Rows128, 7, &mut |_, _| {}).unwrap(),
        )
        .unwrap();
        let expected = logits(&memory);
        let spread = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        assert!((0.1..100.0).contains(&spread), "logits up to {spread}");
        let architecture = &memory.config.architecture;
        let tercet = WeightLayout::ALL.map(Kind::Tercet);
        for kind in tercet.into_iter().chain([Kind::HuggingFace, Kind::Native]) {
            let path = folder.path().join(format!("{number} {kind:?}"));
            write_to(&preset, kind, &path, 7);
            let package = Package::open(&Source::Path(path.clone())).unwrap();
            assert_eq!(logits(&package), expected, "{architecture} {kind:?}");
            assert_eq!(inspect::check(&package, &mut |_, _| {}).unwrap().problems, [""; 0]);
            // What was made converts like what was downloaded.
            let converted = folder.path().join("converted.tercet");
            for layout in WeightLayout::ALL {
                write_tercet(&package, &converted, layout, Kernels::LeaveOut, &mut |_, _| {})
                    .unwrap();
                let converted = Package::open(&Source::Path(converted.clone())).unwrap();
                assert_eq!(logits(&converted), expected, "{architecture} {kind:?} as {layout:?}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_in_memory_and_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let [preset, ..] = tiny();
    let file_in = |layout, seed| {
        let path = folder.path().join("model.tercet");
        write_to(&preset, Kind::Tercet(layout), &path, seed);
        fs::read(path).unwrap()
    };
    let file = |seed| file_in(WeightLayout::Rows128, seed);
    let made = in_memory(&preset, WeightLayout::Rows128, 3, &mut |_, _| {}).unwrap();
    assert!(file(3) == made.first_file());
    assert!(file(3) == file(3));
    assert!(file(3) != file(4));
    // Recorded once: the numbers of a seed do not change between versions or machines.
    assert_eq!(blake3::hash(&file(3)).to_hex()[..16], *"21dfb86af4d0bbe1");
    let base3 = in_memory(&preset, WeightLayout::Base3, 3, &mut |_, _| {}).unwrap();
    assert!(file_in(WeightLayout::Base3, 3) == base3.first_file());
    let package = Package::from_checkpoint(made).unwrap();
    let report = check_digests(&package);
    assert!(report.matching > 20 && report.differing.is_empty(), "{report:?}");
}

#[test]
fn a_folder_appears_whole_or_not_at_all() {
    let parent = tempfile::tempdir().unwrap();
    let [preset, ..] = tiny();
    let path = parent.path().join("model");
    fs::create_dir(&path).unwrap();
    write_to(&preset, Kind::HuggingFace, &path, 1);
    let names = |path: &Path| {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&path), ["config.json", "model.safetensors"]);
    // What is there is not replaced, and nothing is left behind.
    let error = write(&preset, Kind::Native, &path, 1, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.exit_code(), crate::error::ExitCode::CannotCreate);
    assert_eq!(names(parent.path()), ["model"]);
}

#[test]
fn presets_have_the_parameters_of_the_released_models() {
    // Ternary weights in units of 10^5, and bytes that a token reads at 2 bits a weight with the
    // head as stored, in MB (formats.md 1.1 and 6).
    let known = [("bitnet-3b", 32_215, 1010), ("bitnet-2b-4t", 20_840, 1178)];
    for (name, ternary, megabytes) in known {
        let config = Preset::by_name(name).unwrap().parse().unwrap();
        let count = |role| -> usize {
            let of_role = tensors(&config).into_iter().filter(|tensor| tensor.role == role);
            of_role.map(|tensor| tensor.rows * tensor.cols).sum()
        };
        assert_eq!((count(Role::Ternary) + 50_000) / 100_000, ternary, "{name}");
        let bytes = count(Role::Ternary) / 4 + 2 * count(Role::Table);
        assert_eq!((bytes + 500_000) / 1_000_000, megabytes, "{name}");
    }
    let all = |name| -> usize {
        let config = Preset::by_name(name).unwrap().parse().unwrap();
        tensors(&config).iter().map(|tensor| tensor.rows * tensor.cols).sum()
    };
    // 2,412,820,480 by Microsoft's configuration.
    assert_eq!(all("bitnet-2b-4t"), 2_412_820_480);
    // Counted by transformers for the released configurations.
    assert_eq!(all("llama3-8b-1.58"), 8_030_261_248);
    assert_eq!(all("llama-7b"), 6_738_415_616);
    assert_eq!(all("opt-6.7b"), 6_658_473_984);
}

#[test]
fn every_preset_is_a_model_that_runs() {
    for preset in &PRESETS {
        assert_eq!(Preset::by_name(preset.name), Some(preset));
        assert!(preset.parse().is_ok(), "{}", preset.name);
        assert!(Plan::new(preset, Kind::HuggingFace).is_ok(), "{}", preset.name);
    }
}

#[test]
fn a_gigabyte_takes_about_a_second() {
    // Loose: the machine may be busy and the build for debugging. Meant for 1 GB/s.
    let tensor = Tensor { name: "t".into(), rows: 1 << 14, cols: 1 << 14, role: Role::Ternary };
    let start = std::time::Instant::now();
    tensor.codes(1, &mut |_| Ok(())).unwrap();
    let rate = (1 << 26) as f64 / start.elapsed().as_secs_f64();
    println!("{:.2} GB/s", rate / 1e9);
    assert!(rate > 1e8, "{rate} bytes a second");
}
