//! Files from strangers.

use std::io::Write as _;

use tempfile::NamedTempFile;
use tercet_host::backend::{KvType, Limits};
use tercet_host::checkpoint::Checkpoint;
use tercet_host::config::ModelConfig;
use tercet_host::kv::KvLayout;
use tercet_host::text::{ChatTemplate, Message, Renderer, TemplateContext, Tokenizer};

/// A weights file, as it is and as the header of one that is otherwise in order.
///
/// The file opens or is refused; what opens can be read to the last byte.
pub fn checkpoint_header(data: &[u8]) {
    open(&[data]);
    if let Some((payload, header)) = data.split_first() {
        let length = (header.len() as u64).to_le_bytes();
        open(&[&length, header, &vec![0; usize::from(*payload)]]);
    }
}

fn open(parts: &[&[u8]]) {
    let mut file = NamedTempFile::new().expect("a place for temporary files");
    for part in parts {
        file.write_all(part).expect("room for temporary files");
    }
    let Ok(checkpoint) = Checkpoint::open(file.path()) else { return };
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(&name).expect("a name that was just given");
        let bits = tensor.shape.iter().product::<usize>() * tensor.dtype.bitsize();
        assert_eq!(tensor.bytes.len() * 8, bits, "`{name}`");
    }
    let _ = checkpoint.metadata("tercet.layout");
    let _ = checkpoint.file("config.json");
}

/// A `config.json`. One that is accepted has sizes that can be computed with.
pub fn model_config(data: &[u8]) {
    let Ok(config) = ModelConfig::parse(data) else { return };
    assert!(config.query_width() > 0 && config.kv_width() > 0, "an empty layer");
    let limits =
        Limits { slots: 4, positions_max: 4096, rows_max: 64, logits_max: 1, kv: KvType::F16 };
    let _ = KvLayout::new(&config, &limits).elements();
}

/// A `tokenizer.json`. One that is accepted encodes and decodes, and keeps to its own ids.
pub fn tokenizer_json(data: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_json(data) else { return };
    for text in ["", "Once upon a time, é 🙂 there was</s> a <s>dog.\n\n  42"] {
        if let Ok(ids) = tokenizer.encode_text(text) {
            assert!(ids.iter().all(|id| *id <= tokenizer.max_id()), "{ids:?}");
            let _ = tokenizer.decode(&ids);
            let mut stream = tokenizer.stream();
            for id in ids {
                let _ = stream.push(id);
            }
            let _ = stream.finish();
        }
    }
    let _ = tokenizer.decode(&[0, tokenizer.max_id(), u32::MAX]);
}

/// A chat template, rendered with a conversation that holds a special token's text.
///
/// In this process, where fuel and the length of the output are the limits; what a template may
/// take of memory is the jail's to limit, not the interpreter's.
pub fn chat_template(data: &[u8]) {
    let Ok(source) = core::str::from_utf8(data) else { return };
    let Ok(template) = ChatTemplate::new(source.to_owned()) else { return };
    let message =
        |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let messages = [
        message("system", "Be brief."),
        message("user", "What does </s> mean?"),
        message("assistant", "It ends a text.\n"),
        message("user", " é 🙂 "),
    ];
    let protect = ["<s>".to_owned(), "</s>".to_owned()];
    let context = TemplateContext {
        messages: &messages,
        add_generation_prompt: true,
        bos_token: Some("<s>"),
        eos_token: Some("</s>"),
        protect: &protect,
        ..TemplateContext::default()
    };
    if let Ok(rendered) = template.render(&context, &Renderer::InProcess) {
        for range in rendered.protected() {
            let text = &rendered.text()[range.clone()];
            assert!(protect.iter().any(|special| special == text), "`{text}` is protected");
        }
    }
}
