//! Whatever a model, a name or a header says, a terminal is not told what to do.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tercet_tests::folder::Folder;
use tercet_tests::hostile::{HOSTILE, Hostile, forbidden};
use tercet_tests::scripted::scripted;

use super::models::{Altered, hollow};
use super::pty::Terminal;
use super::support::{PROGRAM, tercet, text};

/// What `chat` and `run` need to let the model speak to its end.
const WHOLE: [&str; 5] = ["--greedy", "--ctx", "8192", "--device", "cpu"];

/// A model that says every hostile text between marks, once for every byte at which a border of
/// tokens can cut it. Also what it says, and what may be seen of that.
fn cursing() -> (Folder, String, String) {
    let (mut tokens, mut said, mut shown) = (Vec::new(), String::new(), String::new());
    for hostile in HOSTILE {
        for cut in 1..hostile.text.len() {
            let (left, right) = hostile.text.as_bytes().split_at(cut);
            let number = tokens.len();
            tokens.push([format!("<{number}:").as_bytes(), left].concat());
            tokens.push([right, format!(":{number}>\n").as_bytes()].concat());
            said += &format!("<{number}:{}:{number}>\n", hostile.text);
            shown += &format!("<{number}:{}:{number}>\n", hostile.shown);
        }
    }
    (scripted(&tokens), said, shown)
}

/// What a terminal shows of `text`: it turns line ends into two characters.
fn on_terminal(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// Fails with the first line that differs.
#[track_caller]
fn assert_same(got: &str, expected: &str, what: &str) {
    for (number, (got, expected)) in got.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, expected, "{what}: line {number}");
    }
    assert_eq!(got.len(), expected.len(), "{what}");
}

#[test]
fn no_control_sequence_of_a_model_is_shown() {
    let (model, said, shown) = cursing();
    let model = text(model.path());
    let run: Vec<&str> = ["run", model, "-q", "-p", "hello"].into_iter().chain(WHOLE).collect();

    // A pipe gets what the model said only with --raw; in JSON it is spelt harmlessly.
    let raw = tercet(&run).arg("--raw").succeed();
    assert_same(raw.text(), &said, "run --raw, pipe");
    assert_same(tercet(&run).succeed().text(), &shown, "run, pipe");
    let json = tercet(&run).arg("--json").succeed();
    assert_eq!(forbidden(json.text()), None);
    assert_eq!(json.json()["text"], said.as_str());

    for more in [&[][..], &["--raw"], &["--json"]] {
        let mut terminal = Terminal::start(&[&run[..], more].concat());
        // `run` reads what is typed only where there is no -p.
        terminal.keys(&[4]);
        let (code, seen) = terminal.end();
        assert_eq!(code, Some(0), "{more:?}: {seen:?}");
        let seen = seen.replace("\r\n", "\n");
        assert_eq!(forbidden(&seen), None, "run {more:?}");
        if more != ["--json"] {
            assert_same(&seen, &shown, "run, terminal");
        }
    }

    let mut terminal =
        Terminal::start(&[&[model, "--plain", "--no-save", "--no-history"][..], &WHOLE].concat());
    terminal.expect("> ");
    terminal.line("hello");
    let answer = terminal.expect("\r\n[");
    let answer = answer.strip_prefix("hello\r\n").unwrap().strip_suffix("\r\n[").unwrap();
    assert_same(answer, &on_terminal(&shown), "chat");
    terminal.expect("> ");
    // What is typed comes back from the kernel, not from us: harmless, too, and not ours.
    terminal.line("/\u{202e}unknown\u{9b}");
    terminal.expect("there is no command `/unknown`");
    terminal.keys(&[4]);
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0));
    let seen = seen.replacen("/\u{202e}unknown\u{9b}", "", 1).replace("\r\n", "\n");
    assert_eq!(forbidden(&seen), None, "chat");
}

/// The texts that can be part of an argument or of a path.
fn names() -> impl Iterator<Item = Hostile> {
    HOSTILE.into_iter().filter(|hostile| !hostile.text.contains('\0'))
}

/// What the program shows on a terminal with `args`; it has to end with `code`.
#[track_caller]
fn seen(args: &[&str], code: i32) -> String {
    let (ended, seen) = Terminal::start(args).end();
    assert_eq!(ended, Some(code), "{args:?}: {seen:?}");
    seen.replace("\r\n", "\n")
}

#[test]
fn no_control_sequence_of_a_name_is_shown() {
    assert!(names().count() > HOSTILE.len() - 3);
    for Hostile { name, text, shown } in names() {
        let path = format!("/no/<{text}>/such");
        let error = seen(&["run", &path, "-p", "x"], 66);
        assert!(error.contains(&format!("/no/<{shown}>/such")), "{name}: {error:?}");
        assert_eq!(forbidden(&error), None, "{name}");

        // The parser repeats what was typed, in colours of its own.
        let error = seen(&["run", &format!("--<{text}>")], 2);
        assert_eq!(error, seen(&["run", &format!("--<{shown}>")], 2), "{name}");
        assert!(error.contains(&format!("--<{shown}>")), "{name}: {error:?}");
    }
}

#[test]
fn no_control_sequence_of_a_header_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    for Hostile { name, text: hostile, shown } in HOSTILE {
        // In the path, in the version of the contract, in a tensor's name: all are reported.
        let of_path = names().find(|other| other.name == name && !other.text.contains('/'));
        let file = format!("<{}>.tercet", of_path.map_or("", |other| other.text));
        let model = folder.path().join(&file);
        let altered = Altered::new()
            .with_metadata("tercet.kernels.contract", &format!("<{hostile}>"))
            .with_tensor(&format!("tercet.ptx.[{hostile}]"), b"// no kernel")
            .write(folder.path());
        fs::rename(altered, &model).unwrap();

        let report = seen(&["inspect", text(&model)], 0);
        assert_eq!(forbidden(&report), None, "{name}");
        assert!(report.contains(&format!("of contract <{shown}>")), "{name}: {report:?}");
        assert!(report.contains(&format!("([{shown}])")), "{name}: {report:?}");
        let file = format!("<{}>.tercet", of_path.map_or("", |other| other.shown));
        assert!(report.contains(&file), "{name}: {report:?}");
        let json = seen(&["inspect", "--json", text(&model)], 0);
        assert_eq!(forbidden(&json), None, "{name}");
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["kernels"]["contract"], format!("<{hostile}>"), "{name}: {json}");
        fs::remove_file(&model).unwrap();
    }
}

/// Words of a model's files in errors about them.
#[test]
fn no_control_sequence_of_a_refused_file_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let of_shards = tempfile::tempdir().unwrap();
    for Hostile { name, text: hostile, shown } in HOSTILE {
        let quoted = format!("<{hostile}>");
        let told = |args: &[&str], code| {
            let error = seen(args, code);
            assert_eq!(forbidden(&error), None, "{name}");
            assert!(error.contains(&format!("<{shown}>")), "{name}: {error:?}");
        };
        let model = hollow(folder.path(), |config| config["architectures"] = json!([quoted]));
        told(&["inspect", text(&model)], 78);

        let header = json!({
            &quoted: { "dtype": "F32", "shape": [1], "data_offsets": [4, 8] },
        });
        let header = header.to_string();
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 8]].concat();
        let model = folder.path().join("model.safetensors");
        fs::write(&model, bytes).unwrap();
        told(&["inspect", text(folder.path())], 65);

        let model = hollow(of_shards.path(), |_| {});
        let _ = fs::remove_file(model.join("model.safetensors"));
        let index = json!({ "weight_map": { "model.norm.weight": quoted } });
        fs::write(model.join("model.safetensors.index.json"), index.to_string()).unwrap();
        told(&["inspect", text(&model)], 65);
    }
}

/// What a chat template raises is the model's word, too.
#[test]
fn no_control_sequence_of_a_template_is_shown() {
    let model = scripted(&[b"hello".to_vec()]);
    for Hostile { name, text: hostile, shown } in HOSTILE {
        let literal = hostile.replace('\\', "\\\\").replace('\r', "\\r");
        let template = format!("{{{{ raise_exception('<{literal}>') }}}}");
        model.put_json("tokenizer_config.json", &json!({ "chat_template": template }));
        let error = seen(&["run", text(model.path()), "-p", "x"], 65);
        assert_eq!(forbidden(&error), None, "{name}");
        assert!(error.contains(&format!("<{shown}>")), "{name}: {error:?}");
    }
}

/// The same on the whole screen: what the terminal is told is ours, and what is shown is harmless.
#[test]
fn no_control_sequence_of_a_model_is_drawn() {
    let (model, _, shown) = cursing();
    for place in [&[][..], &["--inline"]] {
        let mut command = Command::new("setsid");
        command.args(["--ctty", PROGRAM, text(model.path()), "--no-save", "--no-history"]);
        command.args(WHOLE).args(place).env("TERM", "xterm-256color");
        let mut terminal = Terminal::of(command);
        terminal.wait_for("Type a message");
        // As it is written, or signs of Markdown would be missing from it.
        terminal.keys(b"/raw\r");
        terminal.keys("hello\u{9b}2J\r".as_bytes());
        terminal.wait_for("ended by");
        let (seen, last) = (terminal.emulator().text(), shown.lines().last().unwrap());
        assert!(seen.contains(last), "{place:?}: {last}\n{seen}");
        assert_eq!(forbidden(&seen), None, "{place:?}");
        // The question for the background is ours.
        assert_eq!(terminal.emulator().commands(), ["11;?"], "{place:?}");
        let full = if place.is_empty() { &[1049, 2004][..] } else { &[2004] };
        assert_eq!(terminal.emulator().changed_modes(), full, "{place:?}");
        terminal.keys(&[4]);
        let (code, _) = terminal.end();
        assert_eq!(code, Some(0), "{place:?}");
    }
}
