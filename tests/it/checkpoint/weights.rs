//! Tensors that are not the model of the config.

use tercet_host::backend::{DeviceError, KvType};
use tercet_host::error::{Error, ExitCode};
use tercet_host::model::ModelError;
use tercet_host::session::SessionError;
use tercet_tests::cpu::{Cpu, limits, with_session};
use tercet_tests::files::{Stored, safetensors};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::folder::Folder;

use super::{assert_refused, check, small};

const MATRIX: &str = "model.layers.0.mlp.down_proj.weight";
const SCALE: &str = "model.layers.0.mlp.down_proj.weight_scale";
const NORM: &str = "model.layers.0.input_layernorm.weight";

/// A model with its stored tensors altered.
fn altered(form: Form, alter: impl FnOnce(&mut Vec<Stored>)) -> Folder {
    let tiny = small();
    let folder = tiny.folder(form);
    let mut stored = tiny.stored(form);
    alter(&mut stored);
    folder.put("model.safetensors", &safetensors(&stored));
    folder
}

/// A model with one stored tensor altered.
fn with_tensor(form: Form, name: &str, alter: impl FnOnce(&mut Stored)) -> Folder {
    altered(form, |stored| {
        alter(stored.iter_mut().find(|tensor| tensor.name == name).expect("a tensor"));
    })
}

#[test]
fn a_tensor_that_is_missing() {
    let names: Vec<String> =
        small().stored(Form::Multiply).into_iter().map(|tensor| tensor.name).collect();
    for name in names {
        let folder = altered(Form::Multiply, |stored| stored.retain(|tensor| tensor.name != name));
        assert_refused!(folder.path(), Data, Error::Model(ModelError::Missing { tensor })
            if *tensor == name);
    }
}

#[test]
fn a_tensor_of_another_shape() {
    for form in [Form::Online("BF16"), Form::Multiply] {
        for name in [MATRIX, NORM, "model.embed_tokens.weight"] {
            let folder = with_tensor(form, name, |tensor| tensor.shape.insert(0, 1));
            assert_refused!(folder.path(), Data, Error::Model(ModelError::Shape { tensor, .. })
                if tensor == name);
        }
        let folder = with_tensor(form, MATRIX, |tensor| tensor.shape.reverse());
        assert_refused!(folder.path(), Data, Error::Model(ModelError::Shape { .. }));
    }
    let two = |tensor: &mut Stored| {
        tensor.shape = vec![2];
        tensor.bytes = [0.5_f32.to_le_bytes(), 0.5_f32.to_le_bytes()].concat();
    };
    let folder = with_tensor(Form::Divide, SCALE, two);
    assert_refused!(folder.path(), Data, Error::Model(ModelError::Shape { tensor, .. })
        if tensor == SCALE);
}

#[test]
fn a_tensor_of_another_type() {
    for (form, name, dtype) in [
        (Form::Online("F32"), MATRIX, "I32"),
        (Form::Online("F32"), NORM, "U32"),
        (Form::Online("BF16"), "model.embed_tokens.weight", "I16"),
        (Form::Multiply, MATRIX, "I8"),
        (Form::Multiply, SCALE, "I32"),
    ] {
        let folder = with_tensor(form, name, |tensor| tensor.dtype = dtype);
        assert_refused!(folder.path(), Data, Error::Model(ModelError::Dtype { tensor, .. })
            if tensor == name);
    }
}

#[test]
fn norms_that_the_architecture_does_not_have() {
    let norms = ["attn_sub_norm", "ffn_sub_norm"];
    let folder = altered(Form::Multiply, |stored| {
        stored.retain(|tensor| norms.iter().all(|norm| !tensor.name.contains(norm)));
    });
    assert_refused!(folder.path(), Data, Error::Model(ModelError::SubNorms { .. }));

    let llama = Tiny::new(Shape { layers: 1, ..Shape::LLAMA }, 103);
    let mut stored = llama.stored(Form::Multiply);
    let extra = |name: &str, width: usize| Stored {
        name: format!("model.layers.0.{name}.weight"),
        dtype: "F32",
        shape: vec![width],
        bytes: vec![0; 4 * width],
    };
    let folder = llama.folder(Form::Multiply);
    stored.push(extra("self_attn.inner_attn_ln", llama.shape.query()));
    folder.put("model.safetensors", &safetensors(&stored));
    assert_refused!(folder.path(), Data, Error::Model(ModelError::SubNorms { .. }));
    stored.pop();
    stored.push(extra("self_attn.q_proj.rms_norm", llama.shape.hidden));
    folder.put("model.safetensors", &safetensors(&stored));
    assert_refused!(folder.path(), Data, Error::Model(ModelError::SubNorms { .. }));
}

#[test]
fn units_that_measure_nothing() {
    let tiny = f32::from_bits(1);
    for unit in [0.0, -0.5, tiny, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for form in [Form::Multiply, Form::Divide] {
            let folder =
                with_tensor(form, SCALE, |tensor| tensor.bytes = unit.to_le_bytes().to_vec());
            assert_refused!(folder.path(), Data, Error::Model(ModelError::Number { tensor, .. })
                if tensor == SCALE);
        }
    }
}

#[test]
fn norms_that_are_no_numbers() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let folder = with_tensor(Form::Multiply, NORM, |tensor| {
            tensor.bytes[40..44].copy_from_slice(&bad.to_le_bytes());
        });
        assert_refused!(folder.path(), Data, Error::Model(ModelError::Number { tensor, .. })
            if tensor == NORM);
    }
}

#[test]
fn weights_that_are_no_numbers() {
    for (dtype, bad) in [
        ("F32", &f32::NAN.to_le_bytes()[..]),
        ("F32", &f32::INFINITY.to_le_bytes()),
        ("F16", &0x7e00_u16.to_le_bytes()),
        ("F16", &0xfc00_u16.to_le_bytes()),
        ("BF16", &0x7fc0_u16.to_le_bytes()),
        ("BF16", &0xff80_u16.to_le_bytes()),
    ] {
        let folder = with_tensor(Form::Online(dtype), MATRIX, |tensor| {
            let end = tensor.bytes.len();
            tensor.bytes[end - bad.len()..].copy_from_slice(bad);
        });
        assert_refused!(
            folder.path(), Data,
            Error::Device(DeviceError::Weights(ModelError::Number { tensor, .. }))
                if tensor == MATRIX
        );
    }
}

#[test]
fn a_code_that_is_no_trit() {
    for bits in 0..4 {
        let folder = with_tensor(Form::Multiply, MATRIX, |tensor| {
            let last = tensor.bytes.len() - 1;
            tensor.bytes[last] |= 3 << (2 * bits);
        });
        assert_refused!(
            folder.path(), Data,
            Error::Device(DeviceError::Weights(ModelError::Code { tensor, .. }))
                if tensor == MATRIX
        );
    }
}

#[test]
fn an_embedding_that_is_no_number_ends_in_an_error_not_in_noise() {
    let name = "model.embed_tokens.weight";
    for bad in [f32::NAN, f32::INFINITY] {
        let folder = with_tensor(Form::Multiply, name, |tensor| {
            let row = 4 * Shape::MICROSOFT.hidden * 9;
            tensor.bytes[row..row + 4].copy_from_slice(&bad.to_le_bytes());
        });
        let package = folder.package();
        with_session(&package, Cpu::fast(), limits(8, 4, KvType::F32), |mut session| {
            let error = session.logits(&[9, 8], |_| {}).expect_err("no numbers");
            let not_finite = matches!(error, SessionError::Device(DeviceError::NotFinite { .. }));
            assert!(not_finite, "{error:?}");
            check(&error.into(), ExitCode::Data);
        });
    }
}
