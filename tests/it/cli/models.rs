//! Models for the tests: the built-in one as a file, and altered copies of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use serde_json::{Value, json};

/// The built-in model, as the file that is committed.
pub(super) fn builtin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tui/model/stories-25m.tercet")
}

/// A copy of the built-in model in `folder`, for a test that damages it.
pub(super) fn copy(folder: &Path) -> PathBuf {
    let path = folder.join("copy.tercet");
    fs::copy(builtin(), &path).unwrap();
    path
}

/// A `.tercet` file in memory, to be altered and written again by the library that everybody uses.
#[derive(Debug)]
pub(super) struct Altered {
    metadata: HashMap<String, String>,
    tensors: Vec<(String, Owned)>,
}

#[derive(Debug)]
struct Owned {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Owned {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Altered {
    /// The built-in model, not altered yet. Without digests: they are not what is tested.
    pub(super) fn new() -> Self {
        let file = fs::read(builtin()).unwrap();
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        let mut metadata = header.metadata().clone().unwrap();
        metadata.retain(|key, _| !key.starts_with("tercet.blake3."));
        let own = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let shape = view.shape().to_vec();
            (name, Owned { dtype: view.dtype(), shape, bytes: view.data().to_vec() })
        };
        let tensors = SafeTensors::deserialize(&file).unwrap().tensors();
        Self { metadata, tensors: tensors.into_iter().map(own).collect() }
    }

    /// Removes a side file.
    pub(super) fn without(mut self, file: &str) -> Self {
        let name = format!("tercet.file.{file}");
        let before = self.tensors.len();
        self.tensors.retain(|(tensor, _)| *tensor != name);
        assert_eq!(self.tensors.len(), before - 1, "`{file}` was there");
        self
    }

    /// Changes the JSON of a side file.
    pub(super) fn with_json(mut self, file: &str, change: impl FnOnce(&mut Value)) -> Self {
        let tensor = self.tensor(&format!("tercet.file.{file}"));
        let mut json = serde_json::from_slice(&tensor.bytes).unwrap();
        change(&mut json);
        tensor.bytes = json.to_string().into_bytes();
        tensor.shape = vec![tensor.bytes.len()];
        self
    }

    /// Adds an entry of the metadata, or replaces it.
    pub(super) fn with_metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds a tensor of bytes.
    pub(super) fn with_tensor(mut self, name: &str, bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        let tensor = Owned { dtype: Dtype::U8, shape: vec![bytes.len()], bytes };
        self.tensors.push((name.into(), tensor));
        self
    }

    /// Changes the bytes of a tensor.
    pub(super) fn with_bytes(mut self, name: &str, change: impl FnOnce(&mut [u8])) -> Self {
        change(&mut self.tensor(name).bytes);
        self
    }

    fn tensor(&mut self, name: &str) -> &mut Owned {
        let found = self.tensors.iter_mut().find(|(tensor, _)| tensor == name);
        &mut found.unwrap_or_else(|| panic!("no tensor `{name}`")).1
    }

    /// Writes it to `folder`.
    pub(super) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("altered.tercet");
        let tensors = self.tensors.iter().map(|(name, tensor)| (name, tensor));
        let file = safetensors::serialize(tensors, Some(self.metadata.clone())).unwrap();
        fs::write(&path, file).unwrap();
        path
    }
}

/// A folder in Hugging Face's layout with `config` and weights that hold nothing: enough for
/// everything that is refused before a weight is touched.
pub(super) fn hollow(folder: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut config = json!({
        "architectures": ["BitNetForCausalLM"],
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 1408,
        "vocab_size": 4096,
        "hidden_act": "relu2",
    });
    change(&mut config);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    folder.to_owned()
}
