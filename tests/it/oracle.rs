//! Trained models against what Hugging Face computed.

mod builtin;
mod perplexity;
mod record;

use tercet_host::package::{Package, Source};
use tercet_tests::{require, shared};

use record::Record;

const MODELS: [&str; 2] = ["stories-bitnet-25m", "stories-bitnet-25m-packed"];

/// A model of the folder `shared`.
fn shared_model(name: &str) -> Package {
    let folder = shared().expect("required before").join("models").join(name);
    Package::open(&Source::Path(folder)).expect("a valid model")
}

#[test]
fn logits_and_greedy_text_are_those_of_the_reference() {
    if !require("shared") {
        return;
    }
    for name in MODELS {
        let package = shared_model(name);
        let file = shared().expect("required above").join("models/oracle");
        let record = Record::read(&file.join(format!("{name}.safetensors")));
        for logits in ["logits", "logits_f64"] {
            record.check_logits(&package, logits, &format!("{name} {logits}"));
        }
        record.check_greedy(&package, name);
    }
}
