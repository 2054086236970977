//! A model file that shrinks while it is mapped: a sentence and exit code 74, not a signal.

use core::time::Duration;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::thread;

use super::models::copy;
use super::support::{Ran, STORY, finish, tercet, text};

/// Leaves the header and cuts the weights.
fn truncate(model: &Path) {
    File::options().write(true).open(model).unwrap().set_len(64 << 10).unwrap();
}

fn assert_told(ran: &Ran) {
    assert_eq!(ran.signal, None, "{ran}");
    assert_eq!(ran.code, Some(74), "{ran}");
    ran.assert_explained(&["cut short while in use"]);
}

/// The embedding is read from the mapping at every token, so the next token meets the end.
#[test]
fn cut_during_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy(folder.path());
    let mut child = tercet(["run", text(&model), "-p", STORY, "--seed", "1"]).spawn();
    assert!(child.stdout.as_mut().unwrap().read(&mut [0; 1]).unwrap() == 1);
    truncate(&model);
    assert_told(&finish(child));
}

/// At any moment of a long run: refused when opened (65), told when met (74), never a signal.
#[test]
fn cut_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let text_file = folder.path().join("text.txt");
    std::fs::write(&text_file, "Once upon a time there was a dog. ".repeat(3000)).unwrap();
    let mut told = 0;
    for wait in 0..12 {
        let model = copy(folder.path());
        let args = ["eval", "ppl", text(&model), "--text", text(&text_file)];
        let child = tercet(args).spawn();
        thread::sleep(Duration::from_millis(5 + 20 * wait));
        truncate(&model);
        let ran = finish(child);
        match ran.code {
            Some(74) => {
                assert_told(&ran);
                told += 1;
            }
            Some(65) => {}
            _ => panic!("cut at moment {wait}: {ran}"),
        }
    }
    assert!(told > 0, "at least one cut met a reader");
}
