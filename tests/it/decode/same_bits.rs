//! The logits of a token depend on the model and the tokens before it, and on nothing else.

use tercet_host::backend::{KvType, Limits, Row};
use tercet_host::convert::{Kernels, write_tercet};
use tercet_host::layout::WeightLayout;
use tercet_host::package::{Package, Source};
use tercet_tests::cpu::{Cpu, assert_same_bits, logits, rows, step, with_ops};
use tercet_tests::files::{safetensors_bytes, safetensors_parts};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::folder::Folder;
use tercet_tests::random::Random;
use tercet_tests::tolerance::KV_F16;

fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.below(Shape::MICROSOFT.vocab) as u32).collect()
}

fn logits_of(folder: &Folder, tokens: &[u32]) -> Vec<f32> {
    logits(&folder.package(), Cpu::fast(), tokens, 16, KvType::F16)
}

/// The model of `folder` as a `.tercet` file in it.
fn converted(folder: &Folder, layout: WeightLayout) -> Package {
    let file = folder.join(&format!("{layout:?}.tercet"));
    write_tercet(&folder.package(), &file, layout, Kernels::LeaveOut, &mut |_, _| {})
        .expect("a file");
    Package::open(&Source::Path(file)).expect("a valid file")
}

#[test]
fn every_way_to_store_a_model_is_the_same_model() {
    for (seed, shape) in (71..).zip(Shape::ALL) {
        for tied in [true, false] {
            let tiny = Tiny::new(Shape { tied, ..shape.clone() }, seed);
            let tokens = tokens(seed, 20);
            let expected = logits_of(&tiny.folder(Form::Online("F32")), &tokens);
            for form in Form::ALL {
                let what = format!("{} {form:?} tied {tied}", shape.architecture);
                assert_same_bits(&expected, &logits_of(&tiny.folder(form), &tokens), &what);
                let sharded = tiny.sharded_folder(form, 3);
                assert_same_bits(&expected, &logits_of(&sharded, &tokens), &what);

                for layout in WeightLayout::ALL {
                    let package = converted(&sharded, layout);
                    let got = logits(&package, Cpu::fast(), &tokens, 16, KvType::F16);
                    assert_same_bits(&expected, &got, &format!("{what} as {layout:?}"));
                }
            }
        }
    }
}

#[test]
fn both_names_of_the_sub_norms_are_the_same_norms() {
    let one = Tiny::new(Shape::MICROSOFT, 75);
    let mut other = Tiny::new(Shape { sub_norms: Shape::ONE_BIT.sub_norms, ..Shape::MICROSOFT }, 1);
    let names = [Shape::MICROSOFT.sub_norms, Shape::ONE_BIT.sub_norms].map(|names| names.unwrap());
    for (name, values) in &mut other.tensors {
        let renamed =
            (0..2).fold(name.clone(), |name, which| name.replace(names[1][which], names[0][which]));
        values.clone_from(&one.tensors[&renamed]);
    }
    let tokens = tokens(75, 20);
    let [one, other] = [one, other].map(|tiny| logits_of(&tiny.folder(Form::Divide), &tokens));
    assert_same_bits(&one, &other, "1bitLLM's names");
}

#[test]
fn weights_that_are_ternary_already_keep_their_size() {
    // 0.125 · trit before quantisation, against the same codes packed with the unit 0.125.
    let mut tiny = Tiny::new(Shape::MICROSOFT, 76);
    let mut packed = tiny.stored(Form::Multiply);
    for tensor in packed.iter_mut().filter(|tensor| tensor.name.ends_with("_scale")) {
        tensor.bytes = 0.125_f32.to_le_bytes().to_vec();
    }
    let matrices: Vec<String> =
        tiny.tensors.keys().filter(|name| name.contains("_proj")).cloned().collect();
    for name in matrices {
        let trits = tiny.tensors[&name].trits().trits;
        for (weight, trit) in tiny.values_mut(&name).iter_mut().zip(trits) {
            *weight = 0.125 * f32::from(trit);
        }
    }
    let tokens = tokens(76, 20);
    let folder = tiny.folder(Form::Multiply);
    folder.put("model.safetensors", &tercet_tests::files::safetensors(&packed));
    let expected = logits_of(&folder, &tokens);
    let got = logits_of(&tiny.folder(Form::Online("BF16")), &tokens);
    assert_same_bits(&expected, &got, "signs and magnitude");
}

#[test]
fn data_at_any_address_is_the_same_data() {
    for form in [Form::Online("F32"), Form::Online("F16"), Form::Online("BF16"), Form::Multiply] {
        let tiny = Tiny::new(Shape::MICROSOFT, 77);
        let tokens = tokens(77, 20);
        let folder = tiny.folder(form);
        let expected = logits_of(&folder, &tokens);
        let (header, data) = safetensors_parts(&tiny.stored(form));
        let header = serde_json::Value::Object(header).to_string();
        for spaces in 1..8 {
            let header = header.clone() + &" ".repeat(spaces);
            folder.put("model.safetensors", &safetensors_bytes(&header, &data));
            let what = format!("{form:?}, data at {} mod 8", header.len() % 8);
            assert_same_bits(&expected, &logits_of(&folder, &tokens), &what);
        }
    }
}

#[test]
fn chunks_and_threads_change_nothing() {
    for (seed, shape) in (78..).zip(Shape::ALL) {
        let folder = Tiny::new(shape.clone(), seed).folder(Form::Multiply);
        let package = folder.package();
        let tokens = tokens(seed, 150);
        let expected = logits(&package, Cpu::portable(), &tokens, 1, KvType::F16);
        for package in [package, converted(&folder, WeightLayout::Base3)] {
            for cpu in Cpu::every() {
                for chunk in [1, 7, 32, 64, 150] {
                    let got = logits(&package, cpu, &tokens, chunk, KvType::F16);
                    let (name, layout) = (shape.architecture, package.checkpoint.layout());
                    let what = format!("{name} {layout:?} {cpu:?} in chunks of {chunk}");
                    assert_same_bits(&expected, &got, &what);
                }
            }
        }
    }
}

#[test]
fn a_sequence_is_the_same_in_any_company() {
    for (seed, shape) in (82..).zip(Shape::ALL) {
        let folder = Tiny::new(shape.clone(), seed).folder(Form::Multiply);
        let package = folder.package();
        let lengths = [40, 3, 17, 25, 1];
        let sequences: Vec<Vec<u32>> =
            lengths.iter().map(|length| tokens(seed + *length as u64, *length)).collect();
        let alone: Vec<Vec<f32>> = sequences
            .iter()
            .map(|tokens| logits(&package, Cpu::fast(), tokens, 8, KvType::F16))
            .collect();

        for package in [package, converted(&folder, WeightLayout::Base3)] {
            let together = together(&package, &shape, seed, &sequences);
            for (slot, (alone, together)) in alone.iter().zip(&together).enumerate() {
                let layout = package.checkpoint.layout();
                let what = format!("{} {layout:?} sequence {slot}", shape.architecture);
                assert_same_bits(alone, together, &what);
            }
        }
    }
}

/// The logits of all sequences, of which each step takes a random stretch if it is not over.
fn together(package: &Package, shape: &Shape, seed: u64, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let slots = sequences.len();
    let limits = Limits { slots, positions_max: 40, rows_max: 64, logits_max: 64, kv: KvType::F16 };
    let mut together = vec![Vec::new(); slots];
    let mut random = Random::new(seed);
    with_ops(package, Cpu::fast(), limits, |mut ops| {
        let over = |slot: usize, together: &[Vec<f32>]| {
            together[slot].len() == sequences[slot].len() * shape.vocab
        };
        while !(0..slots).all(|slot| over(slot, &together)) {
            let mut batch: Vec<Row> = Vec::new();
            for (slot, tokens) in sequences.iter().enumerate() {
                let first = together[slot].len() / shape.vocab;
                let last = (first + random.below(10)).min(tokens.len());
                batch.extend(rows(slot, first, &tokens[first..last]));
            }
            if batch.is_empty() {
                continue;
            }
            let logits = step(&mut ops, shape.layers, &batch).expect("no error");
            for (row, logits) in batch.iter().zip(logits.chunks_exact(shape.vocab)) {
                together[row.slot].extend_from_slice(logits);
            }
        }
    });
    together
}

#[test]
fn a_half_precision_cache_is_nearly_a_single_precision_cache() {
    let folder = Tiny::new(Shape::MICROSOFT, 86).folder(Form::Multiply);
    let tokens = tokens(86, 100);
    let [single, half] = [KvType::F32, KvType::F16]
        .map(|kv| logits(&folder.package(), Cpu::fast(), &tokens, 32, kv));
    assert_ne!(single, half, "the cache has the type that was asked for");
    let count = single.len() as f64;
    let mean = single.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let square = single.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    let difference =
        single.iter().zip(&half).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / count;
    KV_F16.check_at_most(difference / square.sqrt(), "mean difference of the logits");
}
