//! `tercet eval logits`: the door through which anybody compares Tercet with another runtime.

use std::path::Path;

use serde_json::Map;

use crate::backend::{Ops, TokenId};
use crate::checkpoint::Dtype;
use crate::error::Error;
use crate::session::Session;
use crate::write::{Entry, Header, SafetensorsWriter, Style};

/// Writes the logits of `tokens`, used as they are, to a safetensors file with one tensor `logits`,
/// F32, `(tokens, vocab)`; row `i` sees tokens `0..=i`. `progress` hears rows done and rows in all.
///
/// # Errors
///
/// [`Error::Prompt`], [`Error::Device`] and [`Error::Write`].
pub fn write_logits<O: Ops>(
    session: &mut Session<O>,
    vocab: usize,
    tokens: &[TokenId],
    out: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Error> {
    let entry =
        Entry { name: "logits".into(), dtype: Dtype::F32, shape: vec![tokens.len(), vocab] };
    let style = Style { align: 8, fill: false, digests: false };
    let mut writer = SafetensorsWriter::create(out, Header::new(vec![entry], Map::new(), style))?;
    writer.tensor(|write| {
        let mut done = 0;
        let mut written = Ok(());
        session.logits(tokens, |logits| {
            let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
            if written.is_ok() {
                written = write(&bytes);
            }
            done += (logits.len() / vocab) as u64;
            progress(done, tokens.len() as u64);
        })?;
        written
    })?;
    writer.finish()
}
