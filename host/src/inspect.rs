//! What a model is, in numbers; and whether every byte of it makes sense.

use serde::Serialize;

use crate::backend::cuda::kernels::{KernelSet, Origin, TERCET_CONTRACT_KEY, TERCET_PTX_PREFIX};
use crate::backend::{KvType, Limits};
use crate::config::LinearKind;
use crate::convert::{DigestReport, check_digests};
use crate::floats::FloatType;
use crate::kv::KvLayout;
use crate::layout::WeightLayout;
use crate::model::{FloatMatrix, Layer, Linear, LinearWeights, Model, ModelError};
use crate::package::Package;
use crate::ternary::Codes;

/// A model described; sizes in bytes unless their name says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are those of the model's config")]
pub struct Description {
    pub model: String,
    pub architecture: String,
    /// `tercet` or `hugging face folder`.
    pub format: &'static str,
    /// How the ternary weights are stored.
    pub weights: String,
    pub hidden: usize,
    pub ffn: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub positions_max: usize,
    pub activation: &'static str,
    pub sub_norms: bool,
    pub tied_head: bool,
    /// Number type of the embedding and the head.
    pub head: &'static str,
    pub parameters: u64,
    pub ternary_parameters: u64,
    /// Bits of a weight of the decoder's linears by information: log2 3 for a ternary one.
    pub bits_per_weight_nominal: f64,
    /// Bits of such a weight in the file, units included.
    pub bits_per_weight_stored: f64,
    /// Bits of such a weight in main memory, padding included.
    pub bits_per_weight_in_memory: f64,
    pub file_bytes: u64,
    pub memory: Memory,
    pub tokenizer_tokens: Option<usize>,
    /// SHA-256 of the chat template.
    pub chat_template: Option<String>,
    pub stop_tokens: Vec<u32>,
    /// GPU kernels that the file carries; `None` for a file without.
    pub kernels: Option<CarriedKernels>,
}

/// Kernels in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CarriedKernels {
    /// Version of the contract that they keep.
    pub contract: Option<String>,
    /// Name and bytes of each.
    pub modules: Vec<(String, u64)>,
    /// Whether all of them are on the list of released kernels, and would be used on a GPU.
    pub released: bool,
    /// Why not.
    pub refusal: Option<String>,
}

/// Memory that a session takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Packed matrices, embedding, head and norms.
    pub weights_bytes: u64,
    /// Keys and values of one token, half precision.
    pub kv_bytes_per_token: u64,
    /// Positions of the estimate.
    pub context: usize,
    /// Keys and values of the whole context, half precision.
    pub kv_bytes: u64,
}

/// Describes a model for a context of `context` positions. Reads headers and side files only.
///
/// # Errors
///
/// As [`Package::bind`].
pub fn describe(package: &Package, context: usize) -> Result<Description, ModelError> {
    let model = package.bind()?;
    let config = &model.config;
    let (ternary, parameters) = model.parameters();
    let linears = || model.layers.iter().flat_map(Layer::linears);
    let stored: u64 = linears().map(stored_bytes).sum();
    let in_memory: u64 = linears().map(bytes_in_memory).sum();
    let weights: usize = linears().map(Linear::parameters).sum();
    let head = if model.tied() { 0 } else { model.head.bytes.len() };
    let positions = model.positions.map_or(0, |table| table.bytes.len());
    let tables = (model.embedding.bytes.len() + head + positions) as u64;
    let kv = |positions_max| {
        let limits =
            Limits { slots: 1, positions_max, rows_max: 1, logits_max: 1, kv: KvType::F16 };
        4 * KvLayout::new(config, &limits).elements().unwrap_or(usize::MAX) as u64
    };
    let vectors = 4 * (parameters - weights as u64 - table_weights(&model));
    #[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
    let bits = |bytes: u64| 8.0 * bytes as f64 / weights as f64;
    Ok(Description {
        model: package.checkpoint.name().to_owned(),
        architecture: config.architecture.clone(),
        format: if package.checkpoint.is_tercet() { "tercet" } else { "hugging face folder" },
        weights: storage(&model),
        hidden: config.hidden,
        ffn: config.ffn,
        layers: config.layers,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        vocab: config.vocab,
        positions_max: config.positions_max,
        activation: config.activation.name(),
        sub_norms: model.layers.iter().any(|layer| layer.attention_sub_norm.is_some()),
        tied_head: model.tied(),
        head: model.head.float.name(),
        parameters,
        ternary_parameters: ternary,
        bits_per_weight_nominal: match config.linears {
            LinearKind::Ternary => 3_f64.log2(),
            LinearKind::Float => bits(stored),
        },
        bits_per_weight_stored: bits(stored),
        bits_per_weight_in_memory: bits(in_memory),
        file_bytes: package.checkpoint.file_bytes(),
        memory: Memory {
            weights_bytes: in_memory + tables + vectors,
            kv_bytes_per_token: 2 * 2 * (config.layers * config.kv_width()) as u64,
            context,
            kv_bytes: kv(context),
        },
        tokenizer_tokens: package
            .tokenizer
            .as_ref()
            .map(|tokenizer| tokenizer.max_id() as usize + 1),
        chat_template: package
            .chat
            .as_ref()
            .filter(|chat| chat.form().is_none())
            .map(|chat| chat.template().hash_hex()),
        stop_tokens: package.stop_tokens.clone(),
        kernels: carried_kernels(package),
    })
}

fn carried_kernels(package: &Package) -> Option<CarriedKernels> {
    let checkpoint = &package.checkpoint;
    let module = |tensor: String| {
        let bytes = checkpoint.tensor(&tensor)?.bytes.len() as u64;
        Some((tensor.strip_prefix(TERCET_PTX_PREFIX)?.to_owned(), bytes))
    };
    let modules: Vec<_> = checkpoint.tensor_names().filter_map(module).collect();
    if modules.is_empty() {
        return None;
    }
    let set = KernelSet::of(checkpoint, false);
    Some(CarriedKernels {
        contract: checkpoint.metadata(TERCET_CONTRACT_KEY).map(str::to_owned),
        modules,
        released: set.origin() == Origin::Released,
        refusal: set.refusal().map(ToString::to_string),
    })
}

/// Elements of the embedding, the head and the table of positions.
fn table_weights(model: &Model<'_>) -> u64 {
    let elements = |table: &FloatMatrix<'_>| (table.rows * table.cols) as u64;
    let head = if model.tied() { 0 } else { elements(&model.head) };
    elements(&model.embedding) + head + model.positions.as_ref().map_or(0, elements)
}

/// Bytes in the file: those of the weights, and the unit of a ternary matrix.
fn stored_bytes(linear: &Linear<'_>) -> u64 {
    let unit = if linear.ternary().is_some() { 4 } else { 0 };
    linear.stored_bytes() as u64 + unit
}

fn bytes_in_memory(linear: &Linear<'_>) -> u64 {
    match &linear.weights {
        LinearWeights::Ternary(matrix) => {
            let layout = match matrix.codes {
                Codes::Base3 { .. } => WeightLayout::Base3,
                Codes::Rows128 { .. } | Codes::Quarters { .. } | Codes::Master { .. } => {
                    WeightLayout::Rows128
                }
            };
            (matrix.rows * layout.row_bytes(matrix.cols)) as u64
        }
        LinearWeights::Float(matrix) => matrix.bytes.len() as u64,
    }
}

fn storage(model: &Model<'_>) -> String {
    match model.layers.first().map(|layer| &layer.down.weights) {
        Some(LinearWeights::Ternary(matrix)) => match matrix.codes {
            Codes::Rows128 { .. } => "2-bit codes, layout rows128".into(),
            Codes::Base3 { .. } => "base-3 digits (1.6 bits), layout base3".into(),
            Codes::Quarters { .. } => "2-bit codes, layout quarters (Hugging Face)".into(),
            Codes::Master { float, .. } => {
                format!("{} master weights, quantised when loaded", float.name())
            }
        },
        Some(LinearWeights::Float(matrix)) => format!("{} weights", matrix.float.name()),
        None => "none".into(),
    }
}

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// One sentence per problem; empty when all is well.
    pub problems: Vec<String>,
    /// Recorded digests, compared.
    pub digests: DigestReport,
}

/// Reads every weight: codes that are no trits, numbers that are not finite, digests that do not
/// match. `progress` hears tensors done and in all.
///
/// # Errors
///
/// As [`Package::bind`]: a model whose tensors cannot be bound cannot be checked.
pub fn check(package: &Package, progress: &mut dyn FnMut(u64, u64)) -> Result<Check, ModelError> {
    let model = package.bind()?;
    let mut problems = Vec::new();
    let matrices: Vec<_> = model.layers.iter().flat_map(Layer::matrices).collect();
    let total = (matrices.len() + model.plain_tensors.len()) as u64;
    let mut done = 0;
    for matrix in matrices {
        if let Err(error) = matrix.rows128() {
            problems.push(error.to_string());
        }
        done += 1;
        progress(done, total);
    }
    for name in &model.plain_tensors {
        if let Some(tensor) = package.checkpoint.tensor(name)
            && let Some(float) = FloatType::of(tensor.dtype)
            && let Some(place) = first_not_finite(float, tensor.bytes)
        {
            problems.push(format!("tensor `{name}` is not finite at element {place}"));
        }
        done += 1;
        progress(done, total);
    }
    let digests = check_digests(package);
    let differs = |name: &String| format!("tensor `{name}` does not have its recorded digest");
    problems.extend(digests.differing.iter().map(differs));
    Ok(Check { problems, digests })
}

/// Index of the first element that is NaN or infinite.
fn first_not_finite(float: FloatType, bytes: &[u8]) -> Option<usize> {
    const STRETCH: usize = 4096;
    let mut decoded = [0.0; STRETCH];
    for (stretch, bytes) in bytes.chunks(STRETCH * float.bytes()).enumerate() {
        let decoded = &mut decoded[..bytes.len() / float.bytes()];
        float.decode(bytes, decoded);
        if let Some(place) = decoded.iter().position(|x| !x.is_finite()) {
            return Some(stretch * STRETCH + place);
        }
    }
    None
}
