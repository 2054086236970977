//! Renders a template in a process of its own, as `tercet` does under a hidden name.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    tercet_host::text::render_child_main(io::stdin().lock(), io::stdout().lock())
}
