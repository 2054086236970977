//! Files as other programs write them, byte by byte: safetensors, and a tokenizer of bytes.

use half::{bf16, f16};
use serde_json::{Map, Value, json};

/// A tensor to be put into a safetensors file.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Name of its type in the format: `F32`, `BF16`, `U8`, ...
    pub dtype: &'static str,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its data, little-endian.
    pub bytes: Vec<u8>,
}

/// The header object and the data of a safetensors file with `tensors` in their order.
pub fn safetensors_parts(tensors: &[Stored]) -> (Map<String, Value>, Vec<u8>) {
    let mut header = Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend_from_slice(&tensor.bytes);
        let entry = json!({
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [start, data.len()],
        });
        header.insert(tensor.name.clone(), entry);
    }
    (header, data)
}

/// The bytes of a safetensors file: length, header, data. Nothing is checked.
pub fn safetensors_bytes(header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u64;
    [&length.to_le_bytes(), header.as_bytes(), data].concat()
}

/// A valid safetensors file with `tensors` in their order, its data at a multiple of 8.
pub fn safetensors(tensors: &[Stored]) -> Vec<u8> {
    let (header, data) = safetensors_parts(tensors);
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    safetensors_bytes(&header, &data)
}

/// `values` as little-endian bytes of `dtype`: `F32`, `F16` or `BF16`.
///
/// # Panics
///
/// For another type, and for a number that the type cannot hold exactly.
pub fn float_bytes(dtype: &str, values: &[f32]) -> Vec<u8> {
    let exact = |value: f32, stored: f32| {
        let same = value.to_bits() == stored.to_bits() || (value.is_nan() && stored.is_nan());
        assert!(same, "{value} is not exact in {dtype}");
    };
    let bytes = |value: &f32| match dtype {
        "F32" => value.to_le_bytes().to_vec(),
        "F16" => {
            exact(*value, f16::from_f32(*value).to_f32());
            f16::from_f32(*value).to_le_bytes().to_vec()
        }
        "BF16" => {
            exact(*value, bf16::from_f32(*value).to_f32());
            bf16::from_f32(*value).to_le_bytes().to_vec()
        }
        _ => panic!("{dtype} is no float type of a model"),
    };
    values.iter().flat_map(bytes).collect()
}

/// Packs trits `(rows, cols)` as Hugging Face does: byte `(r, c)` holds rows `r + i * packed_rows`
/// in bits `2i` and `2i + 1`, as trit + 1 (formats.md 3.2). Rows that are not there read as -1.
pub fn quarters(trits: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let packed_rows = rows.div_ceil(4);
    let mut bytes = vec![0; packed_rows * cols];
    for (row, trits) in trits.chunks_exact(cols).enumerate() {
        for (col, trit) in trits.iter().enumerate() {
            let code = (trit + 1) as u8;
            bytes[row % packed_rows * cols + col] |= code << (2 * (row / packed_rows));
        }
    }
    bytes
}

/// Ids before those of the bytes: `<pad>`, `<s>`, `</s>`.
pub const FIRST_BYTE_ID: u32 = 3;

/// A `tokenizer.json` with one token for every byte and three control tokens before them.
///
/// # Panics
///
/// Never: there are letters enough.
pub fn byte_tokenizer() -> Value {
    let mut vocab = Map::new();
    let special = ["<pad>", "<s>", "</s>"];
    for (id, token) in special.into_iter().enumerate() {
        vocab.insert(token.into(), id.into());
    }
    // The letters of GPT-2 for bytes: themselves where they can be seen, else those from U+0100 on.
    let mut hidden = 0x100_u32..;
    for byte in 0..=255_u8 {
        let seen = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let letter = if seen { Some(byte.into()) } else { hidden.next() };
        let letter = letter.and_then(char::from_u32).expect("a letter below U+0200");
        vocab.insert(letter.to_string(), (u32::from(byte) + FIRST_BYTE_ID).into());
    }
    let added = |(id, content): (usize, &str)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        })
    };
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": false });
    json!({
        "version": "1.0",
        "added_tokens": special.into_iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    })
}
