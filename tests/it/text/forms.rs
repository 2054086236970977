//! The built-in chat forms print what the programs print that the models came with.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};
use tercet_host::config::ModelConfig;
use tercet_host::package::{Package, Source};
use tercet_host::text::{
    BuiltinForm, ChatFormat, Message, Renderer, TemplateContext, TemplateError, TokenId, Tokenizer,
};
use tercet_tests::{golden, tree};

use super::tokenizers::{large, tiny};
use super::{child, message};

/// Made by `golden/templates/generate_forms.py`.
#[derive(Deserialize)]
struct Case {
    form: String,
    messages: Vec<Message>,
    text: String,
    /// By name of the tokenizer.
    ids: BTreeMap<String, Vec<TokenId>>,
}

fn cases(form: BuiltinForm) -> Vec<Case> {
    let json = fs::read(golden().join("templates/forms.json")).unwrap();
    let all: Vec<Case> = serde_json::from_slice(&json).unwrap();
    let name = match form {
        BuiltinForm::Vicuna => "vicuna",
        BuiltinForm::BitNet => "bitnet",
    };
    all.into_iter().filter(|case| case.form == name).collect()
}

/// The byte-level tokenizer of the goldens, its special tokens renamed to those of the form.
fn tokenizer(form: BuiltinForm) -> Tokenizer {
    Tokenizer::from_json(tokenizer_json(form).as_bytes()).unwrap()
}

fn tokenizer_json(form: BuiltinForm) -> String {
    let json = fs::read_to_string(golden().join("templates/tiny_byte_level.json")).unwrap();
    let (bos, end) = match form {
        BuiltinForm::Vicuna => ("\"<s>\"", "\"</s>\""),
        BuiltinForm::BitNet => ("\"<|begin_of_text|>\"", "\"<|eot_id|>\""),
    };
    json.replace("\"<s>\"", bos).replace("\"<|end|>\"", end)
}

/// A form that needs no other process.
fn encode(
    form: BuiltinForm,
    tokenizer: &Tokenizer,
    messages: &[Message],
) -> Result<Vec<TokenId>, String> {
    let nowhere = Renderer::Child { program: "/nonexistent".into(), args: Vec::new() };
    let format = ChatFormat::builtin(form, tokenizer).unwrap();
    format.encode(tokenizer, &nowhere, messages).map_err(|error| error.to_string())
}

#[test]
fn texts_and_ids_are_those_of_the_programs_that_the_models_came_with() {
    for form in BuiltinForm::ALL {
        let mut tokenizers = vec![("tiny_byte_level", tokenizer(form))];
        if form == BuiltinForm::Vicuna {
            tokenizers.extend(large().into_iter().filter(|(name, _)| *name == "llama2"));
        }
        let cases = cases(form);
        assert_eq!(cases.len(), 6);
        for (name, tokenizer) in &tokenizers {
            let format = ChatFormat::builtin(form, tokenizer).unwrap();
            for case in &cases {
                let ids = encode(form, tokenizer, &case.messages).unwrap();
                assert_eq!(ids, case.ids[*name], "{form:?} {name}: {:?}", case.messages);

                let context = TemplateContext {
                    messages: &case.messages,
                    add_generation_prompt: true,
                    bos_token: Some(if form == BuiltinForm::Vicuna {
                        "<s>"
                    } else {
                        "<|begin_of_text|>"
                    }),
                    eos_token: format.eos_token(),
                    ..TemplateContext::default()
                };
                let rendered = format.template().render(&context, &child()).unwrap();
                assert_eq!(rendered.text(), case.text, "{form:?}");
            }
        }
    }
}

#[test]
fn the_forms_are_trusted_and_refuse_other_roles() {
    for form in BuiltinForm::ALL {
        let tokenizer = tokenizer(form);
        let format = ChatFormat::builtin(form, &tokenizer).unwrap();
        assert!(format.template().is_trusted(), "{form:?}: {}", format.template().hash_hex());
        assert_eq!(format.form(), Some(form));
        let error = encode(form, &tokenizer, &[message("tool", "x")]).unwrap_err();
        assert!(error.contains("and no tool"), "{error}");
        assert!(encode(form, &tokenizer, &[]).unwrap().len() > 1);
    }
    let late = [message("user", "x"), message("system", "y")];
    assert!(encode(BuiltinForm::Vicuna, &tokenizer(BuiltinForm::Vicuna), &late).is_err());
}

/// Turns, answers included, are a beginning of the next prompt: nothing is computed twice.
#[test]
fn a_prompt_begins_with_the_one_before() {
    for form in BuiltinForm::ALL {
        let tokenizer = tokenizer(form);
        let first = [message("user", "one")];
        let more =
            [message("user", "one"), message("assistant", " two "), message("user", "three")];
        let first = encode(form, &tokenizer, &first).unwrap();
        let more = encode(form, &tokenizer, &more).unwrap();
        assert_eq!(first[..], more[..first.len()], "{form:?}");
    }
}

#[test]
fn a_tokenizer_without_the_tokens_is_refused() {
    let (_, tokenizer) = tiny().remove(0);
    for (form, wanted) in
        [(BuiltinForm::Vicuna, "</s>"), (BuiltinForm::BitNet, "<|begin_of_text|>")]
    {
        let error = ChatFormat::builtin(form, &tokenizer).unwrap_err();
        assert!(
            matches!(error, TemplateError::Foreign { token, .. } if token == wanted),
            "{error}"
        );
        assert!(error.to_string().contains(form.name()) && !error.hint().is_empty(), "{error}");
    }
}

fn llama(vocab: usize) -> ModelConfig {
    let json = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 64,
        "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": {vocab}}}"#
    );
    ModelConfig::parse(json.as_bytes()).unwrap()
}

#[test]
fn models_are_recognised_by_what_their_kin_does_not_share() {
    let vicuna = tokenizer(BuiltinForm::Vicuna);
    let of = |config: &ModelConfig, tokenizer: &Tokenizer, name: &str| {
        BuiltinForm::recognise(config, tokenizer, [name])
    };
    assert_eq!(of(&llama(32_000), &vicuna, "a/vicuna-7b-v1.5"), Some(BuiltinForm::Vicuna));
    assert_eq!(of(&llama(32_000), &vicuna, "a/llama-7b"), None);
    assert_eq!(of(&llama(32_000), &vicuna, "a/vicuna-7b-v0"), None);
    assert_eq!(of(&llama(32_001), &vicuna, "vicuna-7b"), None, "v0 has one more");
    let foreign = tokenizer(BuiltinForm::BitNet);
    assert_eq!(of(&llama(32_000), &foreign, "vicuna-7b"), None, "no </s>");

    let preset = fs::read_to_string(tree().join("host/src/presets/bitnet-2b-4t.json")).unwrap();
    let parse = |json: &str| ModelConfig::parse(json.as_bytes()).unwrap();
    assert_eq!(of(&parse(&preset), &foreign, "."), Some(BuiltinForm::BitNet));
    assert_eq!(of(&parse(&preset), &vicuna, "bitnet"), None, "no <|eot_id|>");
    for (from, to) in [("6912", "6911"), ("128256", "128257"), (": 30,", ": 31,")] {
        let other = preset.replace(from, to);
        assert_ne!(other, preset);
        assert_eq!(of(&parse(&other), &foreign, "bitnet-b1.58-2B-4T"), None, "{to}");
    }
    let other = preset.replace("BitNetForCausalLM", "BitnetForCausalLM");
    assert_eq!(of(&parse(&other), &foreign, "bitnet"), None, "1bitLLM's are no chat models");
}

/// A model without weights, as far as opening it goes.
fn package(folder: &str, change: impl FnOnce(&mut Value), template: Option<&str>) -> Package {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join(folder);
    fs::create_dir(&path).unwrap();
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 64,
        "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 32_000,
    });
    change(&mut config);
    fs::write(path.join("config.json"), config.to_string()).unwrap();
    fs::write(path.join("tokenizer.json"), tokenizer_json(BuiltinForm::Vicuna)).unwrap();
    fs::write(path.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    if let Some(template) = template {
        fs::write(path.join("chat_template.jinja"), template).unwrap();
    }
    Package::open(&Source::Path(path)).unwrap()
}

#[test]
fn a_package_has_its_own_form_or_the_known_one_or_none() {
    let form = |package: &Package| package.chat.as_ref().map(ChatFormat::form);
    let nothing = |_: &mut Value| {};
    let known = Some(Some(BuiltinForm::Vicuna));
    let by_folder = package("vicuna-7b-v1.5", nothing, None);
    assert_eq!(form(&by_folder), known);
    let end = by_folder.tokenizer.as_ref().unwrap().token_id("</s>").unwrap();
    assert_eq!(by_folder.stop_tokens, [end], "though config.json names no end");

    let named = |config: &mut Value| config["_name_or_path"] = "lmsys/vicuna-7b-v1.5".into();
    assert_eq!(form(&package("model", named, None)), known);
    assert_eq!(form(&package("model", nothing, None)), None);
    let own = package("vicuna-7b-v1.5", nothing, Some("{{ messages[0].content }}"));
    assert_eq!(form(&own), Some(None), "the model's own comes first");
}

#[test]
fn a_form_can_be_asked_for_and_declined() {
    let mut package = package("model", |_| {}, Some("{{ messages[0].content }}"));
    package.use_form(Some(BuiltinForm::Vicuna)).unwrap();
    assert_eq!(package.chat.as_ref().unwrap().form(), Some(BuiltinForm::Vicuna));
    let end = package.tokenizer.as_ref().unwrap().token_id("</s>").unwrap();
    assert_eq!(package.stop_tokens, [end]);
    let refused = package.use_form(Some(BuiltinForm::BitNet)).unwrap_err();
    assert!(matches!(refused, TemplateError::Foreign { .. }), "{refused}");
    package.use_form(None).unwrap();
    assert!(package.chat.is_none());
}
