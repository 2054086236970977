//! Hostile files: each is refused with the right error, quickly, with a hint and an exit code.

mod config;
mod files;
mod header;
mod index;
mod limits;
mod mutations;
mod prompt;
mod truncation;
mod weights;

use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use tercet_host::backend::Backend;
use tercet_host::backend::cpu::CpuBackend;
use tercet_host::error::{Error, ExitCode};
use tercet_host::package::{Package, Source};
use tercet_tests::cpu::Cpu;
use tercet_tests::fixture::{Form, Shape, Tiny};

/// Longest time that a refusal may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Time that this thread computes: what a busy neighbour takes is not our fault.
struct Stopwatch(Duration, Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Self::computed().unwrap_or_default(), Instant::now())
    }

    /// Where the system does not say, the time of the clock.
    fn elapsed(&self) -> Duration {
        Self::computed().map_or_else(|| self.1.elapsed(), |now| now - self.0)
    }

    fn computed() -> Option<Duration> {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(Duration::from_nanos(stat.split(' ').next()?.parse().ok()?))
    }
}

/// A model small enough to be written again for every attack.
fn small() -> Tiny {
    Tiny::new(Shape { layers: 1, ..Shape::MICROSOFT }, 101)
}

/// Opens a model as the program does, up to the weights on the device.
fn load(path: &Path) -> Result<(), Error> {
    let package = Package::open(&Source::Path(path.to_owned()))?;
    let model = package.bind()?;
    let Cpu { threads, simd, .. } = Cpu::portable();
    CpuBackend::new(threads, simd)?.upload(&model, &mut |_, _| {})?;
    Ok(())
}

/// The error that loading `path` ends in.
#[track_caller]
fn refusal(path: &Path, code: ExitCode) -> Error {
    let watch = Stopwatch::start();
    let error = load(path).expect_err("a hostile model");
    let elapsed = watch.elapsed();
    assert!(elapsed < PATIENCE, "{error}: took {elapsed:?}");
    check(&error, code);
    error
}

/// What every error owes its reader.
#[track_caller]
fn check(error: &Error, code: ExitCode) {
    let (message, hint) = (error.to_string(), error.hint());
    assert_eq!(error.exit_code(), code, "exit code of: {message}");
    assert!(hint.len() >= 10, "{message}: hint `{hint}`");
    assert!(!message.is_empty() && message.len() < 600, "a sentence: {message}");
    for text in [&message[..], hint] {
        assert!(!text.ends_with('.'), "ends without a full stop: {text}");
        assert!(!text.starts_with(char::is_uppercase), "starts in lower case: {text}");
    }
}

/// Fails unless loading the path ends in an error of this form and with this exit code.
macro_rules! assert_refused {
    ($path:expr, $code:ident, $pattern:pat $(if $guard:expr)?) => {
        let error = super::refusal($path, tercet_host::error::ExitCode::$code);
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    };
}
use assert_refused;

#[test]
fn what_is_attacked_is_a_valid_model() {
    for form in Form::ALL {
        load(small().folder(form).path()).expect("a valid model");
        load(small().sharded_folder(form, 4).path()).expect("a valid model");
    }
}
