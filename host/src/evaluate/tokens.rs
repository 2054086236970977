//! Token ids from a file, text or safetensors.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::backend::TokenId;
use crate::error::Error;

/// Names under which a safetensors file may hold its ids.
const NAMES: [&str; 2] = ["tokens", "input_ids"];

/// Reads token ids from `path`: numbers separated by white space, or a safetensors file with one
/// integer tensor called `tokens` or `input_ids`. The content decides, not the name.
///
/// # Errors
///
/// [`Error::Read`] and [`Error::Tokens`].
pub fn read_tokens(path: &Path) -> Result<Vec<TokenId>, Error> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let parsed = match core::str::from_utf8(&bytes) {
        Ok(text) if bytes.get(8) != Some(&b'{') => from_text(text),
        _ => from_safetensors(&bytes),
    };
    parsed.map_err(|what| Error::Tokens { path: path.to_owned(), what })
}

fn from_text(text: &str) -> Result<Vec<TokenId>, String> {
    let shown = |word: &str| word.chars().take(20).collect::<String>();
    text.split_whitespace()
        .map(|word| word.parse().map_err(|_| format!("it holds `{}`", shown(word))))
        .collect()
}

fn from_safetensors(bytes: &[u8]) -> Result<Vec<TokenId>, String> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| format!("neither text nor safetensors ({error})"))?;
    let tensor = NAMES
        .into_iter()
        .find_map(|name| file.tensor(name).ok())
        .ok_or_else(|| format!("it has no tensor named {}", NAMES.join(" or ")))?;
    let data = tensor.data();
    let ids: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => data.as_chunks().0.iter().map(|id| i64::from_le_bytes(*id)).collect(),
        Dtype::I32 => {
            data.as_chunks().0.iter().map(|id| i64::from(i32::from_le_bytes(*id))).collect()
        }
        Dtype::U32 => {
            data.as_chunks().0.iter().map(|id| i64::from(u32::from_le_bytes(*id))).collect()
        }
        Dtype::U16 => {
            data.as_chunks().0.iter().map(|id| i64::from(u16::from_le_bytes(*id))).collect()
        }
        other => return Err(format!("its tensor has type {other:?}")),
    };
    ids.into_iter()
        .map(|id| TokenId::try_from(id).map_err(|_| format!("it holds the id {id}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_safetensors_give_the_same_ids() {
        assert_eq!(from_text(" 1 22\n333\t").unwrap(), [1, 22, 333]);
        assert!(from_text("1 two").unwrap_err().contains("`two`"));
        assert!(from_text("-1").is_err());
        let ids: Vec<u8> = [1_i32, 22, 333].iter().flat_map(|id| id.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::I32, vec![3], &ids).unwrap();
        let file = safetensors::serialize([("tokens", view)], None).unwrap();
        assert_eq!(from_safetensors(&file).unwrap(), [1, 22, 333]);
        assert!(from_safetensors(&file[..20]).is_err());
    }
}
