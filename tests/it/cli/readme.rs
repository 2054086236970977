//! Command lines of the README: what it tells people to type can be typed.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tercet::args::Cli;
use tercet_tests::skipped;

use super::manual::commands;

/// A code block of Markdown, or the text between blocks.
#[derive(Debug)]
enum Piece {
    Prose(String),
    /// Language and lines.
    Code(String, Vec<String>),
}

fn readme() -> Option<Vec<Piece>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let Ok(text) = fs::read_to_string(path) else {
        skipped("readme");
        return None;
    };
    Some(pieces(&text))
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = vec![Piece::Prose(String::new())];
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (pieces.last_mut(), fence) {
            (Some(Piece::Prose(_)), Some(language)) => {
                pieces.push(Piece::Code(language.trim().to_owned(), Vec::new()));
            }
            (_, Some(_)) => pieces.push(Piece::Prose(String::new())),
            (Some(Piece::Code(_, lines)), None) => match lines.last_mut() {
                // A line that ends in `\` goes on.
                Some(last) if last.ends_with('\\') => {
                    last.pop();
                    last.push_str(line);
                }
                _ => lines.push(line.to_owned()),
            },
            (Some(Piece::Prose(prose)), None) => prose.extend([line, "\n"]),
            (None, None) => unreachable!("there is always a piece"),
        }
    }
    pieces
}

/// Splits a line of shell into simple commands of words: quotes, comments, pipes, redirections.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let line = line.trim_start().strip_prefix("$ ").unwrap_or(line);
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut redirected = false;
    let mut chars = line.chars().peekable();
    loop {
        let c = chars.next();
        let ends = match (c, quote) {
            (None, _) => true,
            (Some(c), Some(open)) => {
                if c == open {
                    quote = None;
                } else {
                    word.get_or_insert_default().push(c);
                }
                continue;
            }
            (Some(c), None) => c.is_whitespace() || "|&;<>()".contains(c),
        };
        if let (false, Some(c)) = (ends, c) {
            match c {
                '\'' | '"' => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                '#' if word.is_none() => break,
                '\\' => word.get_or_insert_default().extend(chars.next()),
                _ => word.get_or_insert_default().push(c),
            }
            continue;
        }
        if let Some(word) = word.take() {
            // The number of `2>` and the name after `>` are the shell's.
            let is_number = matches!(c, Some('<' | '>')) && word.parse::<u8>().is_ok();
            if !redirected && !is_number {
                commands.last_mut().unwrap().push(word);
            }
            redirected = false;
        }
        match c {
            None => break,
            Some('<' | '>') => redirected = true,
            Some(c) if "|&;()".contains(c) => commands.push(Vec::new()),
            Some(_) => {}
        }
    }
    for command in &mut commands {
        // `NAME=value` before a command is its environment.
        let name = |word: &str| word.split_once('=').is_some_and(|(name, _)| is_name(name));
        while command.first().is_some_and(|word| name(word)) {
            command.remove(0);
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// Whether `words` call our program, by whatever path.
fn is_tercet(words: &[String]) -> bool {
    words[0] == "tercet" || words[0].ends_with("/tercet")
}

/// Why the parser refuses `words`; help and version are answers, not refusals.
fn refusal(words: &[String]) -> Option<String> {
    let error = Cli::read(words.iter().map(OsString::from)).err()?;
    error.use_stderr().then(|| error.to_string())
}

#[test]
fn every_command_line_of_the_readme_parses() {
    let Some(pieces) = readme() else { return };
    let mut parsed = 0;
    for piece in &pieces {
        let Piece::Code(language, lines) = piece else { continue };
        if !["", "sh", "bash", "shell", "console", "text"].contains(&language.as_str()) {
            continue;
        }
        for words in lines.iter().flat_map(|line| simple_commands(line)) {
            // What a session prints may begin with our name, too: `tercet: error: ...`.
            if is_tercet(&words) {
                assert_eq!(refusal(&words), None, "{words:?}");
                parsed += 1;
            }
        }
    }
    println!("{parsed} command lines");
    assert!(parsed > 0, "a README shows how to start");
}

/// Options named in passing, `--like-this`, after `tercet` or alone: they exist, unless the
/// sentence goes on to say that they are not there, and then they do not.
#[test]
fn every_option_that_the_readme_names_exists() {
    let Some(pieces) = readme() else { return };
    let commands = commands();
    let arguments = commands.iter().flat_map(|(_, command)| command.get_arguments());
    let known: Vec<_> = arguments.filter_map(clap::Arg::get_long).collect();
    for piece in &pieces {
        let Piece::Prose(prose) = piece else { continue };
        // Odd parts stand between backticks; the text after one tells about it.
        let parts: Vec<_> = prose.split('`').collect();
        for (place, span) in parts.iter().enumerate().skip(1).step_by(2) {
            if !span.starts_with("--") && !span.starts_with("tercet ") {
                continue;
            }
            let rest = parts[place + 1..].concat().replace('\n', " ");
            let is_absent = rest.split(". ").next().unwrap().contains("not there");
            for option in span.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                let name = option.split(['=', ',', '.']).next().unwrap();
                assert_eq!(known.contains(&name), !is_absent, "`--{name}` in `{span}`");
            }
        }
    }
}

/// The reader of command lines itself: on lines whose words are known.
#[test]
fn lines_are_split_as_a_shell_does() {
    let split = |line: &str| {
        let commands = simple_commands(line);
        commands.iter().map(|words| words.join("|")).collect::<Vec<_>>()
    };
    assert_eq!(split("$ tercet run -p 'a \"b\" c' # says hello"), ["tercet|run|-p|a \"b\" c"]);
    assert_eq!(
        split("echo \"x y\" | A=1 B=2 ./tercet --temp=0"),
        ["echo|x y", "./tercet|--temp=0"]
    );
    assert_eq!(split("tercet man >tercet.1 2>/dev/null && man -l x"), ["tercet|man", "man|-l|x"]);
    assert_eq!(split("tercet run < in.txt; (tercet '')"), ["tercet|run", "tercet|"]);
    assert_eq!(split("# nothing"), [""; 0]);

    let text = "a\n```sh\ntercet run \\\n  -p x\n```\nb `--seed`\n";
    let [Piece::Prose(_), Piece::Code(language, lines), Piece::Prose(last)] = &pieces(text)[..]
    else {
        panic!("{:?}", pieces(text));
    };
    assert_eq!((language.as_str(), last.as_str()), ("sh", "b `--seed`\n"));
    assert_eq!(split(&lines[0]), ["tercet|run|-p|x"]);

    let words = |line: &str| simple_commands(line).remove(0);
    assert_eq!(refusal(&words("tercet run -p hello --seed 1")), None);
    assert_eq!(refusal(&words("tercet --help")), None);
    assert!(refusal(&words("tercet run --sede 1")).unwrap().contains("--sede"));
}
