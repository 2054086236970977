//! The model that is built into the program.

use std::path::PathBuf;

use tercet_host::backend::KvType;
use tercet_host::convert::{Kernels, check_digests, write_tercet};
use tercet_host::layout::WeightLayout;
use tercet_host::package::{Package, Source};
use tercet_tests::cpu::{Cpu, assert_same_bits, logits};
use tercet_tests::folder::Folder;
use tercet_tests::{golden, require, tree};

use super::record::{BITNET, Record};
use super::shared_model;

fn file() -> PathBuf {
    tree().join("tui/model/stories-25m.tercet")
}

pub(crate) fn package() -> Package {
    Package::open(&Source::Path(file())).expect("the built-in model")
}

#[test]
fn says_what_the_reference_says() {
    let (cpu, package) = (Cpu::fast().backend(), package());
    let record = Record::read(&golden().join("oracle/stories-bitnet-25m.safetensors"));
    record.check_logits(&cpu, &package, "logits", BITNET, "built-in");
    record.check_greedy(&cpu, &package, BITNET, "built-in");
}

#[test]
fn has_the_bytes_it_was_written_with() {
    let report = check_digests(&package());
    assert_eq!(report.differing, [""; 0], "tensors with another digest");
    assert!(report.matching > 100, "{} tensors have a digest", report.matching);
}

#[test]
fn can_be_made_again_from_its_checkpoint() {
    if !require("shared") {
        return;
    }
    let folder = Folder::new();
    let made = folder.join("made.tercet");
    write_tercet(
        &shared_model("stories-bitnet-25m"),
        &made,
        WeightLayout::Rows128,
        Kernels::LeaveOut,
        &mut |_, _| {},
    )
    .expect("a file");
    let [made, committed] = [made, file()].map(|path| std::fs::read(path).expect("a file"));
    assert_eq!(made.len(), committed.len(), "bytes");
    let differs = made.iter().zip(&committed).position(|(made, committed)| made != committed);
    assert_eq!(differs, None, "the first byte that differs");
}

#[test]
fn is_the_checkpoint_to_the_bit() {
    if !require("shared") {
        return;
    }
    let tokens: Vec<u32> = (0..60).map(|place| place * 997 % 4096).collect();
    let of = |package: &Package| logits(package, Cpu::fast(), &tokens, 32, KvType::F16);
    let expected = of(&shared_model("stories-bitnet-25m"));
    assert_same_bits(&expected, &of(&package()), "as .tercet");
}
