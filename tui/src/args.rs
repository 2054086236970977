//! The command line: what can be said, and its checked form.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use tercet_host::layout::WeightLayout;

use crate::bench::{BenchArgs, preset_names, with_bench_as_command};

/// Runs ternary language models (BitNet b1.58) in the terminal.
///
/// Without a command: a chat on a terminal; otherwise all of stdin is one message and the answer
/// goes to stdout. Without a model: the one built in.
#[derive(Debug, Parser)]
#[command(name = "tercet", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do instead of chatting.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Measure speed: `tercet --bench --help` has its options
    // For help and completions; `Cli::read` has turned it into the command before.
    #[arg(long)]
    pub bench: bool,
    /// The chat's options.
    #[command(flatten)]
    pub chat: ChatArgs,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 2 wrong command line, 65 bad data (damaged model, prompt too long, a replay \
that differs), 66 no input, 69 device or memory not there, or a session open elsewhere, \
70 internal error, 73 cannot write the result, 74 read or write failed, 78 model configuration \
wrong or not supported, 130 interrupted, 129, 131 and 143 ended by SIGHUP, SIGQUIT and SIGTERM \
(the session is saved)";

impl Cli {
    /// Reads a command line, program name first.
    ///
    /// # Errors
    ///
    /// What clap prints: help, the version, or what is wrong.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(with_bench_as_command(args.into_iter().collect()))
    }
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One answer to stdout
    Run(RunArgs),
    /// What a model is: architecture, shapes, bits per weight, memory
    Inspect(InspectArgs),
    /// Convert a checkpoint into one file made for mapping
    Convert(ConvertArgs),
    /// Measure what a model says
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Answer a saved session once more, and compare
    Replay(ReplayArgs),
    /// Measure speed; `tercet --bench` is the same
    Bench(BenchArgs),
    /// Try every device and every kernel, and say what would fail and why
    Doctor(DoctorArgs),
    /// Write random weights of a true shape, to measure without a download
    Synth(SynthArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Of this command instead of the program
        command: Option<String>,
    },
    /// Renders one chat template under limits (for the program itself)
    #[command(name = "__render", hide = true)]
    Render,
}

/// A model.
#[derive(Debug, Clone, Args)]
pub struct ModelArg {
    /// Folder with config.json and safetensors, or a .tercet file [default: the model built in]
    pub model: Option<PathBuf>,
}

/// Where and how to compute.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    pub device: Device,
    /// CPU threads [default: all the process may use]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Positions of the context [default: the model's, at most 4096]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub ctx: Option<u32>,
    /// Numbers of the key/value cache
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    pub kv: Kv,
    /// Weights of the output head: as stored, or rounded to INT8 when loaded (faster, logits a
    /// little off)
    #[arg(long, value_enum, default_value_t = Head::Stored)]
    pub head: Head,
    /// CPU instructions: portable, avx2, avx512vnni or amxint8 [default: the best there are]
    #[arg(long)]
    pub simd: Option<String>,
    /// The same bits whatever the prefill chunk and what is reused (always so on the CPU; slower on
    /// a GPU)
    #[arg(long)]
    pub deterministic: bool,
    /// Run GPU kernels of the model's file that are not on the list of released ones: code of
    /// whoever made the file
    #[arg(long)]
    pub trust_kernels: bool,
    /// No progress and no statistics on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The best that works.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device, by number.
    Cuda(u32),
}

fn parse_device(text: &str) -> Result<Device, String> {
    match text.split_once(':') {
        None if text == "auto" => Ok(Device::Auto),
        None if text == "cpu" => Ok(Device::Cpu),
        None if text == "cuda" => Ok(Device::Cuda(0)),
        Some(("cuda", number)) => {
            number.parse().map(Device::Cuda).map_err(|_| format!("`{number}` is no device number"))
        }
        _ => Err("possible values: auto, cpu, cuda, cuda:N".into()),
    }
}

/// Number type of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kv {
    /// Single precision
    F32,
    /// Half precision
    F16,
}

/// How the head's weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// As the checkpoint has them
    Stored,
    /// INT8 with a unit for each token
    Int8,
}

/// How tokens are chosen; what is not given comes from the model.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Always the most likely token
    #[arg(long, conflicts_with_all = ["temp", "top_k", "top_p", "min_p"])]
    pub greedy: bool,
    /// Divides the logits; 0 is greedy
    #[arg(long, value_parser = parse_at_least_zero)]
    pub temp: Option<f32>,
    /// Keep the K most likely tokens; 0 is off
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Keep the most likely tokens that together reach probability P
    #[arg(long, value_parser = parse_probability)]
    pub top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_parser = parse_probability)]
    pub min_p: Option<f32>,
    /// Makes tokens of the context less likely; 1 is off
    #[arg(long, value_parser = parse_penalty)]
    pub repetition_penalty: Option<f32>,
    /// Seed of the choices: the same seed gives the same answer [default: another each time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Most tokens of an answer [default: until the model ends or the context is full]
    #[arg(short = 'n', long)]
    pub max_tokens: Option<usize>,
    /// Text that ends an answer (may be given several times)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

fn parse_number(text: &str, fits: impl Fn(f32) -> bool, wanted: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(number) if fits(number) => Ok(number),
        _ => Err(format!("wanted {wanted}")),
    }
}

/// Range of `--temp`.
pub(crate) fn parse_at_least_zero(text: &str) -> Result<f32, String> {
    parse_number(text, |x| x.is_finite() && x >= 0.0, "a number from 0")
}

/// Range of `--top-p` and `--min-p`.
pub(crate) fn parse_probability(text: &str) -> Result<f32, String> {
    parse_number(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

/// Range of `--repetition-penalty`.
pub(crate) fn parse_penalty(text: &str) -> Result<f32, String> {
    parse_number(text, |x| x.is_finite() && x > 0.0, "a number above 0")
}

/// How messages become a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ChatForm {
    /// The model's own; without one, the built-in form of a model that is recognised
    Auto,
    /// None: the message is continued as text
    None,
    /// Vicuna v1.1, v1.3 and v1.5
    Vicuna,
    /// BitNet b1.58 2B-4T
    Bitnet,
}

/// Options of the chat.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How messages become a prompt
    #[arg(long, value_enum, default_value_t = ChatForm::Auto)]
    pub chat_form: ChatForm,
    /// Go on with a saved session: by name, by file, or the one saved last
    #[arg(long, value_name = "SESSION", num_args = 0..=1, require_equals = true,
        default_missing_value = "", conflicts_with_all = ["system", "no_save"])]
    pub resume: Option<String>,
    /// Keep no session file of this chat
    #[arg(long)]
    pub no_save: bool,
    /// Neither read nor keep what is typed
    #[arg(long)]
    pub no_history: bool,
    /// Line by line: no screen, no boxes, nothing is drawn over
    #[arg(long)]
    pub plain: bool,
    /// Answers stay in the terminal's scrollback; a few lines at the bottom are drawn over
    #[arg(long, conflicts_with = "plain")]
    pub inline: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t = ThemeArg::Auto)]
    pub theme: ThemeArg,
    /// Bars and lines of ASCII letters
    #[arg(long)]
    pub ascii: bool,
    /// Sampling.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Colours of the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ThemeArg {
    /// What the terminal says about itself; none with NO_COLOR
    Auto,
    /// For light letters on a dark screen
    Dark,
    /// For dark letters on a light screen
    Light,
    /// None
    None,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// The message; stdin, if it is not a terminal, is appended
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Instructions that stand before the message
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Continue the prompt as plain text: no chat template; control characters reach a pipe as they
    /// are
    #[arg(long)]
    pub raw: bool,
    /// The prompt is token ids separated by white space, used as they are, and so is the answer
    #[arg(long, conflicts_with_all = ["raw", "system"])]
    pub ids: bool,
    /// How messages become a prompt
    #[arg(long, value_enum, default_value_t = ChatForm::Auto, conflicts_with_all = ["raw", "ids"])]
    pub chat_form: ChatForm,
    /// The answer and its numbers as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Longest prompt read from stdin, in bytes
    #[arg(long, default_value_t = 16 << 20)]
    pub max_prompt_bytes: u64,
    /// Sampling.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Options of `replay`.
#[derive(Debug, Args)]
#[command(after_help = REPLAY_EXIT_CODES)]
pub struct ReplayArgs {
    /// Name of a saved session, or the beginning of one, or a session file
    pub session: PathBuf,
    /// The model [default: where the session says that it was]
    pub model: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N [default: the kind that answered then]
    #[arg(long, value_parser = parse_device)]
    pub device: Option<Device>,
    /// CPU threads [default: all the process may use]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// CPU instructions: portable, avx2, avx512vnni or amxint8 [default: the best there are]
    #[arg(long)]
    pub simd: Option<String>,
    /// Run GPU kernels of the model's file that are not on the list of released ones
    #[arg(long)]
    pub trust_kernels: bool,
    /// Replay although the model or its template is another: its answers to the same messages
    #[arg(long)]
    pub force: bool,
    /// What came of every turn as one JSON object, instead of the answers
    #[arg(long)]
    pub json: bool,
    /// No progress and no notes on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

const REPLAY_EXIT_CODES: &str = "\
Exit codes: 0 every byte is the same; 65 something differs, or model or template is another";

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// Read every weight: codes, units, finite numbers, recorded digests
    #[arg(long)]
    pub check: bool,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
    /// Positions for which memory is estimated [default: the model's, at most 4096]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub ctx: Option<u32>,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// Options of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The checkpoint: a folder with config.json and safetensors, or a .tercet file
    pub source: PathBuf,
    /// The file to write; appears when it is complete
    pub destination: PathBuf,
    /// What to write
    #[arg(long, value_enum)]
    pub to: Kind,
    /// How ternary weights are packed
    #[arg(long, value_enum, default_value_t)]
    pub layout: Layout,
    /// Leave the GPU kernels out of the file
    #[arg(long)]
    pub no_kernels: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// Kinds of checkpoints that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One packed, self-contained file
    Tercet,
}

/// How a file of our own packs ternary weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Layout {
    /// Two bits a weight: for GPUs, batches, and processors without AVX-512
    #[default]
    Rows128,
    /// 1.6 bits a weight: one answer faster where the memory is the limit of a CPU with AVX-512
    Base3,
}

impl From<Layout> for WeightLayout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Rows128 => Self::Rows128,
            Layout::Base3 => Self::Base3,
        }
    }
}

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXIT_CODES)]
pub struct DoctorArgs {
    /// Try the GPU kernels that this .tercet file carries [default: the program's own]
    pub model: Option<PathBuf>,
    /// Try them even if they are not on the list of released ones
    #[arg(long, requires = "model")]
    pub trust_kernels: bool,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_EXIT_CODES: &str = "\
Exit codes: 0 the CPU works, and so does every GPU that was found; 69 a GPU or its driver is \
there, but cannot be used; 70 the CPU computes wrongly";

/// Options of `synth`.
#[derive(Debug, Args)]
pub struct SynthArgs {
    /// The model whose shape it is
    #[arg(value_parser = preset_names())]
    pub preset: String,
    /// What to write: a file for --to tercet, otherwise a folder; appears when it is complete
    pub destination: PathBuf,
    /// Kind of checkpoint
    #[arg(long, value_enum)]
    pub to: SynthKind,
    /// How ternary weights are packed, with --to tercet [default: rows128]
    #[arg(long, value_enum)]
    pub layout: Option<Layout>,
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// Kinds of synthetic checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SynthKind {
    /// One packed, self-contained file
    Tercet,
    /// A Hugging Face folder, weights packed to uint8
    Hf,
    /// A Hugging Face folder, master weights in bfloat16
    Native,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Write the logits of given token ids, to compare with another runtime
    Logits(LogitsArgs),
    /// Perplexity of a text in consecutive windows
    Ppl(PplArgs),
}

/// Options of `eval logits`.
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// Token ids, used as they are: text separated by white space, or a safetensors file
    #[arg(long, value_name = "FILE")]
    pub tokens: PathBuf,
    /// Safetensors file to write: `logits`, F32, (tokens, vocabulary)
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Options of `eval ppl`.
#[derive(Debug, Args)]
pub struct PplArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// UTF-8 text; tokenised once, as a whole
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Only the first N characters of the text
    #[arg(long, value_name = "N")]
    pub chars: Option<usize>,
    /// Tokens of a window; no window sees another [default: the context]
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=16_777_216))]
    pub window: Option<u32>,
    /// Most windows [default: all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub windows: Option<u32>,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}
