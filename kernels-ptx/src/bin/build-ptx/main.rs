//! Compiles `cuda/` to `ptx/` with the pinned toolchain; for maintainers and for CI.

#![deny(unsafe_code)]

mod nvrtc;
mod ptxas;
mod recipe;

use core::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use tercet_kernels_ptx::contract::{self, KERNELS};
use tercet_kernels_ptx::ptx::Ptx;
use tercet_kernels_ptx::{Kernel, PTX_VERSION_MAX, kernels, released};

use crate::nvrtc::Nvrtc;
use crate::recipe::Sources;

const USAGE: &str = "\
usage: build-ptx [--check] [--ptxas] [--toolchain DIR]
       build-ptx --release

Without --check and --ptxas: compiles every kernel of cuda/ and writes ptx/.

  --check          compile, write nothing, fail if a committed PTX differs
  --ptxas          assemble the committed PTX for every architecture, print what it
                   takes, fail if registers spill
  --release        append the committed PTX to released.txt, and do nothing else
  --toolchain DIR  folder that toolchain/install.sh filled [env: TERCET_PTX_TOOLCHAIN]
";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    check: bool,
    ptxas: bool,
    release: bool,
    /// Empty for what needs none.
    toolchain: PathBuf,
}

impl Options {
    /// `Err` is what is wrong with the command line.
    fn parse(
        mut arguments: impl Iterator<Item = String>,
        toolchain: Option<PathBuf>,
    ) -> Result<Self, String> {
        let mut options = Self::default();
        let mut folder = toolchain;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--check" => options.check = true,
                "--ptxas" => options.ptxas = true,
                "--release" => options.release = true,
                "--toolchain" => {
                    let value = arguments.next().ok_or("--toolchain needs a folder")?;
                    folder = Some(value.into());
                }
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        if options.release {
            return Ok(options);
        }
        options.toolchain = folder.ok_or("no toolchain: give --toolchain DIR")?;
        Ok(options)
    }
}

fn main() -> ExitCode {
    if env::args().skip(1).any(|argument| argument == "--help" || argument == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let toolchain = env::var_os("TERCET_PTX_TOOLCHAIN").map(PathBuf::from);
    let options = match Options::parse(env::args().skip(1), toolchain) {
        Ok(options) => options,
        Err(message) => {
            eprint!("build-ptx: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("build-ptx: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if options.release {
        return release(&root.join("released.txt"));
    }
    if options.check || !options.ptxas {
        let sources = recipe::read_sources(&root.join("cuda")).context("cannot read cuda/")?;
        let built = build(&options.toolchain, &sources)?;
        if options.check { compare(&root.join("ptx"), &built)? } else { write(root, &built)? }
    }
    if options.ptxas { assemble(&options.toolchain, &root.join("ptx")) } else { Ok(()) }
}

/// Appends what is not on the list yet.
fn release(path: &Path) -> Result<()> {
    let mut list = fs::read_to_string(path).context("cannot read released.txt")?;
    for Kernel { spec, target, ptx } in kernels() {
        let mut sha256 = String::new();
        for byte in Sha256::digest(ptx) {
            write!(sha256, "{byte:02x}")?;
        }
        let on_the_list = released::read(&list)
            .any(|known| known.sha256 == sha256 && known.contract == contract::CONTRACT_VERSION);
        if !on_the_list {
            let (contract, version) = (contract::CONTRACT_VERSION, env!("CARGO_PKG_VERSION"));
            let line = format!("{sha256} {contract} {version} {}.{target}\n", spec.entry);
            print!("{line}");
            list.push_str(&line);
        }
    }
    fs::write(path, list).context("cannot write released.txt")
}

/// File name and text of every PTX.
fn build(toolchain: &Path, sources: &Sources) -> Result<Vec<(String, String)>> {
    for package in recipe::COMPILER {
        require(toolchain, package)?;
    }
    let mut header = String::new();
    contract::write_header(KERNELS, &mut header)?;
    ensure!(
        sources.get("contract.cuh") == Some(&header),
        "cuda/contract.cuh is not what src/contract.rs says: run `UPDATE=1 cargo test -p {}`",
        env!("CARGO_PKG_NAME")
    );
    let nvrtc = Nvrtc::open(&toolchain.join("nvidia/cuda_nvrtc/lib"))?;
    let include = toolchain.join("nvidia/cuda_runtime/include");
    let include = format!("--include-path={}", include.display());
    kernels().iter().map(|kernel| build_one(&nvrtc, kernel, sources, &include)).collect()
}

fn build_one(
    nvrtc: &Nvrtc,
    kernel: &Kernel,
    sources: &Sources,
    include: &str,
) -> Result<(String, String)> {
    let Kernel { spec, target, .. } = kernel;
    let mut flags = recipe::flags(*target).to_vec();
    flags.push(include.to_owned());
    let ptx = nvrtc.compile(&format!("{}.cu", spec.entry), sources, &flags)?;
    let text = recipe::notes(spec.entry, *target, sources) + &ptx;

    // A PTX that breaks a promise is not written in the first place.
    let name = recipe::file_name(spec.entry, *target);
    let ptx = Ptx::parse(&text).with_context(|| name.clone())?;
    if let Err(drift) = ptx.keeps(&[*spec]) {
        bail!("{name} breaks the contract: {drift}");
    }
    ensure!(
        ptx.version() <= PTX_VERSION_MAX,
        "{name} is PTX {}, promised is {PTX_VERSION_MAX}",
        ptx.version()
    );
    Ok((name, text))
}

fn write(root: &Path, built: &[(String, String)]) -> Result<()> {
    for (name, text) in built {
        let path = root.join("ptx").join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("ptx/{name}: {} bytes", text.len());
    }
    Ok(())
}

fn compare(committed: &Path, built: &[(String, String)]) -> Result<()> {
    for (name, text) in built {
        let path = committed.join(name);
        let old = fs::read_to_string(&path).with_context(|| format!("cannot read ptx/{name}"))?;
        if let Some(difference) = first_difference(&old, text) {
            bail!(
                "ptx/{name} is not what the pinned toolchain makes of cuda/: {difference}\n\
                 rebuild it with build-ptx and commit the result"
            );
        }
        println!("ptx/{name}: as committed");
    }
    Ok(())
}

/// Where two texts part, for a person.
fn first_difference(committed: &str, built: &str) -> Option<String> {
    if committed == built {
        return None;
    }
    let (mut old, mut new) = (committed.split('\n'), built.split('\n'));
    for line in 1.. {
        let (old, new) = (old.next(), new.next());
        if old != new {
            let show = |line: Option<&str>| line.map_or("nothing".into(), |l| format!("{l:?}"));
            return Some(format!("line {line} is {}, built is {}", show(old), show(new)));
        }
    }
    None
}

fn assemble(toolchain: &Path, ptx: &Path) -> Result<()> {
    require(toolchain, "nvidia-cuda-nvcc-cu12")?;
    let ptxas = toolchain.join("nvidia/cuda_nvcc/bin/ptxas");
    println!("| kernel | PTX for | GPU | registers | shared bytes | stack bytes | spilled bytes |");
    println!("|---|---|---|---|---|---|---|");
    let mut spilled = Vec::new();
    for Kernel { spec, target, .. } in kernels() {
        let name = recipe::file_name(spec.entry, *target);
        let text = fs::read_to_string(ptx.join(&name))
            .with_context(|| format!("cannot read ptx/{name}"))?;
        for device in ptxas::devices(*target) {
            let usage = ptxas::assemble(&ptxas, &text, device).with_context(|| name.clone())?;
            println!(
                "| {} | {target} | {device} | {} | {} | {} | {} |",
                spec.entry,
                usage.registers,
                usage.shared_bytes,
                usage.stack_bytes,
                usage.spilled_bytes
            );
            if usage.spilled_bytes > 0 {
                spilled.push(format!("{} on {device}", spec.entry));
            }
        }
    }
    ensure!(spilled.is_empty(), "registers spill: {}", spilled.join(", "));
    Ok(())
}

/// Refuses a folder that holds another version of `package` than the pinned one, or none.
fn require(toolchain: &Path, package: &str) -> Result<()> {
    let version = recipe::pinned(package);
    let installed = format!("{}-{version}.dist-info", package.replace('-', "_"));
    ensure!(
        toolchain.join(&installed).is_dir(),
        "{} does not hold {package} {version}: fill it with toolchain/install.sh",
        toolchain.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, toolchain: Option<&str>) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned), toolchain.map(PathBuf::from))
    }

    #[test]
    fn options_are_read() {
        let expected = Options { check: true, ptxas: true, release: false, toolchain: "a".into() };
        assert_eq!(parse("--check --ptxas --toolchain a", None), Ok(expected));
        assert!(parse("--release", None).unwrap().release, "needs no toolchain");
        assert_eq!(parse("", Some("b")).unwrap().toolchain, Path::new("b"));
        assert_eq!(parse("--toolchain a", Some("b")).unwrap().toolchain, Path::new("a"));
    }

    #[test]
    fn wrong_use_is_said() {
        for line in ["", "--toolchain", "--chekc --toolchain a", "--check a"] {
            assert!(parse(line, None).is_err(), "{line}");
        }
    }

    #[test]
    fn difference_names_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        let differences = [
            ("a\nb\n", "a\nc\n", "line 2 is \"b\", built is \"c\""),
            ("a\n", "a", "line 2 is \"\", built is nothing"),
            ("", "a", "line 1 is \"\", built is \"a\""),
            ("a\r\n", "a\n", "line 1 is \"a\\r\", built is \"a\""),
        ];
        for (committed, built, expected) in differences {
            assert_eq!(first_difference(committed, built).as_deref(), Some(expected));
        }
    }
}
