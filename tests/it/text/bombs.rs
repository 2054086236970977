//! Templates that want to exhaust something end with an error, soon, and in another process.

use core::time::Duration;
use std::fs;
use std::process::Command;
use std::time::Instant;

use tercet_host::text::{ChatTemplate, Renderer, TemplateContext, TemplateError};

use super::{STOPWATCH, child, message};

fn bombs() -> Vec<(&'static str, String)> {
    let doubling = "{% set x = x + x %}".repeat(40);
    let nested_loops: String =
        (0..8).map(|i| format!("{{% for a{i} in range(99999) %}}")).collect();
    vec![
        ("loop", "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}".to_owned()),
        ("nested loops", nested_loops + &"{% endfor %}".repeat(8)),
        ("doubling", "{% set x = 'aaaaaaaa' %}".to_owned() + &doubling),
        ("doubling list", "{% set x = [1, 2, 3, 4] %}".to_owned() + &doubling + "{{ x|length }}"),
        ("doubling by ~", "{% set x = 'aaaaaaaa' %}".to_owned() + &"{% set x = x ~ x %}".repeat(40)),
        ("recursion", "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".to_owned()),
        ("nesting", "{{ ".to_owned() + &"(".repeat(5000) + "1" + &")".repeat(5000) + " }}"),
        ("nested lists", "{% set x = [] %}{% for i in range(9000) %}{% set x = [x] %}{% endfor %}{{ ".to_owned()
            + &"[".repeat(5000) + &"]".repeat(5000) + " }}"),
        ("repetition", "{{ 'a' * 100000000 }}{{ 'a' * 100000000 }}{{ 'a' * 100000000 }}".to_owned()),
        ("repeated list", "{{ ([1] * 90000000)|length }}".to_owned()),
        ("range", "{{ range(1000000000000) }}".to_owned()),
        ("join", "{% set x = 'a' * 1000000 %}{{ range(100000)|join(x) }}".to_owned()),
        ("replace", "{% set x = 'a' * 100000 %}{{ x|replace('a', x) }}".to_owned()),
        ("namespace", "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}".to_owned()),
        ("namespace list", "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}".to_owned()),
        ("tojson", "{% set n = namespace(x=['aaaa']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|tojson }}".to_owned()),
        ("split", "{{ ('a,' * 40000000).split(',')|length }}".to_owned()),
        ("format", "{{ ('%9999s' * 9000) % ((1,) * 9000) }}".to_owned()),
        ("deep list", "{% set n = namespace(x=[]) %}{% for i in range(2500) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}".to_owned()),
        ("itself", "{% set n = namespace() %}{% set n.x = n %}{{ [n.x, n]|tojson }}".to_owned()),
    ]
}

/// In a process of their own, so that its memory is theirs alone.
#[test]
fn bombs_end_soon_with_an_error() {
    let _alone = STOPWATCH.lock();
    let own = std::env::current_exe().unwrap();
    let name = "text::bombs::bombs_in_this_process";
    let ran = Command::new(own).args(["--exact", name, "--ignored", "--nocapture"]).output();
    let ran = ran.unwrap();
    let words = String::from_utf8_lossy(&ran.stdout).into_owned();
    println!("{words}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && words.contains("1 passed"), "see above");
}

#[test]
#[ignore = "started by the test above"]
fn bombs_in_this_process() {
    let messages = [message("user", "hi")];
    let context = TemplateContext { messages: &messages, ..TemplateContext::default() };
    let child = child();
    // What the first child costs the parent is not a bomb's.
    let harmless = ChatTemplate::new("{{ messages[0].content }}".to_owned()).unwrap();
    assert_eq!(harmless.render(&context, &child).unwrap().text(), "hi");
    for (name, source) in bombs() {
        let before = resident_bytes();
        // A busy machine may hold up one run, but not two.
        let (mut seconds, error) = explode(&source, &context, &child);
        if seconds > 2.5 {
            seconds = seconds.min(explode(&source, &context, &child).0);
        }
        let grown = resident_bytes().saturating_sub(before);
        println!("{name}: {seconds:.2} s, +{} KiB: {error}", grown >> 10);
        assert!(seconds < 2.5, "{name} took {seconds} s");
        assert!(grown < 10 << 20, "{name} cost {grown} bytes of the parent");
        assert!(!error.hint().is_empty());
    }
}

fn explode(source: &str, context: &TemplateContext<'_>, child: &Renderer) -> (f64, TemplateError) {
    let begin = Instant::now();
    let result = ChatTemplate::new(source.to_owned()).and_then(|bomb| bomb.render(context, child));
    match result {
        Ok(rendered) => panic!("{} bytes from {source:.80}", rendered.text().len()),
        Err(error) => (begin.elapsed().as_secs_f64(), error),
    }
}

/// Memory of this process; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

#[test]
fn long_sources_are_refused() {
    let error = ChatTemplate::new(" ".repeat(64 * 1024 + 1)).unwrap_err();
    assert!(matches!(error, TemplateError::TooLong { bytes: 65_537 }));
    assert!(ChatTemplate::new(" ".repeat(64 * 1024)).is_ok());
}

#[test]
fn a_child_that_is_no_renderer_is_an_error() {
    let template = ChatTemplate::new("{{ 1 }}".to_owned()).unwrap();
    let context = TemplateContext::default();
    for (program, args) in [
        ("/nonexistent", vec![]),
        ("/bin/false", vec![]),
        ("/bin/echo", vec!["x".into()]),
        ("/bin/sleep", vec!["60".into()]),
        ("/usr/bin/yes", vec![]),
    ] {
        let begin = Instant::now();
        let renderer = Renderer::Child { program: program.into(), args };
        let error = template.render(&context, &renderer).unwrap_err();
        println!("{program}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{program}");
    }
}

#[test]
fn a_conversation_of_thousands_of_messages_has_fuel_enough() {
    let folder = tercet_tests::golden().join("templates");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jinja") {
            continue;
        }
        let template = ChatTemplate::new(fs::read_to_string(&path).unwrap()).unwrap();
        for count in [1, 21, 2001] {
            let messages: Vec<_> = (0..count)
                .map(|index| message(["user", "assistant"][index % 2], "some words of no weight"))
                .collect();
            let context = TemplateContext {
                messages: &messages,
                add_generation_prompt: true,
                bos_token: Some("<s>"),
                eos_token: Some("</s>"),
                ..TemplateContext::default()
            };
            let rendered = template.render(&context, &child());
            assert!(rendered.is_ok(), "{} with {count}: {rendered:?}", path.display());
        }
    }
}

#[test]
fn a_long_message_passes_through_the_child() {
    let content = "word \u{1} ".repeat(1_000_000);
    let messages = [message("user", &content)];
    let context = TemplateContext { messages: &messages, ..TemplateContext::default() };
    let template = ChatTemplate::new("{{ messages[0].content }}!".to_owned()).unwrap();
    let rendered = template.render(&context, &child()).unwrap();
    assert_eq!(rendered.text().len(), content.len() + 1);
}
