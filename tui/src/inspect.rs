//! `tercet inspect`: what a model is.

use std::io::{Write, stdout};

use serde_json::json;
use tercet_host::inspect::{CarriedKernels, Description, check, describe};

use crate::args::InspectArgs;
use crate::clean::{Json, OneLine};
use crate::engine::{self, Progress};
use crate::failure::Failure;

/// Runs the command.
///
/// # Errors
///
/// [`Failure`] of any stage; [`Failure::Data`] when `--check` finds damage.
pub fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let package = engine::open(&args.model)?;
    let context = engine::context(&package, args.ctx)?;
    let description = describe(&package, context)?;
    let progress = Progress::new("checking", args.quiet);
    let checked = if args.check {
        Some(check(&package, &mut |done, total| progress.show(done, total))?)
    } else {
        None
    };
    progress.done();

    let mut out = stdout();
    if args.json {
        let mut report = json!(description);
        if let Some(checked) = &checked {
            report["check"] = json!({
                "problems": checked.problems,
                "digests_matching": checked.digests.matching,
                "digests_missing": checked.digests.unrecorded,
            });
        }
        writeln!(out, "{}", Json(&format!("{report:#}"))).map_err(Failure::io)?;
    } else {
        write_text(&mut out, &description).map_err(Failure::io)?;
        if let Some(checked) = &checked {
            let matching = checked.digests.matching;
            let recorded =
                if matching > 0 { format!(", {matching} digests match") } else { String::new() };
            match checked.problems.len() {
                0 => writeln!(out, "check          every weight is in order{recorded}"),
                count => writeln!(out, "check          {count} problems"),
            }
            .map_err(Failure::io)?;
            for problem in &checked.problems {
                writeln!(out, "  {}", OneLine(problem)).map_err(Failure::io)?;
            }
        }
    }
    match checked {
        Some(checked) if !checked.problems.is_empty() => Err(Failure::Data {
            what: format!("the model is damaged: {}", checked.problems[0]),
            hint: "download or convert it again",
        }),
        _ => Ok(()),
    }
}

fn write_text(out: &mut impl Write, model: &Description) -> std::io::Result<()> {
    let mut line = |name: &str, value: String| writeln!(out, "{name:<14} {}", OneLine(&value));
    line("model", model.model.clone())?;
    line("architecture", model.architecture.clone())?;
    line("format", format!("{}: {}", model.format, model.weights))?;
    line(
        "shape",
        format!(
            "{} layers, hidden {}, ffn {}, {} heads ({} for keys and values) of {}",
            model.layers, model.hidden, model.ffn, model.heads, model.kv_heads, model.head_dim
        ),
    )?;
    line(
        "kind",
        format!(
            "{}, {}sub-norms, {} {} head",
            model.activation,
            if model.sub_norms { "" } else { "no " },
            if model.tied_head { "tied" } else { "separate" },
            model.head,
        ),
    )?;
    line("vocabulary", format!("{} tokens", model.vocab))?;
    line("positions", model.positions_max.to_string())?;
    line(
        "parameters",
        format!("{}, {} of them ternary", count(model.parameters), count(model.ternary_parameters)),
    )?;
    line(
        "bits a weight",
        format!(
            "{:.3} by information, {:.3} in the file, {:.3} in memory (linears of the decoder)",
            model.bits_per_weight_nominal,
            model.bits_per_weight_stored,
            model.bits_per_weight_in_memory
        ),
    )?;
    line("file", megabytes(model.file_bytes))?;
    line(
        "memory",
        format!(
            "{} weights + {} keys and values at {} positions ({} bytes a token, f16)",
            megabytes(model.memory.weights_bytes),
            megabytes(model.memory.kv_bytes),
            model.memory.context,
            model.memory.kv_bytes_per_token,
        ),
    )?;
    line(
        "tokenizer",
        model.tokenizer_tokens.map_or("none: token ids only".into(), |n| format!("{n} tokens")),
    )?;
    line(
        "chat template",
        model.chat_template.as_ref().map_or("none".into(), |hash| format!("sha256 {hash}")),
    )?;
    line("stop tokens", format!("{:?}", model.stop_tokens))?;
    match &model.kernels {
        Some(kernels) => line("GPU kernels", carried(kernels)),
        None => Ok(()),
    }
}

fn carried(kernels: &CarriedKernels) -> String {
    let count = kernels.modules.len();
    let contract = kernels.contract.as_deref().unwrap_or("unknown");
    let names: Vec<_> = kernels.modules.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(", ");
    let word = match &kernels.refusal {
        None => "released".to_owned(),
        Some(refusal) => format!("not used without --trust-kernels: {refusal}"),
    };
    format!("{count} of contract {contract} ({names}); {word}")
}

/// A count with its unit: `25.2 million`.
fn count(number: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
    let number = number as f64;
    if number >= 1e9 {
        format!("{:.2} billion", number / 1e9)
    } else {
        format!("{:.1} million", number / 1e6)
    }
}

/// Megabytes of a million bytes.
fn megabytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
    let bytes = bytes as f64;
    format!("{:.1} MB", bytes / 1e6)
}
