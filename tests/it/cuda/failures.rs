//! The program, with a driver that is missing, damaged, too old, or fails.

use serde_json::Value;

use super::{damaged, fake, folder_with};
use crate::cli::support::{Tercet, tercet};

/// The program with `folder` before the system's libraries.
fn with(folder: &tempfile::TempDir, args: &[&str]) -> Tercet {
    tercet(args).env("LD_LIBRARY_PATH", folder.path())
}

const SHORT: [&str; 6] = ["run", "-p", "Once", "--greedy", "-n", "3"];

fn run_on(device: &str) -> Vec<&str> {
    [&SHORT[..], &["--device", device]].concat()
}

/// Where there is no driver at all, nothing is said unless the GPU was asked for.
#[test]
fn no_driver_is_silent_unless_asked() {
    let nothing = tempfile::tempdir().unwrap();
    // A machine that runs tests may have a driver: then there is nothing to see here.
    let ran = with(&nothing, &run_on("cuda")).run();
    if ran.code != Some(69) || !ran.stderr.contains("no NVIDIA driver") {
        tercet_tests::skipped("a machine without a driver");
        return;
    }
    ran.assert_explained(&["no NVIDIA driver", "libcuda.so.1"]);
    let ran = with(&nothing, &run_on("auto")).succeed();
    assert!(ran.stderr.is_empty(), "{ran}");
    let ran = with(&nothing, &["doctor"]).succeed();
    assert!(ran.text().contains("absent   cuda  driver: there is no NVIDIA driver"), "{ran}");
}

/// What each kind of broken driver is called; `auto` goes on with the CPU and says so in a line.
#[test]
fn broken_drivers_are_named() {
    let Some(fake) = fake() else { return };
    let damaged = damaged();
    // A real library, with none of the driver's functions in it.
    let libm = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/libm.so.6", "/usr/lib/libm.so.6"];
    let another = libm.iter().map(std::path::Path::new).find(|path| path.exists());
    let fails = |plan: &'static str| vec![("FAKE_CUDA_FAIL", plan)];
    let mut cases = vec![
        (&damaged, vec![], vec!["no NVIDIA driver", "libcuda.so.1"]),
        (&fake, vec![("FAKE_CUDA_VERSION", "11040")], vec!["CUDA 11.4", "12.0 or newer"]),
        (&fake, fails("cuInit=803"), vec!["cuInit", "SYSTEM_DRIVER_MISMATCH", "803"]),
        (&fake, fails("cuInit=804"), vec!["cuInit", "804"]),
        (&fake, fails("cuInit=999"), vec!["cuInit", "UNKNOWN", "999"]),
        (&fake, fails("cuInit=34"), vec!["cuInit", "STUB_LIBRARY"]),
        (&fake, fails("cuInit=918"), vec!["cuInit", "918"]),
        (&fake, vec![("FAKE_CUDA_CAPABILITY", "75")], vec!["Fake GPU", "7.5", "below 8.0"]),
    ];
    let another = another.map(folder_with);
    if let Some(another) = &another {
        cases.push((another, vec![], vec!["has no cuDriverGetVersion"]));
    }
    for (folder, settings, words) in cases {
        let program = |args: &[&str]| {
            settings.iter().fold(with(folder, args), |run, (name, value)| run.env(name, value))
        };
        program(&run_on("cuda")).fail(69, &words);
        let ran = program(&run_on("auto")).succeed();
        assert_eq!(ran.stderr.lines().count(), 1, "{ran}");
        for word in words.iter().chain(&["computing on the CPU", "tercet doctor"]) {
            assert!(ran.stderr.contains(word), "{word}: {ran}");
        }
        let quiet = [&run_on("auto")[..], &["-q"]].concat();
        assert!(program(&quiet).succeed().stderr.is_empty(), "{words:?}");
        assert!(program(&run_on("cpu")).succeed().stderr.is_empty(), "{words:?}");
        let ran = program(&["doctor"]).run();
        assert_eq!(ran.code, Some(69), "{ran}");
        ran.assert_explained(&[]);
    }
}

/// No device that this process may use is no fault, whoever hid it.
#[test]
fn a_hidden_device_is_absent() {
    let Some(fake) = fake() else { return };
    let plan = ("FAKE_CUDA_FAIL", "cuInit=100");
    let program = |args: &[&str]| with(&fake, args).env(plan.0, plan.1);
    assert!(program(&run_on("auto")).succeed().stderr.is_empty(), "silent");
    program(&run_on("cuda")).fail(69, &["finds no GPU", "NO_DEVICE", "100"]);
    program(&["doctor"]).succeed();
    with(&fake, &run_on("cuda:3")).fail(69, &["no GPU 3", "has 1"]);
}

/// A variable of the stand-in.
type Setting = (&'static str, &'static str);

fn doctor(settings: &[Setting]) -> Option<(Option<i32>, Value)> {
    let fake = fake()?;
    let program = with(&fake, &["doctor", "--json"]);
    let ran = settings.iter().fold(program, |run, (name, value)| run.env(name, value)).run();
    Some((ran.code, serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{ran}"))))
}

/// The check whose name ends in `name`.
fn check<'v>(report: &'v Value, name: &str) -> &'v Value {
    let checks = report["checks"].as_array().unwrap();
    let named = |check: &&Value| check["name"].as_str().unwrap().ends_with(name);
    checks.iter().find(named).unwrap_or_else(|| panic!("no check {name}: {report:#}"))
}

const MODULES: &str = "cuda:0 modules";
const MEMORY: &str = "cuda:0 memory";
/// The first of the trials.
const TRIAL: &str = "ternary, heads of 100, SiLU, sub-norms";

/// The stand-in loads every kernel and runs the first that a step needs; a trial goes as far as
/// that, operation by operation, and names the next.
#[test]
fn doctor_runs_the_kernels() {
    let Some((_, report)) = doctor(&[]) else { return };
    for (name, words) in [(MODULES, "kernels"), (MEMORY, "TB/s")] {
        let check = check(&report, name);
        assert_eq!(check["outcome"], "ok", "{report:#}");
        assert!(check["says"].as_str().unwrap().contains(words), "{check}");
    }
    let trial = check(&report, TRIAL);
    assert_eq!(trial["outcome"], "failed", "{report:#}");
    assert_eq!(trial["cuda_code"], 801, "{trial}");
    for words in ["step 1 of 1 rows, cache of halves", "(kernels: decode_qkv_4)"] {
        assert!(trial["says"].as_str().unwrap().contains(words), "{words}: {trial}");
    }
    assert_eq!(report["cuda_driver"], "12.4");
    assert_eq!(report["gpus"][0]["name"], "Fake GPU");
    assert_eq!(
        (&report["gpus"][0]["usable"], &report["cpu_usable"]),
        (&false.into(), &true.into())
    );
}

/// A GPU of the first generation that is served takes other kernels.
#[test]
fn doctor_runs_the_kernels_of_the_device() {
    let Some((_, report)) = doctor(&[("FAKE_CUDA_CAPABILITY", "80")]) else { return };
    assert_eq!(check(&report, MODULES)["outcome"], "ok", "{report:#}");
    let says = check(&report, TRIAL)["says"].as_str().unwrap();
    assert!(says.contains("(kernels: quantize)"), "{says}");
}

#[test]
fn doctor_finds_what_would_fail() {
    let fails = |plan| ("FAKE_CUDA_FAIL", plan);
    let cases: [(&[Setting], &str, &str); 8] = [
        (&[("FAKE_CUDA_KERNEL", "wrong")], TRIAL, "embed: element 259 is"),
        (&[("FAKE_CUDA_KERNEL", "wrong")], TRIAL, "(kernels: embed)"),
        (&[fails("cuModuleLoadDataEx=209")], MODULES, "NO_BINARY_FOR_GPU"),
        (&[fails("cuModuleLoadDataEx=222")], MODULES, "needs a driver of CUDA 12.0"),
        (&[fails("cuLaunchKernel=719@7")], MEMORY, "LAUNCH_FAILED"),
        (&[fails("cuStreamSynchronize=700@1")], TRIAL, "ILLEGAL_ADDRESS"),
        (&[fails("cuDevicePrimaryCtxRetain=2")], "cuda:0", "OUT_OF_MEMORY"),
        (&[("FAKE_CUDA_MEMORY", "1000")], MEMORY, "of GPU memory"),
    ];
    for (settings, name, words) in cases {
        let Some((code, report)) = doctor(settings) else { return };
        let check = check(&report, name);
        assert_eq!(check["outcome"], "failed", "{settings:?}: {report:#}");
        assert!(check["says"].as_str().unwrap().contains(words), "{settings:?}: {check}");
        assert!(check["hint"].is_string(), "{check}");
        assert_eq!((code, &report["ok"]), (Some(69), &Value::Bool(false)), "{settings:?}");
        assert_eq!(report["cpu_usable"], true);
    }
}
