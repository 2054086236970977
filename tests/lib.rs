//! Shared pieces of the tests.

#![forbid(unsafe_code)]

pub mod cpu;
pub mod files;
pub mod fixture;
pub mod folder;
pub mod hostile;
pub mod naive;
pub mod on;
pub mod random;
pub mod scripted;
pub mod tolerance;

use std::path::{Path, PathBuf};

use tercet_host::backend::cuda::driver::usable;

/// Says that a test does without `feature`, and whether it may.
///
/// Returns `false` after printing a line. When the environment variable `TERCET_REQUIRE` names the
/// feature (a list with commas), the test has to run where the feature is.
///
/// # Panics
///
/// When the feature is required.
pub fn skipped(feature: &str) -> bool {
    let required = std::env::var("TERCET_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == feature),
        "`{feature}` is required by TERCET_REQUIRE and is not here"
    );
    println!("skipped: no `{feature}` here");
    false
}

/// Whether a test that needs `feature` can run; see [`skipped`] for what happens when not.
///
/// Known features: `shared`, the folder of test data beside the checkout; `cuda`, a GPU that our
/// kernels run on.
///
/// # Panics
///
/// When the feature is missing and required, or not known.
pub fn require(feature: &str) -> bool {
    let is_here = match feature {
        "shared" => shared().is_some(),
        "cuda" => usable(None).is_ok(),
        _ => panic!("unknown feature `{feature}`"),
    };
    is_here || skipped(feature)
}

/// The folder `shared` beside the checkout: models and data that are too large for it. The
/// environment variable `TERCET_SHARED` names another place.
pub fn shared() -> Option<PathBuf> {
    let named = std::env::var_os("TERCET_SHARED").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| tree().join("../shared"));
    folder.is_dir().then_some(folder)
}

/// The folder with committed expectations.
pub fn golden() -> PathBuf {
    tree().join("tests/golden")
}

/// The checkout: where it was built or, where that is not (the program was copied to a machine
/// with a GPU), the working directory.
pub fn tree() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if built.is_dir() { built } else { PathBuf::from(".") }
}
