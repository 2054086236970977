//! `tercet doctor`: what works on this machine.

use std::io::{Write, stdout};

use serde_json::json;
use tercet_host::backend::cuda::kernels::KernelSet;
use tercet_host::doctor::{Area, Check, Outcome, Report, examine};
use tercet_host::package::{Package, Source};

use crate::args::DoctorArgs;
use crate::builtin;
use crate::clean::{Json, OneLine};
use crate::failure::Failure;

/// Runs the command.
///
/// # Errors
///
/// [`Failure::Unavailable`] when a GPU is there and cannot be used, [`Failure::Wrong`] when the CPU
/// computes wrongly; the report is written before.
pub fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let package = Package::open(&builtin::source())?;
    let kernels = match &args.model {
        Some(model) => {
            let model = Package::open(&Source::Path(model.clone()))?;
            KernelSet::of(&model.checkpoint, args.trust_kernels)
        }
        None => KernelSet::program(),
    };
    let mut out = stdout();
    let mut written = Ok(());
    let mut tell = |check: &Check| {
        if !args.json && written.is_ok() {
            written = show(&mut out, check);
        }
    };
    let report = examine(&package, &kernels, &mut tell);
    written.map_err(Failure::io)?;
    if args.json {
        let broken = report.is_broken(Area::Cpu) || report.is_broken(Area::Cuda);
        let mut all = json!(report);
        all["ok"] = (!broken).into();
        writeln!(out, "{}", Json(&format!("{all:#}"))).map_err(Failure::io)?;
    } else {
        writeln!(out, "{}", verdict(&report)).map_err(Failure::io)?;
    }
    outcome(&report)
}

/// A line for a check, and one for what to do about it.
fn show(out: &mut impl Write, check: &Check) -> std::io::Result<()> {
    let outcome = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Absent => "absent",
        Outcome::Warning => "warning",
        Outcome::Failed => "FAILED",
    };
    let area = match check.area {
        Area::Cpu => "cpu",
        Area::Cuda => "cuda",
    };
    let (name, says) = (OneLine(&check.name), OneLine(&check.says));
    writeln!(out, "{outcome:<8} {area:<5} {name}: {says} ({:.1} ms)", check.milliseconds)?;
    match check.hint {
        Some(hint) if check.outcome != Outcome::Absent => writeln!(out, "         hint: {hint}"),
        _ => Ok(()),
    }
}

fn verdict(report: &Report) -> &'static str {
    match (report.cpu_usable, report.cuda_usable, report.is_broken(Area::Cuda)) {
        (false, ..) => "The CPU computes wrongly.",
        (true, true, false) => "The CPU and every GPU work.",
        (true, true, true) => "The CPU works, and not every GPU does.",
        (true, false, true) => "The CPU works, the GPU does not.",
        (true, false, false) => "The CPU works; there is no GPU.",
    }
}

fn outcome(report: &Report) -> Result<(), Failure> {
    let first = |area| {
        let failed = |check: &&Check| check.area == area && check.outcome == Outcome::Failed;
        report.checks.iter().find(failed)
    };
    if let Some(check) = first(Area::Cpu) {
        return Err(Failure::Wrong {
            what: format!("{}: {}", check.name, check.says),
            hint: check.hint.unwrap_or("report this"),
        });
    }
    match first(Area::Cuda) {
        Some(check) => Err(Failure::Unavailable {
            what: format!("{}: {}", check.name, check.says),
            hint: check.hint.unwrap_or("use --device cpu"),
        }),
        None => Ok(()),
    }
}
