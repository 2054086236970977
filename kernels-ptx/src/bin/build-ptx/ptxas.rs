//! `ptxas`, the assembler that the driver holds too: what a PTX costs on each GPU, without a GPU.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tercet_kernels_ptx::ptx::{ComputeCapability, Target};

/// One of each architecture that a user may have: A100, RTX 30, RTX 40, H100, B200, RTX 50.
const DEVICES: [(u32, u32); 6] = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)];

/// What one kernel takes on one GPU.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Registers of a thread.
    pub(crate) registers: u32,
    /// Shared memory of a block, sized at compile time.
    pub(crate) shared_bytes: u32,
    /// Stack of a thread.
    pub(crate) stack_bytes: u32,
    /// Bytes a thread stores to and loads from memory for want of registers.
    pub(crate) spilled_bytes: u32,
}

/// The GPUs to assemble PTX of `target` for.
pub(crate) fn devices(target: Target) -> Vec<Target> {
    if target.exact {
        return vec![target];
    }
    DEVICES
        .map(|(major, minor)| ComputeCapability { major, minor })
        .into_iter()
        .filter(|&device| target.runs_on(device))
        .map(|capability| Target { capability, exact: false })
        .collect()
}

/// Assembles `ptx`, which has one entry, for `device`.
pub(crate) fn assemble(ptxas: &Path, ptx: &str, device: Target) -> Result<Usage> {
    let mut child = Command::new(ptxas)
        .args(["--verbose", "--warning-as-error", "--output-file", "/dev/null"])
        .arg(format!("--gpu-name={device}"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", ptxas.display()))?;
    // It reads to the end before it writes, and dropping the pipe is the end.
    child.stdin.take().context("ptxas has no input")?.write_all(ptx.as_bytes())?;
    let output = child.wait_with_output()?;
    let report = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ptxas does not assemble for {device}:\n{report}");
    read(&report).with_context(|| format!("ptxas reports something unknown:\n{report}"))
}

/// Reads the report of one entry.
fn read(report: &str) -> Option<Usage> {
    let before = |what: &str| {
        let (before, _) = report.split_once(what)?;
        before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
    };
    Some(Usage {
        registers: before(" registers")?,
        // A kernel without shared memory gets no word about it.
        shared_bytes: before(" bytes smem").unwrap_or(0),
        stack_bytes: before(" bytes stack frame")?,
        spilled_bytes: before(" bytes spill stores")? + before(" bytes spill loads")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k' for 'sm_90'
ptxas info    : Function properties for k
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 2048 bytes smem
ptxas info    : Compile time = 3.141 ms
";

    #[test]
    fn report_is_read() {
        let expected =
            Usage { registers: 40, shared_bytes: 2048, stack_bytes: 16, spilled_bytes: 12 };
        assert_eq!(read(REPORT), Some(expected));
    }

    #[test]
    fn no_word_about_shared_memory_is_none() {
        let report = REPORT.replace(", 2048 bytes smem", "");
        assert_eq!(read(&report).unwrap().shared_bytes, 0);
    }

    #[test]
    fn no_word_about_spills_is_an_error() {
        assert_eq!(read(&REPORT.replace("spill", "other")), None);
    }

    #[test]
    fn exact_target_is_assembled_for_itself() {
        let capability = ComputeCapability { major: 9, minor: 0 };
        let hopper = Target { capability, exact: true };
        assert_eq!(devices(hopper), [hopper]);
        assert_eq!(devices(Target::SM_80).len(), DEVICES.len());
    }
}
