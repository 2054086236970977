//! [`Test`]: what is measured, from the options.

use tercet_host::measure::{Logits, Next, Workload};

use super::args::{BenchArgs, Suite};
use crate::failure::Failure;

/// One row of the report before it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// `llama-bench`, `bitblas` or `generate`.
    pub suite: &'static str,
    /// As people call it: `pp512`, `tg128 @ d1024`, `1x2048`, `generate 16/32/128`.
    pub name: String,
    /// What is run.
    pub workload: Workload,
}

/// BitBLAS's table: sequences and tokens of a forward pass (`integration/BitNet/README.md`).
const BITBLAS: [(usize, usize); 3] = [(1, 1), (128, 1), (1, 2048)];
/// BitBLAS's generation runs: sequences, tokens of the prompt, tokens of the answer
/// (vLLM pull request 7725, by its authors).
const GENERATE: [(usize, usize, usize); 3] = [(16, 32, 128), (1, 512, 1024), (32, 32, 128)];

const NOTHING: Workload = Workload {
    slots: 1,
    depth: 0,
    prompt: 0,
    generate: 0,
    logits: Logits::Last,
    next: Next::Given,
};

/// The tests that the options ask for.
///
/// # Errors
///
/// [`Failure::Usage`] when there are none, or when the lists are given for a suite that has none.
pub fn tests(args: &BenchArgs) -> Result<Vec<Test>, Failure> {
    let lists = [&args.prompt, &args.generate, &args.depth, &args.batch];
    if !matches!(args.suite, Suite::LlamaBench | Suite::All) && lists.iter().any(|l| l.is_some()) {
        return Err(Failure::Usage {
            what: "-p, -n, -d and -b are given, and a suite whose tests are fixed".into(),
            hint: "leave them out, or choose --suite llama-bench or all",
        });
    }
    let mut tests = Vec::new();
    if matches!(args.suite, Suite::LlamaBench | Suite::All) {
        llama_bench(args, &mut tests);
    }
    if matches!(args.suite, Suite::Bitblas | Suite::All) {
        tests.extend(BITBLAS.map(|(slots, prompt)| Test {
            suite: "bitblas",
            name: format!("{slots}x{prompt}"),
            workload: Workload { slots, prompt, logits: Logits::All, ..NOTHING },
        }));
    }
    if matches!(args.suite, Suite::Generate | Suite::All) {
        tests.extend(GENERATE.map(|(slots, prompt, generate)| Test {
            suite: "generate",
            name: format!("generate {slots}/{prompt}/{generate}"),
            workload: Workload { slots, prompt, generate, next: Next::Greedy, ..NOTHING },
        }));
    }
    if tests.is_empty() {
        return Err(Failure::Usage {
            what: "-p and -n leave no test".into(),
            hint: "give one of them a number above 0",
        });
    }
    Ok(tests)
}

fn llama_bench(args: &BenchArgs, tests: &mut Vec<Test>) {
    let list = |given: &Option<Vec<u32>>, default: u32| -> Vec<usize> {
        let given = given.clone().unwrap_or_else(|| vec![default]);
        given.into_iter().map(|number| number as usize).collect()
    };
    for slots in list(&args.batch, 1) {
        for depth in list(&args.depth, 0) {
            let here = Workload { slots, depth, ..NOTHING };
            let prompts = list(&args.prompt, 512).into_iter();
            let prompts =
                prompts.map(|prompt| (format!("pp{prompt}"), Workload { prompt, ..here }));
            let answers = list(&args.generate, 128).into_iter();
            let answers = answers.map(|generate| {
                (format!("tg{generate}"), Workload { generate, next: Next::Greedy, ..here })
            });
            for (mut name, workload) in prompts.chain(answers) {
                if workload.prompt + workload.generate == 0 {
                    continue;
                }
                if depth > 0 {
                    name += &format!(" @ d{depth}");
                }
                if slots > 1 {
                    name += &format!(" x {slots}");
                }
                tests.push(Test { suite: "llama-bench", name, workload });
            }
        }
    }
}
