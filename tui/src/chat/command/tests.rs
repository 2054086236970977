//! Reading, help and completion say the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use clap::Args as _;
use tercet_host::sampler::Sampling;

use super::*;
use crate::args::SamplingArgs;

fn nowhere() -> Context<'static> {
    Context { sessions: &[], folder: Path::new("/nonexistent"), home: None }
}

fn labels(line: &str, context: &Context<'_>) -> Vec<String> {
    complete(line, line.len(), context).into_iter().map(|candidate| candidate.label).collect()
}

fn set(rest: &str) -> Vec<Setting> {
    match parse(&format!("/set {rest}")) {
        Ok(Command::Set(settings)) => settings,
        other => panic!("{rest}: {other:?}"),
    }
}

fn wrong(line: &str) -> String {
    match parse(line) {
        Err(error) => format!("{error}; {}", error.hint()),
        Ok(command) => panic!("{line}: {command:?}"),
    }
}

#[test]
fn the_table_ties_reading_help_and_completion() {
    let mut names = BTreeSet::new();
    let help: Vec<_> = help().collect();
    for (entry, (usage, meaning)) in TABLE.iter().zip(&help) {
        for name in [&[entry.name], entry.aliases].concat() {
            assert!(name.starts_with('/') && names.insert(name), "{name} stands twice");
            assert_eq!(parse(name).unwrap().name(), entry.name, "{name}");
            assert!(usage.contains(name) && usage.ends_with(entry.usage), "{usage}");
            assert!(labels(name, &nowhere()).contains(&name.to_owned()), "{name}");
        }
        assert_eq!(*meaning, entry.help);
        assert!(usage.len() + meaning.len() < 110, "{usage}: too long for one line");
    }
    let all: Vec<String> = TABLE.iter().map(|entry| entry.name.to_owned()).collect();
    assert_eq!(labels("/", &nowhere()), all);
    assert_eq!(help.len(), all.len());
}

/// Whoever adds an option to the command line adds it to `/set`, and with the same help.
#[test]
fn settings_are_the_options_of_the_command_line() {
    let options = SamplingArgs::augment_args(clap::Command::new("x"));
    let options: Vec<_> = options.get_arguments().filter_map(|option| option.get_long()).collect();
    let settings: Vec<_> = set::TABLE.iter().map(|entry| entry.name).collect();
    assert_eq!(settings, options);
    assert_eq!(help_of_settings().count(), settings.len());

    // The same numbers are in range.
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        sampling: SamplingArgs,
    }
    let numbers = ["0", "-0", "0.5", "1", "1.5", "-1", "7", "1e9", "inf", "NaN", "x", ""];
    for entry in set::TABLE.iter().filter(|entry| !["greedy", "stop"].contains(&entry.name)) {
        for number in numbers {
            let option = format!("--{}={number}", entry.name);
            let line = <Line as clap::Parser>::try_parse_from(["x", &option]);
            let setting = parse(&format!("/set {} \"{number}\"", entry.name));
            assert_eq!(line.is_ok(), setting.is_ok(), "{} {number}", entry.name);
            if let (Ok(line), Ok(Command::Set(settings))) = (line, setting) {
                let mut args = SamplingArgs::default();
                settings.iter().for_each(|setting| apply(setting, &mut args));
                assert_eq!(args, line.sampling, "{} {number}", entry.name);
            }
        }
    }
}

#[test]
fn commands_take_what_their_usage_says() {
    let is = |line: &str, command: Command| assert_eq!(parse(line), Ok(command), "{line}");
    is("/system", Command::System(None));
    is("/system  be brief\nand kind ", Command::System(Some("be brief\nand kind".into())));
    is("/system \"\"", Command::System(Some(String::new())));
    is("/edit\nmore", Command::Edit(Some("more".into())));
    is("/save my chat.json", Command::Save(Some("my chat.json".into())));
    is("/save \"my chat.json\"", Command::Save(Some("my chat.json".into())));
    is("/load last week", Command::Load(Some("last week".into())));
    is("/copy", Command::Copy(Copied::Last));
    is("/copy last", Command::Copy(Copied::Last));
    is("/copy all", Command::Copy(Copied::All));
    is("/copy code", Command::Copy(Copied::Code(1)));
    is("/copy code 2", Command::Copy(Copied::Code(2)));
    is("/copy 3", Command::Copy(Copied::Code(3)));
    is("/raw", Command::Raw(None));
    is("/raw on", Command::Raw(Some(true)));
    is("/stats off", Command::Stats(Some(false)));
    is("/bye", Command::Quit);
    is("/? ", Command::Help);
    let export = |path: Option<&str>, kind| Command::Export { path: path.map(Into::into), kind };
    is("/export", export(None, ExportKind::Markdown));
    is("/export json", export(None, ExportKind::Json));
    is("/export md a b.json", export(Some("a b.json"), ExportKind::Markdown));
    is("/export chat.JSON", export(Some("chat.JSON"), ExportKind::Json));
    is("/export chat", export(Some("chat"), ExportKind::Markdown));
    if let Some(home) = std::env::home_dir() {
        is("/model ~/models/x", Command::Model(Some(home.join("models/x"))));
    }
    is("/model ~x", Command::Model(Some(PathBuf::from("~x"))));

    for line in ["/copy 0", "/copy code x", "/copy code 1 2", "/copy -1", "/copy all 1"] {
        assert!(wrong(line).contains("nothing to copy; usage: /copy [all or code N]"), "{line}");
    }
    assert!(wrong("/raw maybe").contains("`maybe` is neither on nor off"));
    assert!(wrong("/clear\nall of this").contains("/clear stands alone"));
}

#[test]
fn settings_are_read_in_one_line() {
    assert_eq!(set(""), []);
    assert_eq!(
        set("temp 0.7 top-k 40 top-p 0.9 min-p 0.05 repetition-penalty 1.1 seed 7 max-tokens 200"),
        [
            Setting::Temp(Some(0.7)),
            Setting::TopK(Some(40)),
            Setting::TopP(Some(0.9)),
            Setting::MinP(Some(0.05)),
            Setting::RepetitionPenalty(Some(1.1)),
            Setting::Seed(Some(7)),
            Setting::MaxTokens(Some(200)),
        ]
    );
    assert_eq!(
        set("seed random  max-tokens none temp default greedy"),
        [Setting::Seed(None), Setting::MaxTokens(None), Setting::Temp(None), Setting::Greedy]
    );
    let stops = |texts: &[&str]| [Setting::Stop(texts.iter().map(ToString::to_string).collect())];
    assert_eq!(set(r#"stop "\nUser:" stop ### "#), stops(&["\nUser:", "###"]));
    assert_eq!(set(r#"stop "say \"hi\"\\""#), stops(&[r#"say "hi"\"#]));
    assert_eq!(set("stop none"), stops(&[]));
    assert_eq!(set("stop \"none\""), stops(&["none"]));
    assert_eq!(set("--temp 1"), [Setting::Temp(Some(1.0))], "as on the command line");

    assert!(wrong("/set temp").contains("`temp` wants T"), "{}", wrong("/set temp"));
    assert!(wrong("/set temp -1").contains("`temp` is `-1`, wanted a number from 0 or default"));
    assert!(wrong("/set seed x").contains("wanted a whole number or random"));
    assert!(wrong("/set tmep 1").contains("did you mean `temp`?"));
    assert!(wrong("/set stop \"x").contains("closing"));
    assert!(wrong(r#"/set stop "\x""#).contains("after \\ stands"));
}

#[test]
fn settings_change_the_arguments_and_are_shown_as_typed() {
    let mut args = SamplingArgs { temp: Some(0.5), top_k: Some(3), ..SamplingArgs::default() };
    apply(&Setting::Greedy, &mut args);
    assert_eq!(args, SamplingArgs { greedy: true, ..SamplingArgs::default() });
    apply(&Setting::TopP(Some(0.9)), &mut args);
    assert_eq!(args, SamplingArgs { top_p: Some(0.9), ..SamplingArgs::default() });
    apply(&Setting::RepetitionPenalty(Some(1.5)), &mut args);
    apply(&Setting::Greedy, &mut args);
    assert_eq!(args.repetition_penalty, Some(1.5), "greedy says nothing about it");
    apply(&Setting::Stop(vec!["a b".into(), "\n".into()]), &mut args);

    // What is shown can be typed.
    let sampling = Sampling { temperature: 0.7, top_k: 40, top_p: 0.95, ..Sampling::GREEDY };
    let shown: Vec<String> = shown(&args, &sampling)
        .filter(|(name, _)| *name != "greedy")
        .map(|(name, value)| match name {
            "stop" => format!("stop {}", value.replace("\" \"", "\" stop \"")),
            name => format!("{name} {value}"),
        })
        .collect();
    let mut again = SamplingArgs::default();
    set(&shown.join(" ")).iter().for_each(|setting| apply(setting, &mut again));
    assert_eq!((again.temp, again.top_k, again.top_p), (Some(0.7), Some(40), Some(0.95)));
    assert_eq!(again.stop, args.stop);
    assert_eq!((again.seed, again.max_tokens), (None, None));
}

#[test]
fn messages_may_begin_with_a_slash() {
    let said = |text: &str| match read(text) {
        Ok(Input::Message(message)) => message,
        other => panic!("{text}: {other:?}"),
    };
    for text in [
        "",
        "hello",
        " /help",
        "a /b",
        "/usr/bin/x is what",
        "/etc/passwd\nroot:x:0",
        "/notes.txt",
        "// a comment\ncode",
        "/// a doc comment",
        "//",
        "//\ncode",
    ] {
        assert_eq!(said(text), text);
    }
    assert_eq!(said("//help"), "/help");
    assert_eq!(said("//usr is a folder"), "/usr is a folder");
    assert_eq!(read("/quit"), Ok(Input::Command(Command::Quit)));
    assert_eq!(read("/quit\n"), Ok(Input::Command(Command::Quit)));
    for text in ["/", "/ what", "/3 of them", "/nonsense now", "/Help"] {
        let error = read(text).unwrap_err();
        assert!(matches!(error, CommandError::Unknown { .. }), "{text}: {error}");
        assert!(error.hint().contains("//"), "{}", error.hint());
    }
}

#[test]
fn a_mistyped_command_names_the_one_that_was_meant() {
    for (typed, meant) in [
        ("/hlep", "/help"),
        ("/quitt", "/quit"),
        ("/EXIT", "/exit"),
        ("/regenerate", ""),
        ("/exprot", "/export"),
        ("/sy", "/system"),
        ("/stat", "/stats"),
        ("/zzz", ""),
        ("/", ""),
    ] {
        let Err(CommandError::Unknown { nearest, .. }) = parse(typed) else {
            panic!("{typed} is known")
        };
        assert_eq!(nearest.unwrap_or_default(), meant, "{typed}");
    }
    let long = format!("/{}", "x".repeat(100_000));
    assert!(wrong(&long).len() < 200);
    assert!(!wrong("/\x1b[31mred").contains('\x1b'));
}

#[test]
fn completion_replaces_the_word_before_the_cursor() {
    let apply = |line: &str, cursor: usize, index: usize| {
        let candidate = complete(line, cursor, &nowhere()).remove(index);
        let mut line = line.to_owned();
        line.replace_range(candidate.range, &candidate.text);
        line
    };
    assert_eq!(apply("/he", 3, 0), "/help");
    assert_eq!(apply("/se 1", 3, 0), "/set  1");
    assert_eq!(apply("/set te", 7, 0), "/set temp ");
    assert_eq!(apply("/set temp 1 seed r", 18, 0), "/set temp 1 seed random");
    assert_eq!(apply("/raw o", 6, 1), "/raw off");

    assert_eq!(labels("/ex", &nowhere()), ["/export", "/exit"]);
    assert_eq!(labels("/set greedy max", &nowhere()), ["max-tokens"]);
    assert_eq!(labels("/set temp ", &nowhere()), ["default"]);
    assert_eq!(labels("/set ", &nowhere()).len(), 9);
    assert_eq!(labels("/copy ", &nowhere()), ["all", "code", "last"]);
    assert_eq!(labels("/export ", &nowhere()), ["md", "json"]);
    for line in ["", "x", "he", "/system h", "/clear ", "/nonsense x", "/help\nx", "/copy all "] {
        assert_eq!(labels(line, &nowhere()), [""; 0], "{line:?}");
    }
    // Neither a cursor outside nor one inside of a character.
    assert!(complete("/set é", 6, &nowhere()).is_empty());
    assert!(complete("/set", 5, &nowhere()).is_empty());
}

#[test]
fn paths_are_listed_without_following_them_far() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["a b.md", "a.tercet", "b", ".hidden", "\u{1b}[31mred", "z "] {
        fs::write(at(name), "").unwrap();
    }
    fs::create_dir(at("album")).unwrap();
    fs::write(at("album/x"), "").unwrap();
    let sessions = ["monday".to_owned(), "album of songs".to_owned()];
    let context = Context { sessions: &sessions, folder: folder.path(), home: Some(folder.path()) };

    assert_eq!(labels("/save a", &context), ["a b.md", "a.tercet", "album/"]);
    assert_eq!(labels("/save a b", &context), ["a b.md"], "spaces need no quotes");
    assert_eq!(labels("/save .", &context), [".hidden"]);
    assert_eq!(labels("/save album/", &context), ["x"]);
    assert_eq!(labels("/save ~/album/", &context), ["x"]);
    assert_eq!(complete("/save ~/al", 10, &context)[0].text, "~/album/");
    assert_eq!(labels("/model ", &context), ["a.tercet", "album/"]);
    assert_eq!(labels("/load al", &context), ["album of songs", "album/"]);
    assert_eq!(labels("/export json a.", &context), ["a.tercet"]);
    assert_eq!(labels("/export a.", &context), ["a.tercet"]);
    let all = complete("/save ", 6, &context);
    assert!(all.iter().all(|candidate| !candidate.label.contains(char::is_control)), "{all:?}");
    assert!(!all.iter().any(|candidate| candidate.text.starts_with('z')), "{all:?}");

    for number in 0..300 {
        fs::write(at(&format!("n{number:03}")), "").unwrap();
    }
    let many = labels("/save n", &context);
    assert_eq!((many.len(), many[0].as_str(), many[99].as_str()), (100, "n000", "n099"));
}
