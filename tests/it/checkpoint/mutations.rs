//! Random damage: any error will do, a panic will not.

use serde_json::Value;
use tercet_host::config::ModelConfig;
use tercet_tests::files::{safetensors_bytes, safetensors_parts};
use tercet_tests::fixture::Form;
use tercet_tests::random::Random;

use super::{check, load, small};

/// Changes, removes, repeats or swaps a few bytes.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let place = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[place] = random.bits() as u8,
            1 => bytes[place] ^= 1 << random.below(8),
            2 => bytes[place] = b"0123456789-.eE\"{}[],:"[random.below(21)],
            3 => {
                bytes.remove(place);
            }
            4 => bytes.insert(place, bytes[place]),
            _ => {
                let other = random.below(bytes.len());
                bytes.swap(place, other);
            }
        }
    }
}

/// Loads `count` damaged copies of a file; returns how many were refused.
fn load_damaged(name: &str, whole: &[u8], damaged: usize, count: u32, seed: u64) -> u32 {
    let folder = small().folder(Form::Multiply);
    let mut random = Random::new(seed);
    let mut refused = 0;
    for _ in 0..count {
        let mut head = whole[..damaged].to_vec();
        damage(&mut head, &mut random);
        folder.put(name, &[&head, &whole[damaged..]].concat());
        if let Err(error) = load(folder.path()) {
            check(&error, error.exit_code());
            refused += 1;
        }
    }
    refused
}

#[test]
fn a_damaged_header_never_panics() {
    let (header, data) = safetensors_parts(&small().stored(Form::Multiply));
    let whole = safetensors_bytes(&Value::Object(header).to_string(), &data);
    let refused = load_damaged("model.safetensors", &whole, whole.len() - data.len(), 2000, 104);
    assert!(refused > 1900, "{refused} of 2000 were refused");
}

#[test]
fn a_damaged_config_never_panics() {
    let whole = small().config(Form::Multiply).to_string().into_bytes();
    let refused = load_damaged("config.json", &whole, whole.len(), 2000, 105);
    assert!((500..2000).contains(&refused), "{refused} of 2000 were refused");
}

#[test]
fn a_damaged_index_never_panics() {
    let folder = small().sharded_folder(Form::Multiply, 2);
    let name = "model.safetensors.index.json";
    let whole = std::fs::read(folder.join(name)).expect("an index");
    let mut random = Random::new(106);
    for _ in 0..1000 {
        let mut bytes = whole.clone();
        damage(&mut bytes, &mut random);
        folder.put(name, &bytes);
        if let Err(error) = load(folder.path()) {
            check(&error, error.exit_code());
        }
    }
}

#[test]
fn damage_of_any_depth_never_panics() {
    let whole = small().config(Form::Divide).to_string().into_bytes();
    let mut random = Random::new(107);
    let mut bytes = whole.clone();
    for round in 0..20_000 {
        if round % 50 == 0 {
            bytes.clone_from(&whole);
        }
        damage(&mut bytes, &mut random);
        if let Ok(config) = ModelConfig::parse(&bytes) {
            let widths = [config.hidden, config.ffn, config.query_width(), config.kv_width()];
            assert!(widths.iter().all(|width| (1..=1 << 17).contains(width)), "{config:?}");
            assert!(config.heads.is_multiple_of(config.kv_heads), "{config:?}");
            assert!(config.head_dim.is_multiple_of(2), "{config:?}");
        }
    }
}
