//! What a PTX is made from, and the fingerprint that says so. Also compiled into the tests, which
//! have to come to the same fingerprint without a compiler.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use sha2::{Digest, Sha256};
use tercet_kernels_ptx::contract::CONTRACT_VERSION;
use tercet_kernels_ptx::ptx::Target;

/// Versions and hashes of the toolchain's wheels: the one place that pins them.
const REQUIREMENTS: &str = include_str!("../../../toolchain/requirements.txt");

/// The wheels whose contents end in the PTX: compiler and headers.
pub(crate) const COMPILER: [&str; 2] = ["nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12"];

/// Name and contents of every `.cu` and `.cuh`, by name.
pub(crate) type Sources = BTreeMap<String, String>;

/// Reads `cuda/`.
pub(crate) fn read_sources(cuda: &Path) -> io::Result<Sources> {
    let mut sources = Sources::new();
    for file in fs::read_dir(cuda)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            sources.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(sources)
}

/// The version of `package` in the requirements.
pub(crate) fn pinned(package: &str) -> &'static str {
    let version = REQUIREMENTS.lines().find_map(|line| {
        let version = line.strip_prefix(package)?.strip_prefix("==")?;
        version.split_whitespace().next()
    });
    version.unwrap_or_else(|| panic!("toolchain/requirements.txt does not pin {package}"))
}

/// Name of the file in `ptx/`.
pub(crate) fn file_name(entry: &str, target: Target) -> String {
    format!("{entry}.{target}.ptx")
}

/// Flags of the compiler, all but the folder of its headers.
///
/// No fast-math and no contraction: a float operation is the IEEE operation that the source
/// names, in the order that the source names. No line info: it would carry paths.
pub(crate) fn flags(target: Target) -> [String; 3] {
    [
        format!("--gpu-architecture={}", target.to_string().replace("sm_", "compute_")),
        "--std=c++17".to_owned(),
        "--fmad=false".to_owned(),
    ]
}

/// The comments at the top of the PTX of `entry`; the first of them is the fingerprint.
pub(crate) fn notes(entry: &str, target: Target, sources: &Sources) -> String {
    let compiler = COMPILER.map(|package| format!("{package} {}", pinned(package))).join(", ");
    let flags = flags(target).join(" ");

    // Every text goes in behind its length, so that nothing can move from one to the next.
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for (name, contents) in sources {
        add(name);
        add(contents);
    }
    add(entry);
    add(&compiler);
    add(&flags);

    let mut notes = "// tercet-fingerprint: sha256:".to_owned();
    for byte in hash.finalize() {
        write!(notes, "{byte:02x}").expect("a string takes everything");
    }
    writeln!(notes, "\n// tercet-contract: {CONTRACT_VERSION}").expect("a string takes everything");
    notes + &format!("// tercet-compiler: {compiler}\n// tercet-flags: {flags}\n")
}
