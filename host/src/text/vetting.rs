//! What is looked at and changed in a `tokenizer.json` before a tokenizer is built from it.

use serde_json::Value;

use super::TokenizerError;

/// Every id is below this number; the largest published vocabularies are a hundred times smaller.
pub(super) const ID_LIMIT: u64 = 1 << 24;

/// Patterns by which published tokenizers split text: GPT-2, Llama 3, Qwen 2, Falcon.
///
/// The regex engine gives up on a pattern that backtracks too much and then splits in another
/// place without a word, so a pattern that nobody has met deserves a warning.
const KNOWN_PATTERNS: [&str; 5] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[0-9][0-9][0-9]",
    r" {2,}",
];

/// Looks at every id in the file, and at what it says twice, before anything is built from it.
pub(super) fn check(file: &Value) -> Result<(), TokenizerError> {
    let check = |token: &str, id: &Value| match id.as_u64() {
        Some(id) if id >= ID_LIMIT => Err(TokenizerError::Id { token: token.to_owned(), id }),
        _ => Ok(()),
    };
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        check(token["content"].as_str().unwrap_or_default(), &token["id"])?;
    }
    for (token, id) in file["model"]["vocab"].as_object().into_iter().flatten() {
        check(token, id)?;
    }
    check("unk_id", &file["model"]["unk_id"])?;
    check_processor(&file["post_processor"])
}

/// Every special token that a template for post-processing names must be described beside it.
fn check_processor(processor: &Value) -> Result<(), TokenizerError> {
    for inner in processor["processors"].as_array().into_iter().flatten() {
        check_processor(inner)?;
    }
    for name in ["single", "pair"] {
        for piece in processor[name].as_array().into_iter().flatten() {
            let Some(token) = piece["SpecialToken"]["id"].as_str() else { continue };
            let described = processor["special_tokens"].get(token);
            for id in described.and_then(|token| token["ids"].as_array()).into_iter().flatten() {
                if let Some(id) = id.as_u64().filter(|&id| id >= ID_LIMIT) {
                    return Err(TokenizerError::Id { token: token.to_owned(), id });
                }
            }
            if described.is_none() {
                return Err(TokenizerError::Contradiction);
            }
        }
    }
    Ok(())
}

/// Switches off what would cut, fill or split a text at random, and normalization of specials.
pub(super) fn make_plain(file: &mut Value) {
    let Some(fields) = file.as_object_mut() else { return };
    for name in ["truncation", "padding"] {
        fields.insert(name.to_owned(), Value::Null);
    }
    if let Some(dropout) = file.pointer_mut("/model/dropout") {
        *dropout = Value::Null;
    }
    let added = file.get_mut("added_tokens").and_then(Value::as_array_mut);
    for token in added.into_iter().flatten().filter_map(Value::as_object_mut) {
        if token.get("special") == Some(&Value::Bool(true)) {
            token.insert("normalized".to_owned(), Value::Bool(false));
        }
    }
}

/// Tells pre-tokenizers that mark only the beginning of the text that this is not the beginning.
/// Returns whether there was one.
pub(super) fn never_prepend(pre_tokenizer: &mut Value) -> bool {
    let Some(fields) = pre_tokenizer.as_object_mut() else { return false };
    let mut changed = false;
    for inner in fields.get_mut("pretokenizers").and_then(Value::as_array_mut).into_iter().flatten()
    {
        changed |= never_prepend(inner);
    }
    if fields.get("prepend_scheme").is_some_and(|scheme| scheme == "first") {
        fields.insert("prepend_scheme".to_owned(), "never".into());
        changed = true;
    }
    changed
}

pub(super) fn is_byte_level(decoder: &Value) -> bool {
    match decoder["type"].as_str() {
        Some("ByteLevel") => true,
        Some("Sequence") => {
            let inner = decoder["decoders"].as_array();
            inner.is_some_and(|inner| inner.len() == 1 && is_byte_level(&inner[0]))
        }
        _ => false,
    }
}

pub(super) fn unusual_patterns(pre_tokenizer: &Value) -> Vec<String> {
    let inner = pre_tokenizer["pretokenizers"].as_array();
    let mut found: Vec<String> = inner.into_iter().flatten().flat_map(unusual_patterns).collect();
    if let Some(pattern) = pre_tokenizer["pattern"]["Regex"].as_str()
        && !KNOWN_PATTERNS.contains(&pattern)
    {
        found.push(pattern.to_owned());
    }
    found
}
