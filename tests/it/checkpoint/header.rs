//! Safetensors headers that lie.

use serde_json::{Map, Value, json};
use tercet_host::checkpoint::{CheckpointError, HeaderError};
use tercet_host::error::Error;
use tercet_tests::files::{safetensors_bytes, safetensors_parts};
use tercet_tests::fixture::Form;
use tercet_tests::folder::Folder;

use super::{assert_refused, small};

/// A valid model, and its weights in parts.
fn parts() -> (Folder, Map<String, Value>, Vec<u8>) {
    let tiny = small();
    let form = Form::Multiply;
    let (header, data) = safetensors_parts(&tiny.stored(form));
    (tiny.folder(form), header, data)
}

/// The folder with other bytes as its weights.
fn with_weights(bytes: &[u8]) -> Folder {
    let folder = parts().0;
    folder.put("model.safetensors", bytes);
    folder
}

/// The folder with its weights' header altered.
fn with_header(alter: impl FnOnce(&mut Map<String, Value>, &mut Vec<u8>)) -> Folder {
    let (folder, mut header, mut data) = parts();
    alter(&mut header, &mut data);
    let header = Value::Object(header).to_string();
    folder.put("model.safetensors", &safetensors_bytes(&header, &data));
    folder
}

macro_rules! assert_header_refused {
    ($folder:expr, $pattern:pat $(if $guard:expr)?) => {
        let folder = $folder;
        assert_refused!(
            folder.path(),
            Data,
            Error::Checkpoint(CheckpointError::Header { source: $pattern, .. }) $(if $guard)?
        );
    };
}

const VICTIM: &str = "model.layers.0.mlp.up_proj.weight";

#[test]
fn a_file_shorter_than_its_length_field() {
    for length in [0, 1, 7] {
        assert_header_refused!(with_weights(&vec![b'{'; length]), HeaderError::TooShort { got }
            if *got == length);
    }
}

#[test]
fn a_length_beyond_the_limit() {
    for claimed in [(32 << 20) + 1, 1 << 40, u64::MAX] {
        let bytes = [&claimed.to_le_bytes()[..], b"{}"].concat();
        assert_header_refused!(with_weights(&bytes), HeaderError::TooLong { claimed: got }
            if *got == claimed);
    }
}

#[test]
fn a_length_beyond_the_file() {
    let bytes = [&3_u64.to_le_bytes()[..], b"{}"].concat();
    assert_header_refused!(with_weights(&bytes), HeaderError::Truncated { claimed: 3, got: 2 });
}

#[test]
fn a_file_cut_short_anywhere() {
    let (_, header, data) = parts();
    let whole = safetensors_bytes(&Value::Object(header.clone()).to_string(), &data);
    let start = whole.len() - data.len();
    for length in [9, start / 2, start - 1] {
        assert_header_refused!(with_weights(&whole[..length]), HeaderError::Truncated { .. });
    }
    for length in [start, start + 1, whole.len() - 1] {
        assert_header_refused!(with_weights(&whole[..length]), HeaderError::DataLength { .. });
    }
}

#[test]
fn a_header_that_is_no_object() {
    for (header, first) in [("[]", b'['), (" {}", b' '), ("\u{feff}{}", 0xef), ("", 0), ("0", b'0')]
    {
        assert_header_refused!(
            with_weights(&safetensors_bytes(header, &[])),
            HeaderError::NotAnObject { byte } if *byte == first
        );
    }
}

#[test]
fn a_header_that_is_no_json_of_this_form() {
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    for header in [
        "{",
        "{}x",
        "{\"a\":1}",
        "{\"a\":{}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}",
        "{\"a\":{\"dtype\":\"I7\",\"shape\":[0],\"data_offsets\":[0,0]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,0]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,0]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[-1,0]}}",
        "{\"__metadata__\":{\"a\":1}}",
        "{\"__metadata__\":[]}",
        "{\"\\ud800\":{}}",
        &deep,
    ] {
        assert_header_refused!(with_weights(&safetensors_bytes(header, &[])), HeaderError::Json(_));
    }
    let no_utf8 = [&7_u64.to_le_bytes()[..], b"{\"\xff\":1}"].concat();
    assert_header_refused!(with_weights(&no_utf8), HeaderError::Json(_));
}

#[test]
fn a_name_that_stands_twice() {
    let (_, header, data) = parts();
    let twice =
        format!("{{{0},{0}}}", "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}");
    assert_header_refused!(with_weights(&safetensors_bytes(&twice, &[])), HeaderError::Json(error)
        if error.to_string().contains("`a` stands twice"));
    // The same name spelt with an escape, after the whole model.
    let mut text = Value::Object(header).to_string();
    text.pop();
    let entry = json!({ "dtype": "U8", "shape": [0], "data_offsets": [data.len(), data.len()] });
    text += &format!(",\"\\u006dodel.norm.weight\":{entry}}}");
    assert_header_refused!(with_weights(&safetensors_bytes(&text, &data)), HeaderError::Json(_));
    let metadata = "{\"__metadata__\":{},\"__metadata__\":{}}";
    assert_header_refused!(with_weights(&safetensors_bytes(metadata, &[])), HeaderError::Json(_));
}

#[test]
fn tensors_that_overlap_or_leave_holes() {
    let shift = |start: i64, end: i64| {
        with_header(|header, _| {
            let offsets = &mut header[VICTIM]["data_offsets"];
            let moved = |place: usize, by: i64| json!(offsets[place].as_i64().unwrap_or(0) + by);
            *offsets = json!([moved(0, start), moved(1, end)]);
        })
    };
    for (start, end) in [(-1, -1), (1, 1), (0, 1), (0, -1), (-1, 0), (1, 0)] {
        assert_header_refused!(shift(start, end), HeaderError::Contradiction(_));
    }
    let all_the_same = with_header(|header, _| {
        let first = header[VICTIM].clone();
        header.insert("twin".into(), first);
    });
    assert_header_refused!(all_the_same, HeaderError::Contradiction(_));
    let reversed = with_header(|header, _| {
        header[VICTIM]["data_offsets"].as_array_mut().expect("offsets").reverse();
    });
    assert_header_refused!(reversed, HeaderError::Contradiction(_));
}

#[test]
fn shapes_that_are_not_their_bytes() {
    for shape in
        [json!([1]), json!([]), json!([1_u64 << 40, 1_u64 << 40]), json!([u64::MAX]), json!([0])]
    {
        let folder = with_header(|header, _| header[VICTIM]["shape"] = shape);
        assert_header_refused!(folder, HeaderError::Contradiction(_));
    }
    let huge = with_header(|header, _| {
        header[VICTIM]["data_offsets"] = json!([0, u64::MAX]);
    });
    assert_header_refused!(huge, HeaderError::Contradiction(_));
}

#[test]
fn data_with_a_tail() {
    // What else could be in the file, a ZIP archive for one, stands there.
    let tail = with_header(|_, data| data.extend_from_slice(b"PK\x05\x06"));
    assert_header_refused!(tail, HeaderError::DataLength { claimed, got } if *got == claimed + 4);
}

#[test]
fn more_tensors_than_anybody_has() {
    let mut header = String::from("{");
    for number in 0..200_001 {
        let entry = "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
        header += &format!("\"{number}\":{entry},");
    }
    header.pop();
    header.push('}');
    assert_header_refused!(with_weights(&safetensors_bytes(&header, &[])), HeaderError::Json(error)
        if error.to_string().contains("more than 200000 tensors"));
}
