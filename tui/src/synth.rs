//! `tercet synth`: a checkpoint of random weights.

use tercet_host::preset::Preset;
use tercet_host::synth::{self, Kind};

use crate::args::{SynthArgs, SynthKind};
use crate::engine::Progress;
use crate::failure::Failure;

/// Runs the command.
///
/// # Errors
///
/// [`Failure`] of the preset or the destination.
pub fn synth(args: &SynthArgs) -> Result<(), Failure> {
    let preset = preset(&args.preset)?;
    if args.layout.is_some() && args.to != SynthKind::Tercet {
        return Err(Failure::Usage {
            what: "--layout is given, and a folder whose packing is Hugging Face's".into(),
            hint: "leave it out, or choose --to tercet",
        });
    }
    let kind = match args.to {
        SynthKind::Tercet => Kind::Tercet(args.layout.unwrap_or_default().into()),
        SynthKind::Hf => Kind::HuggingFace,
        SynthKind::Native => Kind::Native,
    };
    let progress = Progress::new("writing", args.quiet);
    synth::write(preset, kind, &args.destination, args.seed, &mut |done, total| {
        progress.show(done, total);
    })?;
    progress.done();
    Ok(())
}

/// The preset called `name`.
///
/// # Errors
///
/// [`Failure::Usage`] when there is none; the command line has checked the name before.
pub fn preset(name: &str) -> Result<&'static Preset, Failure> {
    Preset::by_name(name).ok_or_else(|| Failure::Usage {
        what: format!("there is no preset `{name}`"),
        hint: "`tercet synth --help` lists them",
    })
}
