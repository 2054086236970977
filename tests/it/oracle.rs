//! Trained models against what Hugging Face computed.

pub(crate) mod builtin;
pub(crate) mod perplexity;
pub(crate) mod record;

use tercet_host::package::{Package, Source};
use tercet_tests::cpu::Cpu;
use tercet_tests::{require, shared, skipped};

use record::{BITNET, CONTROL, CONTROL_HALF, Record};

pub(crate) const MODELS: [&str; 2] = ["stories-bitnet-25m", "stories-bitnet-25m-packed"];

/// Float models of both topologies.
pub(crate) const CONTROLS: [&str; 2] = ["stories-llama-12m", "stories-opt-12m"];

/// Whether the folder `shared` has a model; on a machine with a GPU it may hold a part of them.
pub(crate) fn has_model(name: &str) -> bool {
    let folder = shared().expect("required before").join("models").join(name);
    folder.is_dir() || skipped(name)
}

/// A model of the folder `shared`.
pub(crate) fn shared_model(name: &str) -> Package {
    let folder = shared().expect("required before").join("models").join(name);
    Package::open(&Source::Path(folder)).expect("a valid model")
}

pub(crate) fn record(name: &str) -> Record {
    let folder = shared().expect("required before").join("models/oracle");
    Record::read(&folder.join(format!("{name}.safetensors")))
}

#[test]
fn logits_and_greedy_text_are_those_of_the_reference() {
    if !require("shared") {
        return;
    }
    let cpu = Cpu::fast().backend();
    for name in MODELS {
        let package = shared_model(name);
        let record = record(name);
        for logits in ["logits", "logits_f64"] {
            record.check_logits(&cpu, &package, logits, BITNET, &format!("{name} {logits}"));
        }
        record.check_greedy(&cpu, &package, BITNET, name);
    }
}

#[test]
fn float_models_are_those_of_the_reference() {
    if !require("shared") {
        return;
    }
    let cpu = Cpu::fast().backend();
    for name in CONTROLS {
        let package = shared_model(name);
        let record = record(name);
        for (bounds, what) in [(CONTROL, "singles"), (CONTROL_HALF, "halves")] {
            record.check_logits(&cpu, &package, "logits", bounds, &format!("{name}, {what}"));
            record.check_greedy(&cpu, &package, bounds, &format!("{name}, {what}"));
        }
    }
}
