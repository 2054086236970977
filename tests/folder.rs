//! Folders that look like models.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tercet_host::package::{Package, Source};

/// A temporary folder that looks like a model.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// An empty one.
    ///
    /// # Panics
    ///
    /// When the system has no room for it; so do all others.
    #[allow(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Self {
        Self(TempDir::with_prefix("tercet-tests-").expect("a temporary folder"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file.
    #[allow(clippy::missing_panics_doc, reason = "see `new`")]
    pub fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).expect("a temporary file");
    }

    /// Writes a JSON file.
    pub fn put_json(&self, name: &str, value: &Value) {
        self.put(name, value.to_string().as_bytes());
    }

    /// Where a file of this name is, or would be.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Opens it as a model.
    #[allow(clippy::missing_panics_doc, reason = "see `new`")]
    pub fn package(&self) -> Package {
        let path = self.path().to_owned();
        Package::open(&Source::Path(path)).expect("a valid model")
    }
}
