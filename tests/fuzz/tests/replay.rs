//! The committed corpora, once through their targets: on stable Rust, in seconds.

use std::fs;
use std::path::Path;

use tercet_fuzz::TARGETS;

#[test]
fn every_input_of_every_corpus_still_passes() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).expect("every target has a corpus") {
            let path = entry.unwrap().path();
            // Printed only if the target panics.
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", folder.display());
    }
}
