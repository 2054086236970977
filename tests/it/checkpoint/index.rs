//! Indexes of sharded checkpoints: names from a stranger that become paths.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tercet_host::checkpoint::CheckpointError;
use tercet_host::error::Error;
use tercet_tests::files::safetensors;
use tercet_tests::fixture::{Form, Tiny};
use tercet_tests::folder::Folder;

use super::{assert_refused, load, small};

const INDEX: &str = "model.safetensors.index.json";

fn weights(tiny: &Tiny) -> Vec<u8> {
    safetensors(&tiny.stored(Form::Multiply))
}

/// A folder whose index sends every tensor to `file`.
fn pointing_at(file: Value) -> Folder {
    let tiny = small();
    let folder = tiny.folder(Form::Multiply);
    fs::remove_file(folder.join("model.safetensors")).expect("removed");
    let names = tiny.stored(Form::Multiply).into_iter().map(|tensor| (tensor.name, file.clone()));
    let weight_map: serde_json::Map<_, _> = names.collect();
    folder.put_json(INDEX, &json!({ "metadata": {}, "weight_map": weight_map }));
    folder
}

macro_rules! assert_index_refused {
    ($folder:expr, $what:expr) => {
        let folder = $folder;
        assert_refused!(folder.path(), Data, Error::Checkpoint(CheckpointError::Index { what, .. })
            if what.contains($what));
    };
}

#[test]
fn names_that_are_more_than_a_name() {
    let outside = Folder::new();
    outside.put("model.safetensors", &weights(&small()));
    let absolute = outside.join("model.safetensors").display().to_string();
    for name in [
        "",
        ".",
        "..",
        "/etc/passwd",
        &absolute,
        "../model.safetensors",
        "sub/model.safetensors",
        "sub/../../model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "nul\0.safetensors",
        ".hidden.safetensors",
        "pytorch_model.bin",
        "model.safetensors/",
    ] {
        assert_index_refused!(pointing_at(json!(name)), "no plain name");
    }
}

#[cfg(unix)]
#[test]
fn links_that_leave_the_folder() {
    use std::os::unix::fs::symlink;
    let outside = Folder::new();
    outside.put("model.safetensors", &weights(&small()));
    for target in [&outside.join("model.safetensors"), Path::new("/dev/zero")] {
        let folder = pointing_at(json!("shard.safetensors"));
        symlink(target, folder.join("shard.safetensors")).expect("a link");
        assert_index_refused!(folder, "leaves the folder");
    }
    // By way of a linked folder inside.
    let folder = pointing_at(json!("shard.safetensors"));
    symlink(outside.path(), folder.join("sub")).expect("a link");
    symlink("sub/model.safetensors", folder.join("shard.safetensors")).expect("a link");
    assert_index_refused!(folder, "leaves the folder");
    // In a circle.
    let folder = pointing_at(json!("shard.safetensors"));
    symlink("shard.safetensors", folder.join("shard.safetensors")).expect("a link");
    assert_refused!(folder.path(), Io, Error::Checkpoint(CheckpointError::Open { .. }));
}

#[cfg(unix)]
#[test]
fn links_of_a_hub_cache_stay_in_their_repository() {
    use std::os::unix::fs::symlink;
    let cache = Folder::new();
    let model = pointing_at(json!("shard.safetensors"));
    for repository in ["mine", "other"] {
        fs::create_dir_all(cache.join(repository).join("blobs")).expect("a folder");
        fs::create_dir_all(cache.join(repository).join("snapshots/rev")).expect("a folder");
        cache.put(&format!("{repository}/blobs/hash"), &weights(&small()));
    }
    let snapshot = cache.join("mine/snapshots/rev");
    for name in [INDEX, "config.json"] {
        fs::copy(model.join(name), snapshot.join(name)).expect("a copy");
    }
    let shard = snapshot.join("shard.safetensors");
    symlink("../../blobs/hash", &shard).expect("a link");
    load(&snapshot).expect("links of the cache are followed");
    fs::remove_file(&shard).expect("removed");
    symlink("../../../other/blobs/hash", &shard).expect("a link");
    assert_refused!(&snapshot, Data, Error::Checkpoint(CheckpointError::Index { .. }));
}

#[cfg(unix)]
#[test]
fn shards_that_are_no_files() {
    let folder = pointing_at(json!("shard.safetensors"));
    fs::create_dir(folder.join("shard.safetensors")).expect("a folder");
    assert_refused!(folder.path(), Data, Error::Checkpoint(CheckpointError::NotAFile { .. }));
    let folder = pointing_at(json!("shard.safetensors"));
    super::files::make_pipe(&folder.join("shard.safetensors"));
    assert_refused!(folder.path(), Data, Error::Checkpoint(CheckpointError::NotAFile { .. }));
}

#[test]
fn a_shard_that_is_not_there() {
    let folder = pointing_at(json!("shard.safetensors"));
    assert_refused!(folder.path(), NoInput, Error::Checkpoint(CheckpointError::Open { path, .. })
        if path.ends_with("shard.safetensors"));
}

#[test]
fn an_index_that_is_none() {
    let folder = pointing_at(json!("shard.safetensors"));
    for garbage in ["", "{", "[]", "{}", "{\"weight_map\":[]}", "{\"weight_map\":7}"] {
        folder.put(INDEX, garbage.as_bytes());
        assert_index_refused!(&folder, "");
    }
    folder.put_json(INDEX, &json!({ "weight_map": {} }));
    assert_index_refused!(&folder, "names no file");
    assert_index_refused!(pointing_at(json!(7)), "");
    assert_index_refused!(pointing_at(json!(null)), "");
}

#[test]
fn more_shards_than_anybody_has() {
    let folder = pointing_at(json!("shard.safetensors"));
    let names = (0..5000).map(|n| (n.to_string(), Value::from(format!("{n}.safetensors"))));
    let weight_map: serde_json::Map<_, _> = names.collect();
    folder.put_json(INDEX, &json!({ "weight_map": weight_map }));
    assert_index_refused!(folder, "more than 4096 files");
}

#[test]
fn a_tensor_in_two_shards() {
    let folder = pointing_at(json!("shard.safetensors"));
    for name in ["a.safetensors", "b.safetensors"] {
        folder.put(name, &weights(&small()));
    }
    let weight_map = json!({ "x": "a.safetensors", "y": "b.safetensors" });
    folder.put_json(INDEX, &json!({ "weight_map": weight_map }));
    assert_refused!(folder.path(), Data, Error::Checkpoint(CheckpointError::Duplicate { .. }));
}
