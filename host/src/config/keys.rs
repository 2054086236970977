//! Checked access to the keys of `config.json`.

use serde_json::{Map, Value};

use super::{ConfigError, readable, token_ids};

/// Checked access to the keys of an object.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl Keys<'_> {
    pub(super) fn present(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn size(&self, key: &'static str, max: u64) -> Result<usize, ConfigError> {
        let value = self.present(key).ok_or(ConfigError::Missing { key })?;
        match value.as_u64() {
            Some(size) if (1..=max).contains(&size) => {
                Ok(usize::try_from(size).unwrap_or(usize::MAX))
            }
            _ => Err(ConfigError::Value {
                key,
                got: readable(&value.to_string()),
                wanted: "a whole number from 1 to a sane limit",
            }),
        }
    }

    pub(super) fn size_or(
        &self,
        key: &'static str,
        max: u64,
        default: usize,
    ) -> Result<usize, ConfigError> {
        if self.present(key).is_none() { Ok(default) } else { self.size(key, max) }
    }

    pub(super) fn number_or(
        &self,
        key: &'static str,
        default: f64,
        range: core::ops::RangeInclusive<f64>,
    ) -> Result<f64, ConfigError> {
        let Some(value) = self.present(key) else { return Ok(default) };
        value.as_f64().filter(|number| range.contains(number)).ok_or_else(|| ConfigError::Value {
            key,
            got: readable(&value.to_string()),
            wanted: "a number in the usual range",
        })
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| ConfigError::Value {
            key,
            got: readable(&value.to_string()),
            wanted: "true or false",
        })
    }

    /// One token id or a list of them, each below `vocab`.
    pub(super) fn tokens(&self, key: &'static str, vocab: usize) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.present(key) else { return Ok(Vec::new()) };
        token_ids(value, vocab).ok_or_else(|| ConfigError::Value {
            key,
            got: readable(&value.to_string()),
            wanted: "token ids below vocab_size",
        })
    }

    /// A name, or `None`.
    pub(super) fn name(&self, key: &'static str) -> Result<Option<&str>, ConfigError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| ConfigError::Value {
            key,
            got: readable(&value.to_string()),
            wanted: "a name",
        })
    }
}
