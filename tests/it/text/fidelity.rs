//! Templates give what Jinja2 3.1.6 gives, byte for byte, or an error.
//!
//! The expectations are made by `golden/templates/generate.py`.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};
use tercet_host::text::{ChatTemplate, Message, Renderer, TemplateContext, TemplateError};

/// Templates that Jinja2 renders and we refuse; everything else must be equal.
const REFUSED: [&str; 19] = [
    r#"{{ d.items() }}"#,
    r#"{{ namespace(a=1) }}"#,
    r#"{% macro f(a, b=a) %}{{ b }}{% endmacro %}{{ f(1) }}"#,
    r#"{{ 'ß'.title() }} {{ 'ŉ'|capitalize }}"#,
    r#"{{ 2 ** 200 }}"#,
    r#"{{ '{:>5}'.format(1) }}"#,
    r#"{{ 'é'.isalpha() }}"#,
    r#"{{ s|escape }} {{ '<'|e }}"#,
    r#"{{ '<b>'|safe ~ '<' }}"#,
    r#"{{ "\N{BULLET}" }}"#,
    r#"{{ self }}"#,
    r#"{{ s.partition(',') }} {{ s.swapcase() }} {{ 'a'.center(5) }} {{ '7'.zfill(3) }}"#,
    r#"{{ m|groupby('role') }} {{ [1,1]|unique|list }} {{ [1,2,3]|batch(2)|list }} {{ s|wordcount }} {{ [1,2]|sum }}"#,
    r#"{% for x in [1,2,3] %}{% with y=x %}{% if y == 2 %}{% break %}{% endif %}{{ y }}{% endwith %}{% endfor %}"#,
    r#"{{ 3 .real is defined }}"#,
    r#"{% for a, b in ['xy'] %}{{ a }}{{ b }}{% endfor %}"#,
    r#"{{ strftime_now('%Q~') }}"#,
    r#"{{ '%c' % 'x' }}"#,
    r#"{{ s|truncate(5) }}"#,
];

#[derive(Deserialize)]
struct Case {
    template: String,
    text: Option<String>,
    #[serde(default)]
    conversation: usize,
    #[serde(default)]
    generate: bool,
}

#[derive(Deserialize)]
struct Expressions {
    variables: Map<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Conversations {
    conversations: Vec<Vec<Message>>,
    cases: Vec<Case>,
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(tercet_tests::golden().join("templates").join(name)).unwrap()
}

fn render(case: &Case, variables: &Map<String, Value>) -> Result<String, TemplateError> {
    let template = ChatTemplate::new(case.template.clone())?;
    let context = TemplateContext { extra: variables.clone(), ..TemplateContext::default() };
    Ok(template.render(&context, &Renderer::InProcess)?.text().to_owned())
}

#[test]
fn expressions_equal_jinja2_or_are_refused() {
    let Expressions { variables, cases } =
        serde_json::from_slice(&golden("expressions.json")).unwrap();
    let mut refused = Vec::new();
    let mut wrong = Vec::new();
    let mut counts = [0; 2];
    for case in &cases {
        match (&case.text, render(case, &variables)) {
            (Some(wanted), Ok(text)) if *wanted == text => counts[0] += 1,
            (Some(_), Err(error)) => refused.push((case.template.as_str(), error.to_string())),
            (None, Err(_)) => counts[1] += 1,
            (wanted, got) => wrong.push((case.template.as_str(), wanted, got)),
        }
    }
    println!("{} equal texts, {} equal errors, {} refused", counts[0], counts[1], refused.len());
    assert!(wrong.is_empty(), "other texts: {wrong:#?}");
    let templates: Vec<&str> = refused.iter().map(|(template, _)| *template).collect();
    assert_eq!(templates, REFUSED, "refused: {refused:#?}");
}

#[test]
fn conversations_equal_jinja2() {
    let golden_cases: Conversations =
        serde_json::from_slice(&golden("conversations.json")).unwrap();
    let mut templates = BTreeMap::new();
    let mut counts = [0; 2];
    for case in &golden_cases.cases {
        let template = templates.entry(case.template.as_str()).or_insert_with(|| {
            let source = String::from_utf8(golden(&case.template)).unwrap();
            ChatTemplate::new(source).unwrap_or_else(|e| panic!("{}: {e}", case.template))
        });
        let messages = &golden_cases.conversations[case.conversation];
        let context = TemplateContext {
            messages,
            add_generation_prompt: case.generate,
            bos_token: Some("<s>"),
            eos_token: Some("</s>"),
            ..TemplateContext::default()
        };
        let rendered = template.render(&context, &Renderer::InProcess);
        let place = format!("{} on conversation {}", case.template, case.conversation);
        match (&case.text, rendered) {
            (Some(wanted), Ok(rendered)) => {
                assert_eq!(rendered.text(), wanted, "{place}");
                counts[0] += 1;
            }
            (None, Err(TemplateError::Raised { .. } | TemplateError::Failed { .. })) => {
                counts[1] += 1
            }
            (wanted, got) => panic!("{place}: wanted {wanted:?}, got {got:?}"),
        }
    }
    println!("{} equal texts, {} equal errors", counts[0], counts[1]);
    assert!(counts[0] > 150);
}

#[test]
fn an_error_names_the_line_of_the_template() {
    let cases = [
        ("a\n{# b\nc #}\n{{ 'x' +\n 1 }}", "(line 4)"),
        ("\n\n{%- if true -%}\n\n{{ nothing.at.all }}{% endif %}", "(line 5)"),
        ("{{ 1 }}\n{% frobnicate %}", "line 2 of"),
        ("{% if true %}\n\n", "line 1 of"),
    ];
    for (source, wanted) in cases {
        let render = |source: &str| {
            let template = ChatTemplate::new(source.to_owned())?;
            template.render(&TemplateContext::default(), &Renderer::InProcess)
        };
        let error = render(source).unwrap_err().to_string();
        assert!(error.contains(wanted), "{source:?}: {error}");
    }
}

/// Pieces of which templates are made, for templates that nobody would write.
const PIECES: [&str; 56] = [
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{%- ",
    " -%}",
    "{# ",
    " #}",
    "if ",
    "endif",
    "for x in ",
    "endfor",
    "else",
    "set ",
    "macro f(a)",
    "endmacro",
    "f(",
    ")",
    "x",
    "messages",
    ".role",
    "[0]",
    "['a']",
    "|",
    "length",
    "join",
    "tojson",
    "trim",
    "map",
    " is ",
    "defined",
    "not ",
    "in ",
    "and ",
    " ~ ",
    " + ",
    " * ",
    " % ",
    "-",
    "'%s'",
    "'\\x4",
    "\"",
    "1",
    "2.5",
    "1e999",
    "(",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "loop",
    "break",
    "generation",
    "raw",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30_000))]

    #[test]
    fn no_template_makes_us_panic(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..14)
    ) {
        let messages = [super::message("user", "hi")];
        let context = TemplateContext { messages: &messages, ..TemplateContext::default() };
        for source in [pieces.concat(), format!("{{{{ {} }}}}", pieces.concat())] {
            if let Ok(template) = ChatTemplate::new(source) {
                let _ = template.render(&context, &Renderer::InProcess);
            }
        }
    }
}
