//! `tercet eval`: logits for another program to compare, and perplexity.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tercet_host::package::{Package, Source};

use super::models::{Altered, builtin};
use super::support::{tercet, text};

const TOKENS: [u32; 7] = [1, 3, 64, 65, 2, 4, 300];
const VOCAB: usize = 4096;

/// Runs `eval logits` on `tokens` and reads the file as anybody would.
fn logits(tokens: &Path, args: &[&str]) -> (Vec<usize>, Vec<f32>) {
    let out = tokens.with_extension("out");
    let ran = tercet(["eval", "logits", "--tokens", text(tokens), "--out", text(&out)]);
    let ran = args.iter().fold(ran, |ran, arg| ran.arg(arg)).succeed();
    assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran}");
    let bytes = fs::read(out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names(), ["logits"], "one tensor and nothing else");
    let tensor = file.tensor("logits").unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32);
    let numbers = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    (tensor.shape().to_vec(), numbers.collect())
}

fn write_text(folder: &Path, tokens: &[u32]) -> PathBuf {
    let path = folder.join("tokens.txt");
    fs::write(&path, tokens.iter().map(|id| format!("{id}\n")).collect::<String>()).unwrap();
    path
}

fn write_tensor(folder: &Path, name: &str, dtype: Dtype, bytes: &[u8]) -> PathBuf {
    let path = folder.join(format!("{name}-{dtype:?}"));
    let view = TensorView::new(dtype, vec![1, TOKENS.len()], bytes).unwrap();
    fs::write(&path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
    path
}

#[test]
fn logits_are_the_same_from_every_input() {
    let folder = tempfile::tempdir().unwrap();
    let expected = logits(&write_text(folder.path(), &TOKENS), &[]);
    assert_eq!((&expected.0[..], expected.1.len()), (&[7, VOCAB][..], 7 * VOCAB));
    let wide: Vec<_> = TOKENS.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
    let narrow: Vec<_> = TOKENS.iter().flat_map(|id| id.to_le_bytes()).collect();
    for path in [
        write_tensor(folder.path(), "tokens", Dtype::I64, &wide),
        write_tensor(folder.path(), "input_ids", Dtype::I32, &narrow),
    ] {
        assert!(logits(&path, &[]) == expected, "{}", path.display());
    }
    for args in [&["--threads", "1"][..], &["--simd", "portable"], &["--ctx", "7"]] {
        let tokens = write_text(folder.path(), &TOKENS);
        assert!(logits(&tokens, args) == expected, "{args:?}");
    }
}

/// The two doors agree: the largest logit of the last row is the token that `run` chooses.
#[test]
fn logits_choose_what_run_chooses() {
    let folder = tempfile::tempdir().unwrap();
    for count in 1..=TOKENS.len() {
        let (_, numbers) = logits(&write_text(folder.path(), &TOKENS[..count]), &[]);
        let last = &numbers[(count - 1) * VOCAB..];
        let best = (0..VOCAB).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
        let ids: String = TOKENS[..count].iter().map(|id| format!("{id} ")).collect();
        let json = tercet(["run", "--ids", "--json", "--greedy", "-n", "1", "-p", &ids]).succeed();
        let json = json.json();
        // The token that ends an answer is chosen, and not shown.
        let chosen = json["tokens"][0].as_u64().or((json["n_gen"] == 1).then_some(2));
        assert_eq!(chosen, Some(best as u64), "{count} tokens: {json}");
    }
}

#[test]
fn a_model_without_tokenizer_has_logits() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = write_text(folder.path(), &TOKENS);
    let altered = Altered::new().without("tokenizer.json").without("tokenizer_config.json");
    let model = altered.write(folder.path());
    assert!(logits(&tokens, &[text(&model)]) == logits(&tokens, &[]));
    tercet(["eval", "ppl", text(&model), "--text", text(&tokens)]).fail(65, &["tokenizer.json"]);
}

#[test]
fn token_lists_that_cannot_be_used_are_65() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::write(&out, "old").unwrap();
    let path = folder.path().join("tokens");
    let long = "5 ".repeat(769);
    let floats = write_tensor(folder.path(), "tokens", Dtype::F32, &[0; 4 * TOKENS.len()]);
    let floats = fs::read(floats).unwrap();
    let cases: [(&[u8], &str); 7] = [
        (b"1 2 three", "`three`"),
        (b"", "no tokens"),
        (b"1 -1", "`-1`"),
        (b"1 4096", "4096"),
        (b"\xff\xfe\0\0\0\0\0\0\0\0", "neither text nor safetensors"),
        (long.as_bytes(), "769"),
        (&floats, "F32"),
    ];
    for (bytes, word) in cases {
        fs::write(&path, bytes).unwrap();
        tercet(["eval", "logits", "--tokens", text(&path), "--out", text(&out)]).fail(65, &[word]);
        assert_eq!(fs::read(&out).unwrap(), b"old", "{word}");
    }
}

const TEXT: &str = "Once upon a time there was a little girl who had a red balloon. She loved her \
                    balloon very much. One day the wind took it away and she was very sad. ";

/// Perplexity, computed here from logits that came through the other door.
#[test]
fn perplexity_is_that_of_the_logits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("story.txt");
    fs::write(&path, TEXT).unwrap();
    let (window, windows) = (12, 2);
    let args = ["eval", "ppl", "--json", "--window", "12", "--windows", "2", "--text"];
    let json = tercet(args).arg(&path).succeed().json();
    assert_eq!((&json["window"], &json["windows"]), (&window.into(), &windows.into()));
    assert_eq!(json["predictions"], windows * (window - 1));

    let package = Package::open(&Source::Path(builtin())).unwrap();
    let tokens = package.tokenizer.unwrap().encode_text(TEXT).unwrap();
    let loss = |window: &[u32]| {
        let (_, numbers) = logits(&write_text(folder.path(), window), &[]);
        let rows = numbers.chunks_exact(VOCAB).zip(&window[1..]);
        let losses = rows.map(|(row, token)| {
            let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            sum.ln() - f64::from(row[*token as usize])
        });
        losses.sum::<f64>() / (window.len() - 1) as f64
    };
    let mean = tokens.chunks_exact(window).take(windows).map(loss).sum::<f64>() / windows as f64;
    let told = json["perplexity"].as_f64().unwrap();
    assert!((told / mean.exp() - 1.0).abs() < 1e-4, "told {told}, computed {}", mean.exp());
    assert!((1.5..100.0).contains(&told), "a storyteller knows how stories go: {told}");
}

#[test]
fn a_text_without_sense_is_less_likely() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    let ppl = |text: String| {
        fs::write(&path, text).unwrap();
        let ran = tercet(["eval", "ppl", "--json", "--window", "32", "--text"]).arg(&path);
        ran.succeed().json()["perplexity"].as_f64().unwrap()
    };
    let mut words: Vec<_> = TEXT.split_whitespace().collect();
    let sense = ppl(words.join(" "));
    words.reverse();
    let none = ppl(words.join(" "));
    assert!(none > 3.0 * sense, "{none} backwards, {sense} forwards");
}

#[test]
fn a_text_that_cannot_be_measured_is_65() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    fs::write(&path, "Too short.").unwrap();
    tercet(["eval", "ppl", "--text", text(&path)]).fail(65, &["768"]);
    fs::write(&path, b"caf\xe9 ".repeat(1000)).unwrap();
    tercet(["eval", "ppl", "--text", text(&path)]).fail(65, &["UTF-8", "text.txt"]);
    let ran = tercet(["eval", "ppl", "--window", "8", "--chars", "40", "--text"]);
    fs::write(&path, TEXT).unwrap();
    let ran = ran.arg(&path).succeed();
    assert!(ran.text().starts_with("perplexity ") && ran.text().ends_with("8 tokens\n"), "{ran}");
}
