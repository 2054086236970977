//! From names to roles. The names of Hugging Face's layouts stand in this file and, to be written,
//! in `synth/names.rs` (transformers 5.23.0 `models/{llama,bitnet,opt}`, BitBLAS 0c51e34
//! `integration/BitNet/modeling_bitnet.py`).

use core::cell::RefCell;

use safetensors::Dtype;

use super::{FloatMatrix, Layer, Linear, LinearWeights, Model, ModelError, Norm};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::{LinearKind, ModelConfig, Positions, Topology, UnitRule};
use crate::floats::FloatType;
use crate::layout::WeightLayout;
use crate::ternary::{Codes, TernaryMatrix};

/// The names of the two sub-norms of a layer.
type SubNorms = Option<(&'static str, &'static str)>;

/// 1bitLLM's names and Microsoft's names for the same two norms.
const SUB_NORMS: [(&str, &str); 2] = [
    ("self_attn.inner_attn_ln", "mlp.ffn_layernorm"),
    ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm"),
];

/// Finds and checks every tensor that `config` asks for.
pub(super) fn bind(checkpoint: &Checkpoint, config: ModelConfig) -> Result<Model<'_>, ModelError> {
    let plain_tensors = RefCell::new(Vec::new());
    let bind = Bind { checkpoint, config: &config, plain_tensors: &plain_tensors };
    let ModelConfig { hidden, vocab, .. } = config;
    let root = bind.root();
    let embedding = bind.floats(&format!("{root}embed_tokens.weight"), vocab, hidden)?;
    let positions = match config.positions {
        Positions::Rotary { .. } => None,
        Positions::Learned { offset } => {
            let rows = config.positions_max + offset;
            Some(bind.floats(&format!("{root}embed_positions.weight"), rows, hidden)?)
        }
    };
    let untied = "lm_head.weight";
    let tied = config.tied_head.unwrap_or(checkpoint.tensor(untied).is_none());
    let head = if tied { embedding } else { bind.floats(untied, vocab, hidden)? };
    let sub_norms = bind.sub_norms()?;
    let layers = (0..config.layers)
        .map(|layer| match config.topology {
            Topology::LlamaLike => bind.llama_like_layer(layer, sub_norms),
            Topology::OptLike => bind.opt_like_layer(layer, root),
        })
        .collect::<Result<_, _>>()?;
    let final_norm = match config.topology {
        Topology::LlamaLike => bind.norm("model.norm", hidden)?,
        Topology::OptLike => bind.norm(&format!("{root}final_layer_norm"), hidden)?,
    };
    let plain_tensors = plain_tensors.into_inner();
    Ok(Model { embedding, positions, layers, final_norm, head, plain_tensors, config })
}

/// The table from names to roles.
struct Bind<'c, 'a> {
    checkpoint: &'c Checkpoint,
    config: &'a ModelConfig,
    plain_tensors: &'a RefCell<Vec<String>>,
}

impl<'c> Bind<'c, '_> {
    /// What stands before the names of the decoder's tensors.
    fn root(&self) -> &'static str {
        match self.config.topology {
            Topology::LlamaLike => "model.",
            // The first OPT checkpoints were saved without the outer module.
            Topology::OptLike
                if self.checkpoint.tensor("decoder.embed_tokens.weight").is_some() =>
            {
                "decoder."
            }
            Topology::OptLike => "model.decoder.",
        }
    }

    /// LLaMA, Vicuna, BitNet b1.58.
    fn llama_like_layer(&self, layer: usize, sub_norms: SubNorms) -> Result<Layer<'c>, ModelError> {
        let ModelConfig { hidden, ffn, attention_bias, ffn_bias, .. } = *self.config;
        let (query, kv) = (self.config.query_width(), self.config.kv_width());
        let name = |role: &str| format!("model.layers.{layer}.{role}");
        let attention = |role: &str, rows, cols| {
            self.linear(&name(&format!("self_attn.{role}_proj")), rows, cols, attention_bias)
        };
        let mlp = |role: &str, rows, cols| {
            self.linear(&name(&format!("mlp.{role}_proj")), rows, cols, ffn_bias)
        };
        let sub_norm =
            |role: Option<&str>, width| role.map(|role| self.norm(&name(role), width)).transpose();
        Ok(Layer {
            attention_norm: self.norm(&name("input_layernorm"), hidden)?,
            qkv: [
                attention("q", query, hidden)?,
                attention("k", kv, hidden)?,
                attention("v", kv, hidden)?,
            ],
            attention_sub_norm: sub_norm(sub_norms.map(|names| names.0), query)?,
            attention_out: attention("o", hidden, query)?,
            ffn_norm: self.norm(&name("post_attention_layernorm"), hidden)?,
            gate: Some(mlp("gate", ffn, hidden)?),
            up: mlp("up", ffn, hidden)?,
            ffn_sub_norm: sub_norm(sub_norms.map(|names| names.1), ffn)?,
            down: mlp("down", hidden, ffn)?,
        })
    }

    /// OPT.
    fn opt_like_layer(&self, layer: usize, root: &str) -> Result<Layer<'c>, ModelError> {
        let ModelConfig { hidden, ffn, attention_bias, ffn_bias, .. } = *self.config;
        let name = |role: &str| format!("{root}layers.{layer}.{role}");
        let attention = |role: &str| {
            self.linear(&name(&format!("self_attn.{role}_proj")), hidden, hidden, attention_bias)
        };
        let mut key = attention("k")?;
        // Softmax takes it out again: see `Model::centre_keys`, which puts another in its place.
        key.bias = None;
        Ok(Layer {
            attention_norm: self.norm(&name("self_attn_layer_norm"), hidden)?,
            qkv: [attention("q")?, key, attention("v")?],
            attention_sub_norm: None,
            attention_out: attention("out")?,
            ffn_norm: self.norm(&name("final_layer_norm"), hidden)?,
            gate: None,
            up: self.linear(&name("fc1"), ffn, hidden, ffn_bias)?,
            ffn_sub_norm: None,
            down: self.linear(&name("fc2"), hidden, ffn, ffn_bias)?,
        })
    }

    /// Which sub-norms the first layer has, held against what the architecture has.
    fn sub_norms(&self) -> Result<SubNorms, ModelError> {
        let has =
            |role: &str| self.checkpoint.tensor(&format!("model.layers.0.{role}.weight")).is_some();
        let found = SUB_NORMS.into_iter().find(|names| has(names.0) || has(names.1));
        let wanted =
            matches!(&*self.config.architecture, "BitnetForCausalLM" | "BitNetForCausalLM");
        let error = |got, wanted| {
            let architecture = self.config.architecture.clone();
            Err(ModelError::SubNorms { architecture, got, wanted })
        };
        match (found, wanted) {
            (None, true) => error("no sub-norms", "two in every layer"),
            (Some(_), false) => error("sub-norms", "none"),
            (found, _) => Ok(found),
        }
    }

    fn tensor(&self, name: &str) -> Result<Tensor<'c>, ModelError> {
        self.checkpoint.tensor(name).ok_or_else(|| ModelError::Missing { tensor: name.to_owned() })
    }

    /// A tensor of floats of exactly this shape.
    fn shaped(&self, name: &str, shape: &[usize]) -> Result<(FloatType, &'c [u8]), ModelError> {
        let tensor = self.tensor(name)?;
        let float = FloatType::of(tensor.dtype).ok_or_else(|| ModelError::Dtype {
            tensor: name.to_owned(),
            wanted: "F32, F16 or BF16",
            got: tensor.dtype,
        })?;
        check_shape(name, &tensor, shape)?;
        Ok((float, tensor.bytes))
    }

    fn floats(&self, name: &str, rows: usize, cols: usize) -> Result<FloatMatrix<'c>, ModelError> {
        let (float, bytes) = self.shaped(name, &[rows, cols])?;
        self.plain_tensors.borrow_mut().push(name.to_owned());
        Ok(FloatMatrix { rows, cols, float, bytes })
    }

    /// `PREFIX.weight` and, for a layer norm, `PREFIX.bias`.
    fn norm(&self, prefix: &str, width: usize) -> Result<Norm, ModelError> {
        let layer_norm = self.config.topology == Topology::OptLike;
        Ok(Norm {
            weight: self.vector(format!("{prefix}.weight"), width)?,
            bias: layer_norm.then(|| self.vector(format!("{prefix}.bias"), width)).transpose()?,
        })
    }

    /// A decoded vector of finite numbers.
    fn vector(&self, name: String, width: usize) -> Result<Vec<f32>, ModelError> {
        let (float, bytes) = self.shaped(&name, &[width])?;
        let mut vector = vec![0.0; width];
        float.decode(bytes, &mut vector);
        match vector.iter().find(|number| !number.is_finite()) {
            Some(&got) => Err(ModelError::Number { tensor: name, got, wanted: "finite numbers" }),
            None => {
                self.plain_tensors.borrow_mut().push(name);
                Ok(vector)
            }
        }
    }

    /// `PREFIX.weight`, ternary or not as the config says, and `PREFIX.bias`.
    fn linear(
        &self,
        prefix: &str,
        rows: usize,
        cols: usize,
        bias: bool,
    ) -> Result<Linear<'c>, ModelError> {
        let weights = match self.config.linears {
            LinearKind::Ternary => LinearWeights::Ternary(self.ternary(prefix, rows, cols)?),
            LinearKind::Float => {
                LinearWeights::Float(self.floats(&format!("{prefix}.weight"), rows, cols)?)
            }
        };
        let bias = bias.then(|| self.vector(format!("{prefix}.bias"), rows)).transpose()?;
        Ok(Linear { weights, bias })
    }

    /// A ternary matrix, whichever of the four ways it is stored in.
    fn ternary(
        &self,
        prefix: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TernaryMatrix<'c>, ModelError> {
        let name = format!("{prefix}.weight");
        // A norm in front of one linear changes the result and no shape (transformers PR 38087).
        let inner_norm = format!("{prefix}.rms_norm.weight");
        if self.checkpoint.tensor(&inner_norm).is_some() {
            return Err(ModelError::SubNorms {
                architecture: self.config.architecture.clone(),
                got: "a norm inside every linear",
                wanted: "none",
            });
        }
        let tensor = self.tensor(&name)?;
        let codes = if tensor.dtype == Dtype::U8
            && let Some(layout) = self.checkpoint.layout()
        {
            let unit = self.unit(&format!("{prefix}.weight_unit"))?;
            check_shape(&name, &tensor, &[rows, layout.row_bytes(cols)])?;
            match layout {
                WeightLayout::Rows128 => Codes::Rows128 { bytes: tensor.bytes, unit },
                WeightLayout::Base3 => Codes::Base3 { bytes: tensor.bytes, unit },
            }
        } else if tensor.dtype == Dtype::U8 {
            let stored = self.unit(&format!("{prefix}.weight_scale"))?;
            let unit = match self.config.unit_rule {
                UnitRule::Multiply => stored,
                UnitRule::Divide => 1.0 / stored,
            };
            check_shape(&name, &tensor, &[rows.div_ceil(4), cols])?;
            Codes::Quarters { bytes: tensor.bytes, unit }
        } else if let Some(float) = FloatType::of(tensor.dtype) {
            check_shape(&name, &tensor, &[rows, cols])?;
            Codes::Master { bytes: tensor.bytes, float }
        } else {
            let wanted = "U8, F32, F16 or BF16";
            return Err(ModelError::Dtype { tensor: name, wanted, got: tensor.dtype });
        };
        Ok(TernaryMatrix { name, rows, cols, codes })
    }

    /// A single positive number, and so is its reciprocal.
    fn unit(&self, name: &str) -> Result<f32, ModelError> {
        let (float, bytes) = self.shaped(name, &[1])?;
        let mut unit = [0.0];
        float.decode(bytes, &mut unit);
        let got = unit[0];
        let usable = got > 0.0 && got.is_finite() && (1.0 / got).is_finite();
        if usable {
            Ok(got)
        } else {
            let wanted = "a positive finite number";
            Err(ModelError::Number { tensor: name.to_owned(), got, wanted })
        }
    }
}

fn check_shape(name: &str, tensor: &Tensor<'_>, expected: &[usize]) -> Result<(), ModelError> {
    if tensor.shape == expected {
        return Ok(());
    }
    Err(ModelError::Shape {
        tensor: name.to_owned(),
        expected: expected.to_vec(),
        got: tensor.shape.to_vec(),
    })
}
