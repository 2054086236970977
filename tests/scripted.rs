//! A model that says what it is told to, token by token, whatever it is asked.
//!
//! Its layers add nothing, because their norms are zero. What is left of a decoder is a table: the
//! head's row of a token is the embedding of the token before it, so that `--greedy` chooses it.

use serde_json::Value;

use crate::files::{FIRST_BYTE_ID, byte_tokenizer, safetensors};
use crate::fixture::{Form, Shape, Tiny};
use crate::folder::Folder;
use crate::random::Random;

/// Width of the embeddings: signs at random, so that two tokens have little in common. The product
/// of one with itself is the width; of the products of 4096 with each other, the largest is about
/// six times the width's root.
const HIDDEN: usize = 256;

/// The id that ends an answer.
const END: usize = 2;

/// Writes a model that answers `tokens` and ends. Tokens are bytes, each different from the others
/// and from single bytes.
///
/// # Panics
///
/// When two tokens are equal, and when the system has no room for a temporary folder.
pub fn scripted(tokens: &[Vec<u8>]) -> Folder {
    let first = FIRST_BYTE_ID as usize + 256;
    let shape = Shape {
        hidden: HIDDEN,
        ffn: 128,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        vocab: first + tokens.len(),
        positions: 8192,
        ..Shape::LLAMA
    };
    let mut model = Tiny::new(shape, 1);
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        model.values_mut(&format!("model.layers.0.{norm}.weight")).fill(0.0);
    }
    model.values_mut("model.norm.weight").fill(1.0);

    let mut random = Random::new(2);
    let mut signs = || -> Vec<f32> {
        (0..HIDDEN).map(|_| if random.below(2) == 0 { 1.0 } else { -1.0 }).collect()
    };
    let mut embedding = signs();
    model.values_mut("lm_head.weight").fill(0.0);
    // All that a prompt can end in looks alike, and leads to the first token of the answer.
    for row in model.values_mut("model.embed_tokens.weight").chunks_exact_mut(HIDDEN) {
        row.copy_from_slice(&embedding);
    }
    for id in (first..first + tokens.len()).chain([END]) {
        let row = id * HIDDEN..(id + 1) * HIDDEN;
        model.values_mut("lm_head.weight")[row.clone()].copy_from_slice(&embedding);
        embedding = signs();
        model.values_mut("model.embed_tokens.weight")[row].copy_from_slice(&embedding);
    }

    let folder = Folder::new();
    folder.put_json("config.json", &model.config(Form::Online("BF16")));
    folder.put_json("tokenizer.json", &tokenizer(tokens, first));
    folder.put("model.safetensors", &safetensors(&model.stored(Form::Online("BF16"))));
    folder
}

/// The tokenizer of bytes, and `tokens` from the id `first` on.
fn tokenizer(tokens: &[Vec<u8>], first: usize) -> Value {
    let mut json = byte_tokenizer();
    let Some(vocab) = json["model"]["vocab"].as_object_mut() else {
        unreachable!("a tokenizer has a vocabulary")
    };
    let letters: Vec<String> = {
        let letter = |(word, id): (&String, &Value)| Some((id.as_u64()?, word.clone()));
        let mut bytes: Vec<_> = vocab.iter().filter_map(letter).collect();
        bytes.sort_unstable();
        bytes.into_iter().skip(FIRST_BYTE_ID as usize).map(|(_, letter)| letter).collect()
    };
    for (number, token) in tokens.iter().enumerate() {
        let word: String = token.iter().map(|&byte| letters[usize::from(byte)].as_str()).collect();
        let former = vocab.insert(word, (first + number).into());
        assert_eq!(former, None, "token {number} is there already");
    }
    json
}
