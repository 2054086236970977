//! Options of `--bench`.

use core::ops::RangeInclusive;
use std::ffi::OsString;

use clap::{Args, CommandFactory, ValueEnum};
use tercet_host::preset::PRESETS;

use crate::args::{Cli, DeviceArgs, Layout, ModelArg};

/// Options of `--bench`.
#[derive(Debug, Args)]
#[command(override_usage = "tercet --bench [OPTIONS] [MODEL]", after_help = NOTES)]
pub struct BenchArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// Random weights of a true shape instead of a model, made in memory
    #[arg(long, value_name = "PRESET", conflicts_with = "model", value_parser = preset_names())]
    pub preset: Option<String>,
    /// Seed of the random weights
    #[arg(long, default_value_t = 1, requires = "preset", conflicts_with = "model")]
    pub seed: u64,
    /// How the random weights are packed
    #[arg(long, value_enum, default_value_t, requires = "preset", conflicts_with = "model")]
    pub layout: Layout,
    /// Which tests
    #[arg(long, value_enum, default_value_t = Suite::LlamaBench)]
    pub suite: Suite,
    /// Prompt tests: tokens, a list; 0 for none [default: 512]
    #[arg(short = 'p', long = "n-prompt", value_name = "N,..", value_delimiter = ',',
          value_parser = tokens(0))]
    pub prompt: Option<Vec<u32>>,
    /// Generation tests: tokens, a list; 0 for none [default: 128]
    #[arg(short = 'n', long = "n-gen", value_name = "N,..", value_delimiter = ',',
          value_parser = tokens(0))]
    pub generate: Option<Vec<u32>>,
    /// Positions that are filled before a test starts, a list [default: 0]
    #[arg(short = 'd', long = "n-depth", value_name = "N,..", value_delimiter = ',',
          value_parser = tokens(0))]
    pub depth: Option<Vec<u32>>,
    /// Sequences at a time, a list [default: 1]
    #[arg(short = 'b', long = "n-batch", value_name = "N,..", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: Option<Vec<u32>>,
    /// Thread counts, a list: every test with each
    #[arg(short = 't', value_name = "N,..", value_delimiter = ',', conflicts_with = "threads",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub thread_counts: Option<Vec<u16>>,
    /// Most prompt tokens of one step [default: 32 per thread, at least 64; with AMX or base3 128]
    #[arg(short = 'u', long = "n-ubatch", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub ubatch: Option<u32>,
    /// Runs of each test
    #[arg(short = 'r', long = "repetitions", value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub repetitions: u32,
    /// Runs before those, which are not counted: the whole prompt and one token
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub warmup: u32,
    /// How to report
    #[arg(long, value_enum, default_value_t = Format::Md)]
    pub format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

const NOTES: &str = "\
Suites: `llama-bench` has a row for each of -p and of -n, at each depth and batch: ppN reads N \
tokens and makes the logits of the last, tgN generates N. `bitblas` is BitBLAS's table: whole \
forward passes from an empty cache, logits for every position (1x1, 128x1, 1x2048: sequences x \
tokens). `generate` is prompt and answer in one (sequences/prompt/answer: 16/32/128, 1/512/1024, \
32/32/128); its t/s counts all tokens, `new t/s` only those of the answer. Each test has a \
session of its own.

Tokenising is never part of a time. Choosing tokens is part of `generate` (greedy) and of nothing \
else: ppN and tgN are forward passes on given tokens, as in llama-bench. The bandwidth is what as \
many threads read with plain loads just before the test; the share is that of weights, cache and \
head, each read once per step. Ctrl-C ends with what was measured.";

/// Which tests are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Prompt and generation apart
    LlamaBench,
    /// Whole forward passes, in milliseconds
    Bitblas,
    /// Prompt and answer in one
    Generate,
    /// All of them
    All,
}

/// How results are written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table, row by row as they come; warnings on stderr
    Md,
    /// One object
    Json,
    /// One object per row, as they come
    Jsonl,
    /// One line per row, as they come, without the samples
    Csv,
}

/// The names of all presets, as clap checks them.
#[must_use]
pub fn preset_names() -> clap::builder::PossibleValuesParser {
    PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().into()
}

fn tokens(least: i64) -> clap::builder::RangedI64ValueParser<u32> {
    const ALL: RangeInclusive<i64> = 0..=1 << 24;
    clap::value_parser!(u32).range(least..=*ALL.end())
}

/// Turns `tercet --bench ...` into `tercet bench ...`.
///
/// A command of its own, because its options mean other things than the chat's (`-n` is a list).
/// Only where no command was given: `--bench` may be an argument of another one.
#[must_use]
pub fn with_bench_as_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let program = Cli::command();
    let is_command =
        |arg: &OsString| arg.to_str().is_some_and(|name| program.find_subcommand(name).is_some());
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    if let Some(place) = args[..end].iter().position(|arg| arg == "--bench")
        && !args.get(1).is_some_and(is_command)
    {
        args.remove(place);
        args.insert(1, "bench".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_the_command_unless_another_was_given() {
        let turned = |line: &str| {
            let args = line.split(' ').map(OsString::from).collect();
            let args = with_bench_as_command(args);
            args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(turned("tercet --bench -n 8"), "tercet bench -n 8");
        assert_eq!(turned("tercet MODEL --bench"), "tercet bench MODEL");
        assert_eq!(turned("tercet bench --help"), "tercet bench --help");
        assert_eq!(turned("tercet run -p --bench"), "tercet run -p --bench");
        assert_eq!(turned("tercet -- --bench"), "tercet -- --bench");
    }
}
