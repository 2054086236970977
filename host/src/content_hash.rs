//! Which bytes a model has: one hash that tells whether two models are the same.

use core::ops::ControlFlow;

use crate::checkpoint::{Checkpoint, CheckpointError, TERCET_PAD_PREFIX};
use crate::package::SIDE_FILES;
use crate::write::DIGEST_PREFIX;

/// Bytes hashed between two questions whether to go on: some 10 ms.
const STRETCH: usize = 16 << 20;

/// [`content_hash`] without a break.
///
/// # Errors
///
/// As [`content_hash`].
pub fn model_hash(checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let hash = content_hash(checkpoint, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(hash.unwrap_or_default())
}

/// A hash of everything that a model's answers depend on: weights, config, tokenizer, template.
///
/// A `.tercet` file whose header records a digest of every tensor has `header-blake3:` and the
/// BLAKE3 of its header, which takes a millisecond whatever the weights: the header stands for the
/// rest as long as `tercet inspect --check` finds that the digests match. Every other model has
/// `blake3:` and the BLAKE3 of a list: a line `DIGEST  NAME` for each file of weights in their
/// order (called `weights.0`, `weights.1` ...), then for each side file that is there, with the
/// BLAKE3 of the file as `DIGEST`. That reads every byte on one thread: 0.2 to 0.35 s for a
/// gigabyte that is in memory already (AMD EPYC, AVX-512), as long as the disk takes for others.
///
/// `go_on` hears bytes done and in all, at least every 16 MiB: it can show progress, or break,
/// which gives `None`. It can also wait: an answer that is computed on all cores at the same time
/// gets half of its speed.
///
/// # Errors
///
/// As [`Checkpoint::file`].
pub fn content_hash(
    checkpoint: &Checkpoint,
    go_on: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<String>, CheckpointError> {
    if records_every_digest(checkpoint)
        && let Some(header) = checkpoint.headers().next()
    {
        return Ok(Some(format!("header-blake3:{}", blake3::hash(header).to_hex())));
    }
    let total = checkpoint.file_bytes();
    let mut done = 0;
    let mut list = blake3::Hasher::new();
    for (number, bytes) in checkpoint.files().enumerate() {
        let mut file = blake3::Hasher::new();
        for stretch in bytes.chunks(STRETCH) {
            file.update(stretch);
            done += stretch.len() as u64;
            if go_on(done, total).is_break() {
                return Ok(None);
            }
        }
        list.update(format!("{}  weights.{number}\n", file.finalize().to_hex()).as_bytes());
    }
    // A `.tercet` file has them among its tensors.
    if !checkpoint.is_tercet() {
        for name in SIDE_FILES {
            if let Some(bytes) = checkpoint.file(name)? {
                list.update(format!("{}  {name}\n", blake3::hash(&bytes).to_hex()).as_bytes());
            }
        }
    }
    Ok(Some(format!("blake3:{}", list.finalize().to_hex())))
}

/// Whether the header vouches for all bytes that mean something.
fn records_every_digest(checkpoint: &Checkpoint) -> bool {
    let recorded = |name: String| {
        name.starts_with(TERCET_PAD_PREFIX)
            || checkpoint.metadata(&format!("{DIGEST_PREFIX}{name}")).is_some()
    };
    checkpoint.is_tercet() && checkpoint.tensor_names().all(recorded)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn builtin() -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tui/model/stories-25m.tercet"))
            .unwrap()
    }

    fn hash_of(bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.tercet");
        std::fs::write(&path, bytes).unwrap();
        model_hash(&Checkpoint::open(&path).unwrap()).unwrap()
    }

    #[test]
    fn a_header_with_all_digests_stands_for_the_file() {
        let bytes = builtin();
        let hash = hash_of(&bytes);
        assert!(hash.starts_with("header-blake3:"), "{hash}");
        assert_eq!(hash, hash_of(&bytes), "the name of the file is no content");
        // Another digest is another content.
        let place = bytes.windows(DIGEST_PREFIX.len()).position(|w| w == DIGEST_PREFIX.as_bytes());
        let digest = bytes[place.unwrap()..].windows(3).position(|window| window == b"\":\"");
        let mut other = bytes.clone();
        let digit = &mut other[place.unwrap() + digit_after(digest)];
        *digit = if *digit == b'0' { b'1' } else { b'0' };
        assert_ne!(hash_of(&other), hash);
    }

    fn digit_after(digest: Option<usize>) -> usize {
        digest.unwrap() + 3
    }

    /// One digest less, and nothing vouches for that tensor: every byte counts.
    #[test]
    fn a_tensor_without_digest_makes_every_byte_count() {
        let mut bytes = builtin();
        let key = DIGEST_PREFIX.as_bytes();
        let place = bytes.windows(key.len()).position(|window| window == key).unwrap();
        bytes[place] = b'T';
        let hash = hash_of(&bytes);
        assert!(hash.starts_with("blake3:"), "{hash}");
        *bytes.last_mut().unwrap() ^= 1;
        assert_ne!(hash_of(&bytes), hash, "the last byte of the last tensor");
    }

    #[test]
    fn a_folder_is_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes);
        let header = br#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
        let length = (header.len() as u64).to_le_bytes();
        let weights = [&length[..], header, b"xyz"].concat();
        put("model.safetensors", &weights).unwrap();
        put("config.json", b"{}").unwrap();
        let hash = || model_hash(&Checkpoint::open(folder.path()).unwrap()).unwrap();
        // As `b3sum` and a text editor would make it.
        let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex();
        let list = format!("{}  weights.0\n{}  config.json\n", digest(&weights), digest(b"{}"));
        assert_eq!(hash(), format!("blake3:{}", digest(list.as_bytes())));

        let before = hash();
        put("README.md", b"not the model's").unwrap();
        assert_eq!(hash(), before);
        put("chat_template.jinja", b"{{ messages }}").unwrap();
        assert_ne!(hash(), before);
    }

    #[test]
    fn it_can_be_followed_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let header = br#"{"a":{"dtype":"U8","shape":[40000000],"data_offsets":[0,40000000]}}"#;
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.extend_from_slice(header);
        weights.resize(weights.len() + 40_000_000, 7);
        std::fs::write(folder.path().join("model.safetensors"), &weights).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let mut heard = Vec::new();
        let mut listen = |done, total| {
            heard.push((done, total));
            ControlFlow::Continue(())
        };
        assert!(content_hash(&checkpoint, &mut listen).unwrap().is_some());
        let total = weights.len() as u64;
        assert_eq!(heard, [(16 << 20, total), (32 << 20, total), (total, total)]);
        let stopped = content_hash(&checkpoint, &mut |_, _| ControlFlow::Break(()));
        assert_eq!(stopped.unwrap(), None);
    }
}
