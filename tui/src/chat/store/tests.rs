use core::hash::BuildHasher;
use core::time::Duration;
use std::hash::RandomState;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use super::super::record::tests::{setup, turn};
use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state")).unwrap();
    (folder, store)
}

/// A conversation that begins with `text`.
fn record(text: &str) -> Record {
    let mut record = Record::new();
    record.set_up(setup());
    record.push(turn(text, "an answer"), &[1, 2, 3]);
    record
}

fn names(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(&store.folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn words(failure: &Failure) -> String {
    let (what, hint) = failure.message();
    assert!(hint.len() > 5, "{failure:?}");
    what
}

#[test]
fn a_session_is_saved_as_it_goes_and_resumed() {
    let (_folder, store) = store();
    let mut open = store.create();
    let mut record = Record::new();
    record.created = "2026-11-22T03:41:09Z".into();
    open.save(&mut record).unwrap();
    assert_eq!((open.path(), names(&store)), (None, vec![]), "nothing was said");
    record.set_up(setup());
    for number in 1..4 {
        record.push(turn(&number.to_string(), "x"), &[1; 5]);
        open.save(&mut record).unwrap();
        assert_eq!(names(&store), ["2026-11-22-034109.json"]);
        assert_eq!(Record::read(open.path().unwrap()).unwrap(), record);
    }
    drop(open);
    let Resumed { record: back, mut open, set_aside } = store.resume(None).unwrap();
    assert_eq!((&back, set_aside.len()), (&record, 0));
    while record.pop().is_some() {}
    open.save(&mut record).unwrap();
    assert!(Record::read(open.path().unwrap()).unwrap().turns().is_empty(), "all was undone");
}

#[cfg(unix)]
#[test]
fn sessions_are_the_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, store) = store();
    let mut open = store.create();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for _ in 0..2 {
        open.save(&mut record("a")).unwrap();
        assert_eq!(mode(open.path().unwrap()), 0o600);
    }
    assert_eq!(mode(&store.folder), 0o700);
}

#[test]
fn sessions_of_one_second_have_files_of_their_own() {
    let (_folder, store) = store();
    let mut held = Vec::new();
    for text in ["a", "b", "c"] {
        let mut record = record(text);
        record.created = "2026-11-22T03:41:09Z".into();
        held.push(store.create());
        held.last_mut().unwrap().save(&mut record).unwrap();
    }
    let begun = "2026-11-22-034109";
    let expected = [format!("{begun}-2.json"), format!("{begun}-3.json"), format!("{begun}.json")];
    assert_eq!(names(&store), expected);
    assert_eq!(file_name("yesterday", 1), "session.json");
    assert_eq!(file_name("٣٣٣٣/../../x", 2), "session-2.json");
}

#[test]
fn an_open_session_is_refused() {
    let (_folder, store) = store();
    let mut open = store.create();
    open.save(&mut record("a")).unwrap();
    let name = name_of(open.path().unwrap()).unwrap();
    for which in [None, Some(name.as_str())] {
        let failure = store.resume(which).unwrap_err();
        assert!(words(&failure).contains("is open, here or in another tercet"), "{failure:?}");
        assert!(words(&failure).contains(&name), "{failure:?}");
        // Saving puts another file in its place: that is locked, too.
        open.save(&mut record("b")).unwrap();
    }
    drop(open);
    let resumed = store.resume(Some(&name)).unwrap();
    assert_eq!(resumed.record.title(), "b");
    assert!(store.resume(None).is_err());
}

#[test]
fn the_list_is_newest_first_and_names_are_found() {
    let (_folder, store) = store();
    let times = ["2026-11-21T10:00:00Z", "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"];
    // Saved last is newest, whenever it began.
    for number in [2, 0, 1] {
        let mut record = record(&format!("message {number}"));
        record.created = times[number].into();
        store.create().save(&mut record).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    fs::write(store.folder.join("damaged.json"), "{").unwrap();
    fs::write(store.folder.join("notes.txt"), "not ours").unwrap();
    let listed = store.list(10).unwrap();
    let titles: Vec<_> = listed.iter().map(|session| session.title.as_str()).collect();
    assert_eq!(titles, ["message 1", "message 0", "message 2"]);
    assert_eq!(listed[0].name, "2026-11-22-100000");
    assert_eq!((listed[0].turns, listed[0].model.as_str()), (1, "a _model_"));
    assert_eq!(store.list(2).unwrap().len(), 2);

    let found = |name: &str| store.find(name).map(|path| name_of(&path).unwrap());
    assert_eq!(found("2026-11-22-100000").unwrap(), "2026-11-22-100000");
    assert_eq!(found("2026-11-21").unwrap(), "2026-11-21-100000");
    assert!(words(&found("2026-11-22").unwrap_err()).contains("2 sessions begin with"));
    assert!(words(&found("2027").unwrap_err()).contains("no session of that name"));
    assert!(words(&found("").unwrap_err()).contains("is no name"));
    assert_eq!(store.find("a/b").unwrap(), Path::new("a/b"));
}

/// 100,000 names from a seed: refused, or a file of the store's own folder.
#[test]
fn no_name_leads_out_of_the_store() {
    let (_folder, store) = store();
    let pieces = ["..", ".", "/", "\\", "a", "Z9", "-", " ", "\0", "\n", "é", "~", "$HOME", "C:"];
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 33) as usize % below
    };
    let mut taken = 0;
    for _ in 0..100_000 {
        let name: String = (0..random(6)).map(|_| pieces[random(pieces.len())]).collect();
        if let Ok(path) = store.path_of(&name) {
            assert_eq!(path.parent(), Some(store.folder.as_path()), "{name:?}");
            assert_eq!(path.file_name().unwrap(), format!("{name}.json").as_str());
            assert!(!name.starts_with(['.', '-', ' ']), "{name:?}");
            taken += 1;
        }
    }
    assert!(taken > 1000, "{taken} names were names");
}

#[test]
fn damaged_sessions_are_set_aside() {
    let (_folder, store) = store();
    store.create().save(&mut record("whole")).unwrap();
    let damaged = [("x", "{\"format\":\"tercet ses"), ("y", ""), ("z", "\0\0\0\0")];
    for (name, text) in damaged {
        thread::sleep(Duration::from_millis(20));
        fs::write(store.path_of(name).unwrap(), text).unwrap();
    }
    let failure = store.resume(Some("z")).unwrap_err();
    assert!(words(&failure).contains("z.json.corrupt"), "{failure:?}");
    let resumed = store.resume(None).unwrap();
    assert_eq!(resumed.record.title(), "whole");
    let aside: Vec<_> = resumed.set_aside.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(aside, ["y.json.corrupt", "x.json.corrupt"]);
    assert_eq!(fs::read_to_string(&resumed.set_aside[1]).unwrap(), damaged[0].1);
}

/// Not damaged, only of tomorrow: it stays where it is.
#[test]
fn a_newer_session_is_left_alone() {
    let (_folder, store) = store();
    let path = store.path_of("new").unwrap();
    fs::write(&path, "{\"format\":\"tercet session\",\"version\":9}").unwrap();
    let failure = store.resume(None).unwrap_err();
    assert!(words(&failure).contains("version 9"), "{failure:?}");
    assert!(path.exists());
}

#[test]
fn a_file_from_elsewhere_becomes_a_session() {
    let (folder, store) = store();
    let elsewhere = folder.path().join("given.json");
    fs::write(&elsewhere, record("given").to_json()).unwrap();
    let Resumed { mut record, mut open, .. } =
        store.resume(Some(elsewhere.to_str().unwrap())).unwrap();
    record.push(turn("more", "said"), &[4]);
    open.save(&mut record).unwrap();
    assert_eq!(Record::read(&elsewhere).unwrap().turns().len(), 1);
    assert_eq!(open.path().unwrap().parent(), Some(store.folder.as_path()));
    // A damaged one is the user's: it keeps its name.
    fs::write(&elsewhere, "{").unwrap();
    let failure = store.resume(Some(elsewhere.to_str().unwrap())).unwrap_err();
    assert!(words(&failure).contains("no whole session file"), "{failure:?}");
    assert!(elsewhere.exists());
    // By its path, a session of the store is one of the store.
    let own = open.path().unwrap().to_owned();
    assert!(words(&store.resume(own.to_str()).unwrap_err()).contains("is open"));
}

#[test]
fn what_cannot_be_saved_is_said_and_can_be_tried_again() {
    let (folder, store) = store();
    let mut open = store.create();
    let mut record = record("a");
    let aside = folder.path().join("aside");
    fs::rename(&store.folder, &aside).unwrap();
    fs::write(&store.folder, "a file where the folder was").unwrap();
    let failure = open.save(&mut record).unwrap_err();
    assert!(words(&failure).contains("cannot write"), "{failure:?}");
    fs::remove_file(&store.folder).unwrap();
    open.save(&mut record).unwrap();
    // And where the folder goes while a session is open.
    fs::remove_dir_all(&store.folder).unwrap();
    open.save(&mut record).unwrap();
    assert_eq!(Record::read(open.path().unwrap()).unwrap(), record);
    assert!(Store::open(&store.folder.join(names(&store)[0].as_str())).is_err());
}

#[test]
#[ignore = "the program of the test below, in which files may not grow"]
fn saves_where_there_is_no_room() {
    let Some(state) = std::env::var_os("TERCET_TEST_STATE") else { return };
    let Resumed { mut record, mut open, .. } =
        Store::open(Path::new(&state)).unwrap().resume(None).unwrap();
    record.push(turn("much", &"answer ".repeat(50_000)), &[1]);
    println!("said: {}", words(&open.save(&mut record).unwrap_err()));
}

/// A full disk, for which a limit on the length of files stands: what was saved is there, and
/// nothing beside it.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_what_was_saved() {
    let (folder, store) = store();
    let mut record = record("before");
    store.create().save(&mut record).unwrap();
    let before = names(&store);
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --ignored --nocapture --exact \
                  chat::store::tests::saves_where_there_is_no_room";
    let ran = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("TERCET_TEST_STATE", folder.path().join("state"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("said: cannot write"), "{ran:?}");
    assert_eq!(names(&store), before);
    assert_eq!(store.resume(None).unwrap().record, record);
}

/// Says how many turns are saved, after each.
#[test]
#[ignore = "the program that the test below kills"]
fn saves_until_it_is_killed() {
    let Some(state) = std::env::var_os("TERCET_TEST_STATE") else { return };
    let store = Store::open(Path::new(&state)).unwrap();
    let (mut record, mut open) = match store.resume(None) {
        Ok(resumed) => (resumed.record, resumed.open),
        Err(_) => (Record::new(), store.create()),
    };
    record.set_up(setup());
    loop {
        // As long as a real one: some hundred kilobytes soon.
        record.push(turn("again", &"answer ".repeat(500)), &[3; 2000]);
        open.save(&mut record).unwrap();
        println!("saved {}", record.turns().len());
    }
}

/// Killed at 20 moments of its work: what was saved last, or what was being saved, whole; and the
/// lock goes with the program.
#[test]
fn a_killed_program_leaves_a_whole_session() {
    let (folder, store) = store();
    let state = folder.path().join("state");
    let mut turns = 0;
    let mut between = 0;
    for moment in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "chat::store::tests::saves_until_it_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env("TERCET_TEST_STATE", &state)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut saved = || -> Option<usize> {
            loop {
                let line = lines.next()?.unwrap();
                if let Some((_, count)) = line.split_once("saved ") {
                    return Some(count.parse().unwrap());
                }
            }
        };
        let begun = saved().expect("it saves something");
        assert_eq!(begun, turns + 1, "it went on where the one before was killed");
        let wait = RandomState::new().hash_one(moment) % 30_000;
        thread::sleep(Duration::from_micros(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = core::iter::from_fn(saved).last().unwrap_or(begun);

        let sessions: Vec<_> = store.paths().unwrap();
        let [session] = &sessions[..] else { panic!("{sessions:?}") };
        let record = Record::read(session).unwrap_or_else(|e| panic!("after {wait} us: {e:?}"));
        turns = record.turns().len();
        assert!((said..=said + 1).contains(&turns), "{turns} turns, {said} were said to be saved");
        between += usize::from(turns != said || names(&store).len() > 1);
    }
    println!("{turns} turns in the end; {between} of 20 were met between the lines");
}
