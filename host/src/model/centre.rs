//! [`Model::centre_keys`]: what all keys of a head share is left out of them.

use tercet_core::Simd;

use super::Model;
use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, Buffer, DeviceError, KvType, Limits, Ops, Row, TokenId};
use crate::config::Positions;
use crate::forward::forward_layer;

/// Tokens that keys are measured on: more find the same middle, and take longer.
const TOKENS: usize = 16;

impl Model<'_> {
    /// Moves the keys of every head so that their middle is zero, for a cache of halves (`kv`) and
    /// where positions are learned: what is added to all keys alike adds the same number to every
    /// score of a query, and softmax takes it out again. Keys that are cached as halves lose less
    /// near zero: of a trained OPT logits come four times as near. Nothing is done for a cache of
    /// singles, nor where positions are rotary.
    ///
    /// The middle is that of some tokens' keys, from the vocabulary's whole length, whatever text
    /// comes later: which they are matters little. They are run on the CPU, which reads every
    /// weight once; `progress` hears of how many bytes that is done.
    ///
    /// Source: the keys' mean is subtracted in SageAttention as well (arXiv 2410.02367, 4.2), there
    /// that of the call at hand.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] of the CPU: too little memory, damaged weights.
    pub fn centre_keys(
        &mut self,
        kv: KvType,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), DeviceError> {
        let config = self.config.clone();
        if kv == KvType::F32 || matches!(config.positions, Positions::Rotary { .. }) {
            return Ok(());
        }
        let count = TOKENS.min(config.positions_max);
        let (query, kv_width) = (config.query_width(), config.kv_width());
        #[allow(clippy::cast_possible_truncation, reason = "a vocabulary is below 2^24")]
        let token = |position| (position * config.vocab / count) as TokenId;
        let row = |position| Row { slot: 0, position, token: token(position), logits: false };
        let rows: Vec<_> = (0..count).map(row).collect();
        let limits = Limits {
            slots: 1,
            positions_max: count,
            rows_max: count,
            logits_max: 1,
            kv: KvType::F32,
        };
        let mut middles = Vec::with_capacity(config.layers);
        {
            let cpu = CpuBackend::new(CpuBackend::default_threads(), Simd::detect())?;
            let weights = cpu.upload(self, &mut |_, _| {})?;
            let total = cpu.weights_bytes(&weights);
            let mut ops = cpu.ops(&weights, limits)?;
            ops.embed(&rows)?;
            for layer in 0..config.layers {
                forward_layer(&mut ops, layer)?;
                // Attention leaves keys without rotary positions as they are.
                let qkv = ops.read(Buffer::Qkv)?;
                let keys = qkv.chunks(query + 2 * kv_width);
                let keys = keys.map(|row| &row[query..query + kv_width]);
                middles.push(middle(keys));
                progress(total * (layer as u64 + 1) / config.layers as u64, total);
            }
        }
        for (layer, middle) in self.layers.iter_mut().zip(middles) {
            // Damaged weights are to be found out in the logits, as those of other models are.
            if let Some(middle) = middle.filter(|middle| middle.iter().all(|x| x.is_finite())) {
                let [_, key, _] = &mut layer.qkv;
                let bias = key.bias.get_or_insert_with(|| vec![0.0; kv_width]);
                bias.iter_mut().zip(middle).for_each(|(bias, middle)| *bias -= middle);
            }
        }
        Ok(())
    }
}

/// The mean of all keys but the first, which in large models is unlike the others: it is where
/// heads look that look nowhere. `None` where there are no others.
fn middle<'k>(mut keys: impl Iterator<Item = &'k [f32]>) -> Option<Vec<f32>> {
    keys.next()?;
    let mut sum = keys.next()?.to_vec();
    let mut count = 1.0;
    for key in keys {
        sum.iter_mut().zip(key).for_each(|(sum, x)| *sum += x);
        count += 1.0;
    }
    sum.iter_mut().for_each(|x| *x /= count);
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floats::FloatType;
    use crate::forward::{Cancel, forward};
    use crate::layout::WeightLayout;
    use crate::package::Package;
    use crate::preset::Preset;
    use crate::synth;

    /// What is measured once more is zero: it was taken from the keys, of their own layer, and in
    /// the right direction. And logits are what they were.
    #[test]
    fn centred_keys_have_their_middle_at_zero() {
        let opt = Preset {
            name: "a small OPT",
            model: "none",
            config: r#"{"architectures": ["OPTForCausalLM"], "activation_function": "relu",
                "hidden_size": 64, "ffn_dim": 128, "vocab_size": 300, "num_attention_heads": 2,
                "num_hidden_layers": 3, "max_position_embeddings": 64,
                "word_embed_proj_dim": 64, "do_layer_norm_before": true}"#,
            float: FloatType::F32,
        };
        let made = synth::in_memory(&opt, WeightLayout::Rows128, 1, &mut |_, _| {}).unwrap();
        let package = Package::from_checkpoint(made).unwrap();
        let plain = package.bind().unwrap();
        let mut model = package.bind().unwrap();
        let biases = |model: &Model<'_>| -> Vec<Vec<f32>> {
            model.layers.iter().map(|layer| layer.qkv[1].bias.clone().unwrap()).collect()
        };
        model.centre_keys(KvType::F32, &mut |_, _| {}).unwrap();
        assert_eq!(model.layers[0].qkv[1].bias, None, "singles lose nothing");
        model.centre_keys(KvType::F16, &mut |_, _| {}).unwrap();
        let once = biases(&model);
        let after = logits(&model);
        model.centre_keys(KvType::F16, &mut |_, _| {}).unwrap();
        for (once, twice) in once.iter().zip(&biases(&model)) {
            let size = once.iter().map(|x| x.abs()).sum::<f32>();
            let moved = once.iter().zip(twice).map(|(a, b)| (a - b).abs()).sum::<f32>();
            assert!(size > 0.0 && moved < 1e-4 * size, "{moved} of {size}");
        }
        let before = logits(&plain);
        let furthest = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 1e-4, "logits moved by {furthest}");
    }

    /// Those behind three tokens, keys as singles.
    fn logits(model: &Model<'_>) -> Vec<f32> {
        let cpu = CpuBackend::new(1, Simd::detect()).unwrap();
        let weights = cpu.upload(model, &mut |_, _| {}).unwrap();
        let limits =
            Limits { slots: 1, positions_max: 3, rows_max: 3, logits_max: 3, kv: KvType::F32 };
        let mut ops = cpu.ops(&weights, limits).unwrap();
        let row = |position| Row { slot: 0, position, token: 7, logits: true };
        let rows = [0, 1, 2].map(row);
        forward(&mut ops, model.config.layers, &rows, &Cancel::default()).unwrap();
        ops.read(Buffer::Logits).unwrap()
    }

    #[test]
    fn the_middle_is_the_mean_of_all_keys_but_the_first() {
        let keys = [[9.0, 9.0], [1.0, -2.0], [3.0, 0.0]];
        assert_eq!(middle(keys.iter().map(|key| &key[..])), Some(vec![2.0, -1.0]));
        assert_eq!(middle(keys[..1].iter().map(|key| &key[..])), None);
        assert_eq!(middle([].into_iter()), None);
    }
}
