//! Tiny models with seeded numbers, written as the folders that Hugging Face's tools write.
//!
//! A [`Tiny`] holds its numbers once. All of them are exact in F32, F16 and BF16, so every way to
//! store the model must give the same logits to the bit.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::files::{Stored, byte_tokenizer, float_bytes, quarters, safetensors};
use crate::folder::Folder;
use crate::random::Random;

/// Sizes and switches of a tiny model.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the words of config.json")]
pub struct Shape {
    pub architecture: &'static str,
    pub hidden: usize,
    pub ffn: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub positions: usize,
    pub activation: &'static str,
    /// Names of the norms before `o_proj` and `down_proj`.
    pub sub_norms: Option<[&'static str; 2]>,
    pub tied: bool,
    pub theta: f64,
    pub eps: f64,
}

impl Shape {
    /// As bitnet-b1.58-2B-4T: squared ReLU, Microsoft's norms, shared key/value heads, tied head.
    pub const MICROSOFT: Self = Self {
        architecture: "BitNetForCausalLM",
        hidden: 96,
        ffn: 200,
        layers: 2,
        heads: 6,
        kv_heads: 2,
        head_dim: 16,
        vocab: 263,
        positions: 256,
        activation: "relu2",
        sub_norms: Some(["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"]),
        tied: true,
        theta: 5e5,
        eps: 1e-5,
    };

    /// As 1bitLLM's models: SiLU, their norms, a head of its own; rows that do not fill a byte.
    pub const ONE_BIT: Self = Self {
        architecture: "BitnetForCausalLM",
        hidden: 160,
        ffn: 346,
        layers: 2,
        heads: 9,
        kv_heads: 9,
        head_dim: 10,
        vocab: 263,
        positions: 256,
        activation: "silu",
        sub_norms: Some(["self_attn.inner_attn_ln", "mlp.ffn_layernorm"]),
        tied: false,
        theta: 1e4,
        eps: 1e-5,
    };

    /// As Llama3-8B-1.58 and Falcon3-1.58bit: no sub-norms, heads wider than the stream.
    pub const LLAMA: Self = Self {
        architecture: "LlamaForCausalLM",
        hidden: 96,
        ffn: 344,
        layers: 2,
        heads: 6,
        kv_heads: 3,
        head_dim: 64,
        vocab: 263,
        positions: 256,
        activation: "silu",
        sub_norms: None,
        tied: false,
        theta: 5e5,
        eps: 1e-6,
    };

    /// The three of them.
    pub const ALL: [Self; 3] = [Self::MICROSOFT, Self::ONE_BIT, Self::LLAMA];

    /// Elements of the query row.
    pub fn query(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of the key row, and of the value row.
    pub fn kv(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// What a tensor is for, which decides its numbers and how it may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Table,
    Norm,
    Ternary,
}

/// A tensor of a tiny model.
#[derive(Debug, Clone)]
pub struct Values {
    /// Its extents.
    pub shape: Vec<usize>,
    /// Row-major; of a ternary linear the weights before quantisation.
    pub values: Vec<f32>,
    role: Role,
}

/// A ternary linear as formats.md 2.1 quantises it.
#[derive(Debug, Clone)]
pub struct Trits {
    /// `(rows, cols)`
    pub trits: Vec<i8>,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Mean magnitude of the weights, the real size of a trit.
    pub unit: f64,
}

impl Values {
    /// Quantises: `clamp(round_half_even(w / γ), -1, 1)` with `γ = mean |w|`.
    ///
    /// # Panics
    ///
    /// When a weight lies so near a half that rounding of `γ` decides.
    pub fn trits(&self) -> Trits {
        let sum: f64 = self.values.iter().map(|weight| f64::from(weight.abs())).sum();
        let unit = sum / self.values.len() as f64;
        let trit = |weight: &f32| {
            let ratio = f64::from(*weight) / unit;
            assert!((ratio.abs() - 0.5).abs() > 1e-6, "ambiguous weight: take another seed");
            ratio.round_ties_even().clamp(-1.0, 1.0) as i8
        };
        let trits = self.values.iter().map(trit).collect();
        Trits { trits, rows: self.shape[0], cols: self.shape[1], unit }
    }
}

/// How ternary weights stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Before quantisation, in this float type: `F32`, `F16`, `BF16`.
    Online(&'static str),
    /// Packed, `weight_scale` is the unit (`autobitlinear`).
    Multiply,
    /// Packed, `weight_scale` is one over the unit (`bitlinear`).
    Divide,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Online("F32"),
        Self::Online("F16"),
        Self::Online("BF16"),
        Self::Multiply,
        Self::Divide,
    ];
}

/// A tiny model.
#[derive(Debug, Clone)]
pub struct Tiny {
    /// Its sizes.
    pub shape: Shape,
    /// Its numbers, by the names of the format.
    pub tensors: BTreeMap<String, Values>,
}

impl Tiny {
    /// The model of `shape` with the numbers of `seed`.
    pub fn new(shape: Shape, seed: u64) -> Self {
        let mut tiny = Self { shape: shape.clone(), tensors: BTreeMap::new() };
        let mut random = Random::new(seed);
        let Shape { hidden, ffn, vocab, .. } = shape;
        let (query, kv) = (shape.query(), shape.kv());
        let mut add = |name: String, shape: &[usize], role| {
            let count = shape.iter().product();
            let values = (0..count).map(|_| number(role, &mut random)).collect();
            tiny.tensors.insert(name, Values { shape: shape.to_vec(), values, role });
        };
        add("model.embed_tokens.weight".into(), &[vocab, hidden], Role::Table);
        add("model.norm.weight".into(), &[hidden], Role::Norm);
        if !shape.tied {
            add("lm_head.weight".into(), &[vocab, hidden], Role::Table);
        }
        for layer in 0..shape.layers {
            let mut add = |name: &str, shape: &[usize], role| {
                add(format!("model.layers.{layer}.{name}.weight"), shape, role);
            };
            add("input_layernorm", &[hidden], Role::Norm);
            add("post_attention_layernorm", &[hidden], Role::Norm);
            if let Some([attention, feed_forward]) = shape.sub_norms {
                add(attention, &[query], Role::Norm);
                add(feed_forward, &[ffn], Role::Norm);
            }
            for (name, rows, cols) in [
                ("self_attn.q_proj", query, hidden),
                ("self_attn.k_proj", kv, hidden),
                ("self_attn.v_proj", kv, hidden),
                ("self_attn.o_proj", hidden, query),
                ("mlp.gate_proj", ffn, hidden),
                ("mlp.up_proj", ffn, hidden),
                ("mlp.down_proj", hidden, ffn),
            ] {
                add(name, &[rows, cols], Role::Ternary);
            }
        }
        tiny
    }

    /// The numbers of a tensor.
    ///
    /// # Panics
    ///
    /// When there is none of this name.
    pub fn values(&self, name: &str) -> &[f32] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("no tensor `{name}`")).values
    }

    /// The same, to change.
    ///
    /// # Panics
    ///
    /// When there is none of this name.
    pub fn values_mut(&mut self, name: &str) -> &mut [f32] {
        &mut self.tensors.get_mut(name).unwrap_or_else(|| panic!("no tensor `{name}`")).values
    }

    /// A tensor of a layer, quantised: `trits(0, "mlp.up_proj")`.
    ///
    /// # Panics
    ///
    /// When there is none of this name.
    pub fn trits(&self, layer: usize, name: &str) -> Trits {
        self.tensors[&format!("model.layers.{layer}.{name}.weight")].trits()
    }

    /// Makes every norm weight 1.
    pub fn without_norm_weights(mut self) -> Self {
        for tensor in self.tensors.values_mut().filter(|tensor| tensor.role == Role::Norm) {
            tensor.values.fill(1.0);
        }
        self
    }

    /// `config.json`.
    pub fn config(&self, form: Form) -> Value {
        let shape = &self.shape;
        let (class, mode) = match form {
            Form::Online(_) => ("autobitlinear", "online"),
            Form::Multiply => ("autobitlinear", "offline"),
            Form::Divide => ("bitlinear", "offline"),
        };
        json!({
            "architectures": [shape.architecture],
            "hidden_size": shape.hidden,
            "intermediate_size": shape.ffn,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "vocab_size": shape.vocab,
            "max_position_embeddings": shape.positions,
            "rms_norm_eps": shape.eps,
            "rope_theta": shape.theta,
            "hidden_act": shape.activation,
            "tie_word_embeddings": shape.tied,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": class,
                "quantization_mode": mode,
            },
        })
    }

    /// The tensors as a file holds them.
    pub fn stored(&self, form: Form) -> Vec<Stored> {
        let mut stored = Vec::new();
        for (name, tensor) in &self.tensors {
            let packed = tensor.role == Role::Ternary && !matches!(form, Form::Online(_));
            if !packed {
                let dtype = if let Form::Online(dtype) = form { dtype } else { "F32" };
                let bytes = float_bytes(dtype, &tensor.values);
                let (name, shape) = (name.clone(), tensor.shape.clone());
                stored.push(Stored { name, dtype, shape, bytes });
                continue;
            }
            let Trits { trits, rows, cols, unit } = tensor.trits();
            let per_unit = 1.0 / unit as f32;
            let scale = if form == Form::Divide { per_unit } else { 1.0 / per_unit };
            stored.push(Stored {
                name: name.clone(),
                dtype: "U8",
                shape: vec![rows.div_ceil(4), cols],
                bytes: quarters(&trits, rows, cols),
            });
            stored.push(Stored {
                name: format!("{name}_scale"),
                dtype: "F32",
                shape: vec![1],
                bytes: scale.to_le_bytes().to_vec(),
            });
        }
        stored
    }

    /// Writes the model as a folder with one file of weights.
    pub fn folder(&self, form: Form) -> Folder {
        let folder = Folder::new();
        folder.put_json("config.json", &self.config(form));
        folder.put_json("tokenizer.json", &byte_tokenizer());
        folder.put("model.safetensors", &safetensors(&self.stored(form)));
        folder
    }

    /// Writes the model as a folder with `shards` files of weights and their index.
    pub fn sharded_folder(&self, form: Form, shards: usize) -> Folder {
        let folder = Folder::new();
        folder.put_json("config.json", &self.config(form));
        folder.put_json("tokenizer.json", &byte_tokenizer());
        let stored = self.stored(form);
        let mut weight_map = serde_json::Map::new();
        for (number, tensors) in stored.chunks(stored.len().div_ceil(shards)).enumerate() {
            let file = format!("model-{:05}-of-{shards:05}.safetensors", number + 1);
            folder.put(&file, &safetensors(tensors));
            let names = tensors.iter().map(|tensor| tensor.name.clone());
            weight_map.extend(names.map(|name| (name, Value::from(file.as_str()))));
        }
        folder.put_json("model.safetensors.index.json", &json!({ "weight_map": weight_map }));
        folder
    }
}

/// A number that is exact in all three float types.
fn number(role: Role, random: &mut Random) -> f32 {
    match role {
        Role::Table => random.around_zero(127) as f32 / 64.0,
        Role::Ternary => random.around_zero(127) as f32 / 512.0,
        Role::Norm => {
            let size = (128 + random.below(128)) as f32 / 256.0;
            if random.below(8) == 0 { -size } else { size }
        }
    }
}
