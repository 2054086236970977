//! `config.json` that lies.

use serde_json::{Value, json};
use tercet_host::config::{ConfigError, ModelConfig};
use tercet_host::error::{Error, ExitCode};
use tercet_host::model::ModelError;
use tercet_tests::fixture::Form;

use super::{assert_refused, check, load, refusal, small};

/// The config of a valid model with some keys replaced; `null` takes a key away.
fn config(replaced: &Value) -> Value {
    let mut config = small().config(Form::Multiply);
    let object = config.as_object_mut().expect("an object");
    for (key, value) in replaced.as_object().expect("an object") {
        if value.is_null() {
            object.remove(key);
        } else {
            object.insert(key.clone(), value.clone());
        }
    }
    config
}

/// The error of that config, alone and as the program meets it.
#[track_caller]
fn refused(replaced: &Value) -> ConfigError {
    let config = config(replaced);
    let error = ModelConfig::parse(config.to_string().as_bytes()).expect_err("a lie");
    let folder = small().folder(Form::Multiply);
    folder.put_json("config.json", &config);
    let whole = refusal(folder.path(), ExitCode::Config);
    assert_eq!(whole.to_string(), error.to_string(), "the same error");
    error
}

const SIZES: [&str; 7] = [
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "head_dim",
];

#[test]
fn numbers_that_are_no_sizes() {
    let absurd = [
        json!(0),
        json!(-1),
        json!(-96),
        json!(1_u64 << 31),
        json!(1_u64 << 53),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(96.5),
        json!("96"),
        json!([96]),
        json!({ "size": 96 }),
        json!(true),
    ];
    for key in SIZES.into_iter().chain(["max_position_embeddings"]) {
        for value in &absurd {
            let error = refused(&json!({ key: value }));
            assert!(
                matches!(&error, ConfigError::Value { key: named, .. } if *named == key),
                "{key} = {value}: {error:?}"
            );
        }
    }
}

#[test]
fn sizes_that_are_not_there() {
    for key in ["hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"] {
        let error = refused(&json!({ key: null }));
        assert!(matches!(error, ConfigError::Missing { key: named } if named == key), "{error:?}");
    }
}

#[test]
fn sizes_that_do_not_divide() {
    for replaced in [
        json!({ "num_key_value_heads": 4 }),
        json!({ "num_key_value_heads": 12 }),
        json!({ "head_dim": 15 }),
        json!({ "head_dim": null, "num_attention_heads": 7, "num_key_value_heads": 7 }),
        json!({ "head_dim": null, "hidden_size": 90 }),
        json!({ "head_dim": 512, "num_attention_heads": 4096, "num_key_value_heads": 1 }),
    ] {
        let error = refused(&replaced);
        assert!(matches!(error, ConfigError::Contradiction { .. }), "{replaced}: {error:?}");
    }
}

#[test]
fn sizes_of_another_model() {
    // Each is fine by itself; the tensors say otherwise. Nothing is allocated by these numbers.
    for (key, value) in [
        ("hidden_size", 128),
        ("intermediate_size", 1 << 17),
        ("vocab_size", 1 << 24),
        ("num_attention_heads", 8),
        ("head_dim", 512),
    ] {
        let folder = small().folder(Form::Multiply);
        folder.put_json("config.json", &config(&json!({ key: value })));
        assert_refused!(folder.path(), Data, Error::Model(ModelError::Shape { .. }));
    }
    let folder = small().folder(Form::Multiply);
    folder.put_json("config.json", &config(&json!({ "num_hidden_layers": 1024 })));
    assert_refused!(folder.path(), Data, Error::Model(ModelError::Missing { tensor })
        if tensor.starts_with("model.layers.1."));
    folder.put_json("config.json", &config(&json!({ "vocab_size": 100 })));
    assert_refused!(folder.path(), Data, Error::ForeignTokenizer { .. });
}

#[test]
fn numbers_out_of_their_range() {
    for (key, values) in [
        ("rms_norm_eps", [json!(0), json!(-1e-5), json!(1e300), json!("1e-5")]),
        ("rope_theta", [json!(0), json!(-1), json!(1e300), json!([])]),
        ("tie_word_embeddings", [json!(1), json!("true"), json!([]), json!({})]),
        ("bos_token_id", [json!(263), json!(-1), json!("1"), json!(1.5)]),
        ("eos_token_id", [json!([2, 263]), json!(u64::MAX), json!([[2]]), json!({})]),
    ] {
        for value in values {
            let error = refused(&json!({ key: value }));
            assert!(
                matches!(&error, ConfigError::Value { key: named, .. } if *named == key),
                "{key} = {value}: {error:?}"
            );
        }
    }
}

#[test]
fn architectures_of_others() {
    for name in ["MistralForCausalLM", "GPT2LMHeadModel", "", "bitnetforcausallm"] {
        let error = refused(&json!({ "architectures": [name] }));
        assert!(matches!(error, ConfigError::Architecture { .. }), "{error:?}");
    }
    for none in [json!(null), json!([]), json!("BitNetForCausalLM"), json!([7])] {
        let error = refused(&json!({ "architectures": none }));
        assert!(matches!(error, ConfigError::Missing { key: "architectures" }), "{error:?}");
    }
}

#[test]
fn features_that_would_change_the_result_unseen() {
    for replaced in [
        json!({ "hidden_act": "gelu" }),
        json!({ "attention_bias": true }),
        json!({ "mlp_bias": true }),
        json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8 } }),
        json!({ "rope_scaling": { "type": "linear", "factor": 2 } }),
        json!({ "rope_parameters": { "rope_type": "yarn", "rope_theta": 1e4 } }),
        json!({ "quantization_config": { "quant_method": "gptq" } }),
        json!({ "quantization_config": { "quant_method": "bitnet", "use_rms_norm": true } }),
        json!({ "quantization_config": {
            "quant_method": "bitnet", "modules_to_not_convert": ["lm_head", "k_proj"],
        } }),
    ] {
        let error = refused(&replaced);
        assert!(matches!(error, ConfigError::Feature { .. }), "{replaced}: {error:?}");
    }
    let error = refused(&json!({ "quantization_config": {} }));
    assert!(matches!(error, ConfigError::Missing { .. }), "{error:?}");
    let unknown = json!({ "quant_method": "bitnet", "linear_class": "tritlinear" });
    let error = refused(&json!({ "quantization_config": unknown }));
    assert!(matches!(error, ConfigError::Value { .. }), "{error:?}");
}

#[test]
fn files_that_are_no_object() {
    let folder = small().folder(Form::Multiply);
    let deep = "[".repeat(100_000);
    for garbage in ["", "{", "[]", "7", "null", "\"config\"", "{\"a\":1}x", &deep] {
        for name in ["config.json", "generation_config.json"] {
            let folder = small().folder(Form::Multiply);
            folder.put(name, garbage.as_bytes());
            assert_refused!(folder.path(), Config, Error::Config(ConfigError::Json { file, .. })
                if *file == name);
        }
    }
    folder.put("config.json", b"{\"hidden_size\":\xff}");
    assert_refused!(folder.path(), Config, Error::Config(ConfigError::Json { .. }));
}

#[test]
fn generation_defaults_out_of_their_range() {
    for defaults in [
        json!({ "do_sample": true, "temperature": -1 }),
        json!({ "do_sample": true, "temperature": 1e300 }),
        json!({ "do_sample": true, "temperature": "hot" }),
        json!({ "do_sample": true, "top_p": 0 }),
        json!({ "do_sample": true, "top_p": 1.5 }),
        json!({ "do_sample": true, "min_p": -0.5 }),
        json!({ "do_sample": true, "repetition_penalty": 0 }),
        json!({ "eos_token_id": 1 << 20 }),
        json!({ "eos_token_id": "2" }),
    ] {
        let folder = small().folder(Form::Multiply);
        folder.put_json("generation_config.json", &defaults);
        assert_refused!(folder.path(), Config, Error::Config(ConfigError::Value { .. }));
    }
}

#[test]
fn long_values_are_cut_in_messages() {
    let error = refused(&json!({ "hidden_size": "9".repeat(10_000) }));
    check(&error.into(), ExitCode::Config);
    let error = refused(&json!({ "architectures": ["A".repeat(10_000)] }));
    check(&error.into(), ExitCode::Config);
    let error = refused(&json!({ "hidden_act": "é".repeat(10_000) }));
    check(&error.into(), ExitCode::Config);
    let method = json!({ "quant_method": "é".repeat(10_000) });
    check(&refused(&json!({ "quantization_config": method })).into(), ExitCode::Config);
}

#[test]
fn what_a_config_may_leave_out() {
    let folder = small().folder(Form::Multiply);
    let sparse = json!({
        "head_dim": null, "rms_norm_eps": null, "rope_theta": null, "tie_word_embeddings": null,
        "bos_token_id": null, "eos_token_id": null, "max_position_embeddings": null,
        "hidden_act": null,
    });
    folder.put_json("config.json", &config(&sparse));
    load(folder.path()).expect("the defaults of the format");
}

/// A valid OPT config with some keys replaced.
fn opt(replaced: &Value) -> Result<ModelConfig, ConfigError> {
    let mut config = json!({
        "architectures": ["OPTForCausalLM"], "hidden_size": 64, "ffn_dim": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 263,
        "word_embed_proj_dim": 64, "do_layer_norm_before": true,
    });
    for (key, value) in replaced.as_object().expect("an object") {
        config[key] = value.clone();
    }
    ModelConfig::parse(config.to_string().as_bytes())
}

#[test]
fn an_opt_that_is_put_together_otherwise() {
    assert!(opt(&json!({})).is_ok());
    for replaced in [
        json!({ "do_layer_norm_before": false }),
        json!({ "word_embed_proj_dim": 32 }),
        json!({ "_remove_final_layer_norm": true }),
        json!({ "layer_norm_elementwise_affine": false }),
        json!({ "activation_function": "gelu" }),
        json!({ "quantization_config": { "quant_method": "gptq" } }),
    ] {
        let error = opt(&replaced).expect_err("another graph");
        assert!(matches!(error, ConfigError::Feature { .. }), "{replaced}: {error:?}");
    }
}
