//! Names and shapes of every tensor of a model: what `model/bind.rs` reads, to be written.

use super::tensors::{Role, Tensor};
use crate::config::{LinearKind, ModelConfig, Positions, Topology};

/// Every tensor of a model, in the order in which files hold them: linears, tables, norms.
pub(super) fn tensors(config: &ModelConfig) -> Vec<Tensor> {
    let mut list = List { config, tensors: Vec::new() };
    match config.topology {
        Topology::LlamaLike => list.llama_like(),
        Topology::OptLike => list.opt_like(),
    }
    list.tensors
}

struct List<'c> {
    config: &'c ModelConfig,
    tensors: Vec<Tensor>,
}

impl List<'_> {
    /// LLaMA, Vicuna, BitNet b1.58.
    fn llama_like(&mut self) {
        let ModelConfig { hidden, ffn, layers, attention_bias, ffn_bias, .. } = *self.config;
        let (query, kv) = (self.config.query_width(), self.config.kv_width());
        for layer in 0..layers {
            let name = |role: &str| format!("model.layers.{layer}.{role}_proj");
            self.linear(name("self_attn.q"), query, hidden, attention_bias);
            self.linear(name("self_attn.k"), kv, hidden, attention_bias);
            self.linear(name("self_attn.v"), kv, hidden, attention_bias);
            self.linear(name("self_attn.o"), hidden, query, attention_bias);
            self.linear(name("mlp.gate"), ffn, hidden, ffn_bias);
            self.linear(name("mlp.up"), ffn, hidden, ffn_bias);
            self.linear(name("mlp.down"), hidden, ffn, ffn_bias);
        }
        self.tables("model.");
        let sub_norms: &[(&str, usize)] = match self.config.architecture.as_str() {
            "BitnetForCausalLM" => {
                &[("self_attn.inner_attn_ln", query), ("mlp.ffn_layernorm", ffn)]
            }
            "BitNetForCausalLM" => &[("self_attn.attn_sub_norm", query), ("mlp.ffn_sub_norm", ffn)],
            _ => &[],
        };
        let norms = [("input_layernorm", hidden), ("post_attention_layernorm", hidden)];
        for layer in 0..layers {
            for (role, width) in norms.iter().chain(sub_norms) {
                self.norm(&format!("model.layers.{layer}.{role}"), *width);
            }
        }
        self.norm("model.norm", hidden);
    }

    /// OPT.
    fn opt_like(&mut self) {
        let ModelConfig { hidden, ffn, layers, attention_bias, ffn_bias, .. } = *self.config;
        let root = "model.decoder.";
        for layer in 0..layers {
            for role in ["q", "k", "v", "out"] {
                let name = format!("{root}layers.{layer}.self_attn.{role}_proj");
                self.linear(name, hidden, hidden, attention_bias);
            }
            self.linear(format!("{root}layers.{layer}.fc1"), ffn, hidden, ffn_bias);
            self.linear(format!("{root}layers.{layer}.fc2"), hidden, ffn, ffn_bias);
        }
        self.tables(root);
        for layer in 0..layers {
            self.norm(&format!("{root}layers.{layer}.self_attn_layer_norm"), hidden);
            self.norm(&format!("{root}layers.{layer}.final_layer_norm"), hidden);
        }
        self.norm(&format!("{root}final_layer_norm"), hidden);
    }

    fn tables(&mut self, root: &str) {
        let ModelConfig { hidden, vocab, positions_max, .. } = *self.config;
        self.add(format!("{root}embed_tokens.weight"), vocab, hidden, Role::Table);
        if let Positions::Learned { offset } = self.config.positions {
            let rows = positions_max + offset;
            self.add(format!("{root}embed_positions.weight"), rows, hidden, Role::Table);
        }
        if self.config.tied_head == Some(false) {
            self.add("lm_head.weight".into(), vocab, hidden, Role::Table);
        }
    }

    fn linear(&mut self, name: String, rows: usize, cols: usize, bias: bool) {
        let role = match self.config.linears {
            LinearKind::Ternary => Role::Ternary,
            LinearKind::Float => Role::Float,
        };
        self.add(format!("{name}.weight"), rows, cols, role);
        if bias {
            self.add(format!("{name}.bias"), 1, rows, Role::Bias);
        }
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), 1, width, Role::Norm);
        if self.config.topology == Topology::OptLike {
            self.add(format!("{name}.bias"), 1, width, Role::Bias);
        }
    }

    fn add(&mut self, name: String, rows: usize, cols: usize, role: Role) {
        self.tensors.push(Tensor { name, rows, cols, role });
    }
}
