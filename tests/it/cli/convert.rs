//! `tercet convert`: the file is whole or not there, and answers like what it was made from.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use tercet_tests::{require, shared, skipped};

use super::models::{Altered, builtin, copy};
use super::support::{Tercet, finish, shell, tercet, text};

fn convert(from: &Path, to: &Path) -> Tercet {
    tercet(["convert", text(from), text(to), "--to", "tercet"])
}

/// As the built-in model was made.
fn convert_bare(from: &Path, to: &Path) -> Tercet {
    convert(from, to).arg("--no-kernels")
}

/// Names of what is in `folder`.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn answer(model: &Path) -> Vec<u8> {
    let ran = tercet(["run", text(model), "--seed", "1", "-n", "32", "-p", "hello"]).succeed();
    assert!(ran.stdout.len() > 10, "{ran}");
    ran.stdout
}

/// Packed again, a packed file stays what it is; repaired by it, one without digests gets them.
#[test]
fn a_tercet_file_becomes_itself() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made.tercet");
    let ran = convert_bare(&builtin(), &made).succeed();
    assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran}");
    assert!(fs::read(&made).unwrap() == fs::read(builtin()).unwrap(), "other bytes");
    tercet(["inspect", "--check", text(&made)]).succeed();

    let altered = Altered::new().write(folder.path());
    convert_bare(&altered, &made).succeed();
    assert!(fs::read(&made).unwrap() == fs::read(builtin()).unwrap(), "other bytes");
    assert_eq!(names(folder.path()), ["altered.tercet", "made.tercet"]);
}

/// To five trits a byte and back; both files are the same model.
#[test]
fn another_layout_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let [digits, again, codes] =
        ["digits", "again", "codes"].map(|name| folder.path().join(name).with_extension("tercet"));
    for (from, to) in [(builtin(), &digits), (digits.clone(), &again)] {
        convert_bare(&from, to).arg("--layout").arg("base3").succeed();
    }
    assert!(fs::read(&digits).unwrap() == fs::read(&again).unwrap(), "other bytes");
    let json = tercet(["inspect", "--check", "--json", text(&digits)]).succeed().json();
    assert_eq!(json["weights"], "base-3 digits (1.6 bits), layout base3");
    assert_eq!(json["check"]["problems"], serde_json::json!([]));
    // 512 columns take two blocks of 64 bytes, 1408 five.
    let (hidden, kv, ffn) = (512, 256, 1408);
    let bytes = 8 * (128 * (2 * hidden + 2 * kv + 2 * ffn) + 320 * hidden);
    let in_memory = json["bits_per_weight_in_memory"].as_f64().unwrap();
    let weights = json["ternary_parameters"].as_f64().unwrap();
    assert!((in_memory - 8.0 * f64::from(bytes) / weights).abs() < 1e-9, "{in_memory}");
    assert_eq!(answer(&digits), answer(&builtin()));

    convert_bare(&digits, &codes).arg("--layout").arg("rows128").succeed();
    assert!(fs::read(&codes).unwrap() == fs::read(builtin()).unwrap(), "other bytes");
}

#[test]
fn a_folder_and_its_file_answer_alike() {
    if !require("shared") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made.tercet");
    for name in ["stories-bitnet-25m", "stories-bitnet-25m-packed"] {
        let source = shared().unwrap().join("models").join(name);
        convert(&source, &made).succeed();
        let checked = tercet(["inspect", "--check", "--json", text(&made)]).succeed().json();
        assert!(checked["check"]["digests_matching"].as_u64().unwrap() > 100, "{checked}");
        assert_eq!(answer(&made), answer(&source), "{name}");
    }
}

/// Killed at ten moments from the first to the last: old bytes or all of the new ones.
#[test]
fn a_killed_conversion_leaves_no_half_file() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made.tercet");
    let start = Instant::now();
    convert(&builtin(), &made).succeed();
    let whole = start.elapsed();
    let (old, new) = (b"what was here before".to_vec(), fs::read(&made).unwrap());
    let mut killed = 0;
    for moment in 0..10 {
        if moment % 2 == 0 {
            fs::remove_file(&made).unwrap();
        } else {
            fs::write(&made, &old).unwrap();
        }
        let child = convert(&builtin(), &made).spawn();
        thread::sleep(whole * moment / 10);
        let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        killed += i32::from(finish(child).signal == Some(9));
        match fs::read(&made) {
            Ok(bytes) => assert!(bytes == new || (moment % 2 == 1 && bytes == old), "{moment}"),
            Err(error) => assert!(moment % 2 == 0, "the old file is gone: {error}"),
        }
        fs::write(&made, &old).unwrap();
    }
    assert!(killed > 3, "only {killed} of 10 were met at work");
}

/// A target stays as it was, and nothing is left beside it, where writing fails at the end of the
/// space: a limit on the length of files, which any user can set.
#[test]
fn no_space_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made.tercet");
    fs::write(&made, "old").unwrap();
    for blocks in [0, 1, 64, 4096, 16384] {
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec $TERCET convert {} {} --to tercet",
            text(&builtin()),
            text(&made)
        );
        shell(&script).fail(73, &["cannot write", "made.tercet"]);
        assert_eq!(fs::read(&made).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["made.tercet"], "{blocks} blocks");
    }
}

/// The same on a disk that is really full, where a small one may be mounted.
#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let disk = text(folder.path()).to_owned();
    let mount = format!("mount -t tmpfs -o size=4m none {disk}");
    let mounts = shell(&format!("unshare -rm sh -c '{mount}'")).run();
    if mounts.code != Some(0) {
        skipped("mount");
        return;
    }
    let convert = format!("$TERCET convert {} {disk}/made.tercet --to tercet", text(&builtin()));
    let inside = format!(
        "{mount} && echo old >{disk}/made.tercet && {{ {convert}; code=$?; \
         ls -A {disk} >&3; cat {disk}/made.tercet >&3; exit $code; }}"
    );
    let report = folder.path().with_extension("report");
    let ran = shell(&format!("exec 3>{}; exec unshare -rm sh -c '{inside}'", text(&report)));
    ran.fail(73, &["cannot write", "made.tercet"]);
    assert_eq!(fs::read_to_string(&report).unwrap(), "made.tercet\nold\n");
    fs::remove_file(report).unwrap();
}

/// What cannot be read is not written.
#[test]
fn a_damaged_source_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made.tercet");
    let source: PathBuf = Altered::new()
        .with_bytes("model.layers.3.mlp.down_proj.weight", |codes| codes[777] = 0xff)
        .write(folder.path());
    convert(&source, &made).fail(65, &["model.layers.3.mlp.down_proj.weight"]);
    assert_eq!(names(folder.path()), ["altered.tercet"]);
}

/// Onto its own source: the mapping that is read stays, because the name moves last.
#[test]
fn a_file_may_replace_itself() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy(folder.path());
    convert_bare(&model, &model).succeed();
    assert!(fs::read(&model).unwrap() == fs::read(builtin()).unwrap(), "other bytes");
}

/// Whether files without a name work in `folder`.
fn has_nameless_files(folder: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    open(folder, flags, Mode::RUSR | Mode::WUSR).is_ok() || skipped("o_tmpfile")
}

/// However it ends, its unfinished file goes with it.
#[test]
fn a_conversion_that_is_ended_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    if !has_nameless_files(folder.path()) {
        return;
    }
    let made = folder.path().join("made.tercet");
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::TERM, None), (Signal::KILL, None)] {
        let mut met = 0;
        for wait in 0..200 {
            let child = convert(&builtin(), &made).spawn();
            thread::sleep(Duration::from_millis(wait % 20));
            let _ = kill_process(Pid::from_child(&child), signal);
            let ran = finish(child);
            if ran.code != Some(0) {
                // A program that has not begun does not know Ctrl-C yet.
                assert!(ran.code == code || ran.signal == Some(signal.as_raw()), "{ran}");
                assert_eq!(names(folder.path()), [""; 0], "{signal:?} after {wait} ms");
                met += i32::from(wait % 20 > 4);
            }
            let _ = fs::remove_file(&made);
            if met == 5 {
                break;
            }
        }
        assert!(met > 0, "{signal:?} never met it at work");
    }
}

/// As readable as any file that the user makes.
#[test]
fn the_mask_of_the_user_holds() {
    let folder = tempfile::tempdir().unwrap();
    for (mask, mode) in [("022", 0o644), ("077", 0o600)] {
        let made = folder.path().join(mask);
        let convert = format!("$TERCET convert {} {} --to tercet", text(&builtin()), text(&made));
        shell(&format!("umask {mask}; {convert}")).succeed();
        let got = fs::metadata(&made).unwrap().permissions().mode() & 0o777;
        if has_nameless_files(folder.path()) {
            assert_eq!(got, mode, "{got:o}");
        }
    }
}
