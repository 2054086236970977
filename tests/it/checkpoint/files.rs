//! Paths and files that are no model.

use std::path::Path;

use serde_json::json;
use tercet_host::checkpoint::{Checkpoint, CheckpointError};
use tercet_host::convert::{Kernels, write_tercet};
use tercet_host::error::{Error, ExitCode};
use tercet_host::layout::WeightLayout;
use tercet_host::model::ModelError;
use tercet_host::text::TokenizerError;
use tercet_tests::files::{byte_tokenizer, safetensors, safetensors_bytes};
use tercet_tests::fixture::Form;
use tercet_tests::folder::Folder;

use super::{assert_refused, check, small};

/// Makes a pipe that nobody writes to.
#[cfg(unix)]
pub(super) fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo").success(), "a pipe");
}

#[test]
fn a_path_that_leads_nowhere() {
    let folder = Folder::new();
    let path = folder.join("nothing");
    assert_refused!(&path, NoInput, Error::Checkpoint(CheckpointError::Open { .. }));
    folder.put("file", b"");
    let path = folder.join("file/inside");
    assert_refused!(&path, Io, Error::Checkpoint(CheckpointError::Open { .. }));
}

#[cfg(unix)]
#[test]
fn a_pipe_that_never_speaks() {
    let folder = Folder::new();
    let path = folder.join("pipe");
    make_pipe(&path);
    assert_refused!(&path, Data, Error::Checkpoint(CheckpointError::NotAFile { .. }));

    for name in ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"] {
        let folder = small().folder(Form::Multiply);
        let path = folder.join(name);
        if path.exists() {
            std::fs::remove_file(&path).expect("removed");
        }
        make_pipe(&path);
        assert_refused!(folder.path(), Data, Error::Checkpoint(CheckpointError::NotAFile { path })
            if path.ends_with(name));
    }
}

#[cfg(unix)]
#[test]
fn a_device_without_an_end() {
    let path = Path::new("/dev/zero");
    assert_refused!(path, Data, Error::Checkpoint(CheckpointError::NotAFile { .. }));
}

#[test]
fn a_folder_where_a_file_should_be() {
    let folder = small().folder(Form::Multiply);
    std::fs::remove_file(folder.join("model.safetensors")).expect("removed");
    std::fs::create_dir(folder.join("model.safetensors")).expect("a folder");
    assert_refused!(folder.path(), Data, Error::Checkpoint(CheckpointError::NotAFile { .. }));
}

#[test]
fn a_folder_without_weights() {
    let folder = Folder::new();
    assert_refused!(folder.path(), NoInput, Error::Checkpoint(CheckpointError::NoWeights { .. }));
}

#[test]
fn a_folder_without_config() {
    let folder = small().folder(Form::Multiply);
    std::fs::remove_file(folder.join("config.json")).expect("removed");
    assert_refused!(folder.path(), NoInput, Error::Checkpoint(CheckpointError::NoFile { name })
        if *name == "config.json");
}

#[test]
fn pickles_are_never_opened() {
    for name in ["pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "last.ckpt"] {
        let folder = Folder::new();
        folder.put(name, b"\x80\x02cos\nsystem\n");
        let refused = folder.path();
        assert_refused!(refused, Data, Error::Checkpoint(CheckpointError::Pickled { .. }));
        let refused = folder.join(name);
        assert_refused!(&refused, Data, Error::Checkpoint(CheckpointError::Pickled { .. }));
    }
}

#[test]
fn known_formats_are_named() {
    let folder = Folder::new();
    for (bytes, name) in [(&b"GGUF\x03\0\0\0"[..], "GGUF"), (b"PK\x03\x04\0\0", "PyTorch (zip)")] {
        folder.put("model", bytes);
        let path = folder.join("model");
        assert_refused!(&path, Data, Error::Checkpoint(CheckpointError::Format { format, .. })
            if *format == name);
    }
}

#[test]
fn a_lone_safetensors_file() {
    let folder = small().folder(Form::Multiply);
    let path = folder.join("model.safetensors");
    assert_refused!(&path, Data, Error::Checkpoint(CheckpointError::Lone { .. }));
    let error = Checkpoint::builtin("built-in", b"\x02\0\0\0\0\0\0\0{}").expect_err("no model");
    assert!(matches!(error, CheckpointError::Lone { .. }), "{error:?}");
}

#[test]
fn a_tercet_file_of_another_time() {
    let folder = Folder::new();
    let path = folder.join("model.tercet");
    let with_metadata = |metadata: serde_json::Value| {
        let header = json!({ "__metadata__": metadata }).to_string();
        folder.put("model.tercet", &safetensors_bytes(&header, &[]));
    };
    with_metadata(json!({ "tercet.format": "2", "tercet.layout": "rows128" }));
    assert_refused!(&path, Data, Error::Checkpoint(CheckpointError::Version { got, .. })
        if got == "2");
    with_metadata(json!({ "tercet.format": "1", "tercet.layout": "spiral" }));
    assert_refused!(&path, Data, Error::Checkpoint(CheckpointError::Layout { got, .. })
        if got == "spiral");
    with_metadata(json!({ "tercet.format": "1" }));
    assert_refused!(&path, Data, Error::Checkpoint(CheckpointError::Layout { .. }));
    for layout in WeightLayout::ALL {
        with_metadata(json!({ "tercet.format": "1", "tercet.layout": layout.name() }));
        assert_refused!(&path, NoInput, Error::Checkpoint(CheckpointError::NoFile { .. }));
    }
}

#[test]
fn a_tercet_file_cut_short() {
    let folder = small().folder(Form::Multiply);
    let path = folder.join("model.tercet");
    for layout in WeightLayout::ALL {
        write_tercet(&folder.package(), &path, layout, Kernels::Include, &mut |_, _| {})
            .expect("a file");
        let whole = std::fs::read(&path).expect("the file");
        for length in [4, 100, 5000, whole.len() / 2, whole.len() - 1] {
            folder.put("model.tercet", &whole[..length]);
            assert_refused!(&path, Data, Error::Checkpoint(CheckpointError::Header { .. }));
        }
    }
}

/// Matrices that have the length of another layout than the one that the metadata names.
#[test]
fn a_tercet_file_that_names_another_layout() {
    let folder = small().folder(Form::Multiply);
    let path = folder.join("model.tercet");
    let [rows128, base3] = WeightLayout::ALL.map(|layout| layout.name());
    for (layout, from, to) in
        [(WeightLayout::Rows128, rows128, base3), (WeightLayout::Base3, base3, rows128)]
    {
        write_tercet(&folder.package(), &path, layout, Kernels::LeaveOut, &mut |_, _| {})
            .expect("a file");
        let whole = std::fs::read(&path).expect("the file");
        let (header, data) = safetensors_parts_of(&whole);
        let key = |name: &str| format!("\"tercet.layout\":\"{name}\"");
        assert!(header.contains(&key(from)), "{header}");
        let altered = header.replace(&key(from), &key(to));
        folder.put("model.tercet", &safetensors_bytes(&altered, data));
        assert_refused!(&path, Data, Error::Model(ModelError::Shape { .. }));
    }
}

/// The header and the data of a safetensors file.
fn safetensors_parts_of(file: &[u8]) -> (&str, &[u8]) {
    let (length, rest) = file.split_first_chunk().expect("a length");
    let length = usize::try_from(u64::from_le_bytes(*length)).expect("a short header");
    let (header, data) = rest.split_at(length);
    (core::str::from_utf8(header).expect("text"), data)
}

#[test]
fn a_side_file_beyond_its_limit() {
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let folder = small().folder(Form::Multiply);
        let file = std::fs::File::create(folder.join(name)).expect("a file");
        // Sparse: it takes no room.
        file.set_len(1 << 40).expect("a long file");
        assert_refused!(
            folder.path(),
            Data,
            Error::Checkpoint(CheckpointError::TooLong { path, .. })
            if path.ends_with(name));
    }
}

#[test]
fn a_side_file_beyond_its_limit_inside_a_tercet_file() {
    let folder = Folder::new();
    let length = (2 << 20) + 1;
    let header = json!({
        "__metadata__": { "tercet.format": "1", "tercet.layout": "rows128" },
        "tercet.file.config.json":
            { "dtype": "U8", "shape": [length], "data_offsets": [0, length] },
    });
    folder.put("model.tercet", &safetensors_bytes(&header.to_string(), &vec![b' '; length]));
    let path = folder.join("model.tercet");
    assert_refused!(&path, Data, Error::Checkpoint(CheckpointError::TooLong { .. }));
}

#[test]
fn a_file_that_cannot_be_written() {
    let folder = small().folder(Form::Multiply);
    let path = folder.join("nowhere/model.tercet");
    let error = write_tercet(
        &folder.package(),
        &path,
        WeightLayout::Rows128,
        Kernels::Include,
        &mut |_, _| {},
    )
    .expect_err("no folder");
    assert!(matches!(error, Error::Write { .. }), "{error:?}");
    check(&error, ExitCode::CannotCreate);
}

#[test]
fn a_failed_conversion_leaves_what_was_there() {
    let tiny = small();
    let mut stored = tiny.stored(Form::Multiply);
    let last = stored.iter_mut().rfind(|tensor| tensor.dtype == "U8").expect("a matrix");
    last.bytes.fill(0xff);
    let damaged = tiny.folder(Form::Multiply);
    damaged.put("model.safetensors", &safetensors(&stored));
    let folder = Folder::new();
    folder.put("model.tercet", b"what was there");
    let path = folder.join("model.tercet");
    let error = write_tercet(
        &damaged.package(),
        &path,
        WeightLayout::Rows128,
        Kernels::Include,
        &mut |_, _| {},
    )
    .expect_err("no trits");
    assert!(matches!(error, Error::Model(_)), "{error:?}");
    check(&error, ExitCode::Data);
    assert_eq!(std::fs::read(&path).expect("the old file"), b"what was there");
    let files = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(files, 1, "no unfinished file is left");
}

#[test]
fn a_tokenizer_that_is_none() {
    let folder = small().folder(Form::Multiply);
    for garbage in [&b""[..], b"{", b"\xff\xfe", b"not json"] {
        folder.put("tokenizer.json", garbage);
        assert_refused!(folder.path(), Data, Error::Tokenizer(TokenizerError::Json(_)));
    }
    for garbage in [json!({}), json!([]), json!(null), json!({ "model": { "type": "BPE" } })] {
        folder.put_json("tokenizer.json", &garbage);
        assert_refused!(folder.path(), Data, Error::Tokenizer(_));
    }
    let mut file = byte_tokenizer();
    file["model"]["vocab"]["a"] = json!(u32::MAX);
    folder.put_json("tokenizer.json", &file);
    assert_refused!(folder.path(), Data, Error::Tokenizer(TokenizerError::Id { .. }));
}

#[test]
fn a_tokenizer_of_another_model() {
    let folder = small().folder(Form::Multiply);
    let mut file = byte_tokenizer();
    file["model"]["vocab"]["one too many"] = json!(263);
    folder.put_json("tokenizer.json", &file);
    assert_refused!(folder.path(), Data, Error::ForeignTokenizer { id: 263, vocab: 263 });
}
