//! Kernels in a model's file: which are run, which are not, and what is said about it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tercet_host::backend::cuda::kernels::{KernelSet, Origin, Refusal};
use tercet_host::checkpoint::Checkpoint;
use tercet_kernels_ptx::kernels;

use super::fake;
use crate::cli::support::{Ran, tercet};

const NAME: &str = "ternary_gemm.sm_80";
const TENSOR: &str = "tercet.ptx.ternary_gemm.sm_80";

/// The built-in model as a file that carries kernels, with some of its bytes replaced.
struct Carrier {
    folder: TempDir,
    bytes: Vec<u8>,
}

impl Carrier {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tui/model/stories-25m.tercet");
        let made = folder.path().join("model.tercet");
        let paths = [builtin.to_str().unwrap(), made.to_str().unwrap()];
        tercet(["convert", paths[0], paths[1], "--to", "tercet"]).succeed();
        let bytes = fs::read(&made).unwrap();
        Self { folder, bytes }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model.tercet")
    }

    /// The first place of `from`, in which there are as many bytes as in `to`, becomes `to`.
    fn with(mut self, from: &str, to: &str) -> Self {
        assert_eq!(from.len(), to.len(), "offsets stay");
        let at = self.bytes.windows(from.len()).position(|bytes| bytes == from.as_bytes());
        let at = at.unwrap_or_else(|| panic!("no `{from}`"));
        self.bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(self.path(), &self.bytes).unwrap();
        self
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.path()).unwrap()
    }

    fn run(&self, args: &[&str]) -> Ran {
        let path = self.path();
        let model = [path.to_str().unwrap()];
        let args = [&args[..1], &model, &args[1..]].concat();
        match fake() {
            Some(fake) => tercet(args).env("LD_LIBRARY_PATH", fake.path()).run(),
            None => tercet(args).run(),
        }
    }

    fn doctor(&self, args: &[&str]) -> Value {
        let ran = self.run(&[&["doctor", "--json"], args].concat());
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{ran}"))
    }
}

fn check<'v>(report: &'v Value, name: &str) -> Option<&'v Value> {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"].as_str().unwrap().ends_with(name))
}

/// Any PTX that keeps the contract and that nobody has released: a word of a comment differs.
fn stranger() -> Carrier {
    Carrier::new().with("// tercet-kernel", "// Tercet-kernel")
}

#[test]
fn a_file_carries_its_kernels() {
    let carrier = Carrier::new();
    let checkpoint = carrier.checkpoint();
    let stored = checkpoint.tensor(TENSOR).unwrap().bytes;
    assert_eq!(stored, kernels()[0].ptx.as_bytes());
    assert_eq!(stored.as_ptr().addr() % 256, 0, "aligned like every tensor");
    let set = KernelSet::of(&checkpoint, false);
    assert_eq!((set.origin(), set.refusal()), (Origin::Released, None));

    let ran = carrier.run(&["inspect", "--check"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.text().contains(&format!("GPU kernels    1 of contract 1 ({NAME}")), "{ran}");
    assert!(ran.text().contains("every weight is in order"), "{ran}");
    let report = carrier.doctor(&[]);
    assert_eq!(report["kernels"][0]["origin"], "file", "{report:#}");
    assert_eq!(check(&report, "kernels"), None, "nothing to say");
}

#[test]
fn the_built_in_model_carries_none() {
    let inspected = tercet(["inspect", "--json"]).succeed().json();
    assert_eq!(inspected["kernels"], Value::Null);
}

#[test]
fn an_unknown_kernel_is_not_run_unless_trusted() {
    let carrier = stranger();
    let set = KernelSet::of(&carrier.checkpoint(), false);
    assert!(matches!(set.refusal(), Some(Refusal::Unknown { .. })), "{:?}", set.refusal());
    assert_eq!(set.texts()[0].ptx(), kernels()[0].ptx, "the program's own");

    let report = carrier.doctor(&[]);
    let said = check(&report, "kernels").unwrap();
    assert_eq!(said["outcome"], "warning");
    assert!(said["says"].as_str().unwrap().contains(NAME), "{said}");
    assert!(said["hint"].as_str().unwrap().contains("--trust-kernels"), "{said}");
    assert_eq!(report["kernels"][0]["origin"], "program");

    let report = carrier.doctor(&["--trust-kernels"]);
    assert_eq!(check(&report, "kernels"), None, "trusted, so nothing to say");
    assert_eq!(report["kernels"][0]["origin"], "file");
    let ran = carrier.run(&["inspect"]);
    assert!(ran.text().contains("not used without --trust-kernels"), "{ran}");
}

/// What is trusted is what the driver gets: here a PTX that it must refuse.
#[test]
fn the_driver_gets_the_files_kernel() {
    let carrier = Carrier::new().with(".version 8.0", ".version 9.9");
    let report = carrier.doctor(&["--trust-kernels"]);
    let Some(tried) = check(&report, NAME) else { return };
    assert_eq!(tried["outcome"], "failed", "{report:#}");
    assert!(tried["says"].as_str().unwrap().contains("PTX 9.9"), "{tried}");
    let report = carrier.doctor(&[]);
    assert_eq!(check(&report, NAME).unwrap()["outcome"], "ok", "{report:#}");
}

#[test]
fn a_corrupted_kernel_is_not_run_even_when_trusted() {
    for (from, to) in [
        (".entry ternary_gemm(", ".entry ternary-gemm("),
        ("param_0[48]", "param_0[64]"),
        (".version 8.0", ".revision 8.0".get(..12).unwrap()),
    ] {
        let carrier = Carrier::new().with(from, to);
        let set = KernelSet::of(&carrier.checkpoint(), true);
        assert!(matches!(set.refusal(), Some(Refusal::Damaged { .. })), "{:?}", set.refusal());
        assert_eq!((set.origin(), set.texts()[0].ptx()), (Origin::Program, kernels()[0].ptx));
    }
}

#[test]
fn another_contract_is_not_run_even_when_trusted() {
    let key = "\"tercet.kernels.contract\":\"";
    let carrier = Carrier::new().with(&format!("{key}1\""), &format!("{key}7\""));
    let set = KernelSet::of(&carrier.checkpoint(), true);
    assert_eq!(set.refusal(), Some(&Refusal::Contract { found: Some("7".into()) }));
    let report = carrier.doctor(&["--trust-kernels"]);
    let said = check(&report, "kernels").unwrap();
    assert!(said["says"].as_str().unwrap().contains("contract 7"), "{said}");
}

/// The file changes between the hash and the driver: what was hashed is what is loaded.
#[test]
fn what_was_hashed_is_what_is_loaded() {
    let carrier = Carrier::new();
    let checkpoint = carrier.checkpoint();
    let set = KernelSet::of(&checkpoint, false);
    let before = checkpoint.tensor(TENSOR).unwrap().bytes.to_vec();
    // In place, so that the mapping shows it.
    let carrier = carrier.with("ld.param.u64", "st.param.u64");
    let after = checkpoint.tensor(TENSOR).unwrap().bytes;
    assert!(after != before, "the mapping has changed under us");
    assert_eq!(set.texts()[0].ptx().as_bytes(), before, "the copy has not");
    let set = KernelSet::of(&carrier.checkpoint(), false);
    assert!(matches!(set.refusal(), Some(Refusal::Unknown { .. })), "{:?}", set.refusal());
}
