//! Completions and manual pages, from the same definition as the command line.

use std::io::{Write, stdout};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;

/// Prints completions for `shell`.
///
/// # Errors
///
/// [`Failure::Io`] when stdout is gone.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tercet", &mut text);
    stdout().write_all(&text).map_err(Failure::io)
}

/// Prints the manual page of the program, or of one command.
///
/// # Errors
///
/// [`Failure::Usage`] for an unknown command, [`Failure::Io`] when stdout is gone.
pub fn man(command: Option<&str>) -> Result<(), Failure> {
    let mut program = Cli::command();
    program.build();
    let (page, title) = match command {
        None => (program, "tercet".to_owned()),
        Some(name) => {
            let found = program.find_subcommand(name).filter(|found| !found.is_hide_set());
            let Some(found) = found else {
                return Err(Failure::Usage {
                    what: format!("there is no command `{name}`"),
                    hint: "`tercet --help` lists the commands",
                });
            };
            (found.clone(), format!("tercet-{name}"))
        }
    };
    let mut text = Vec::new();
    let source = concat!("tercet ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(page)
        .title(title)
        .source(source)
        .render(&mut text)
        .map_err(Failure::io)?;
    stdout().write_all(&text).map_err(Failure::io)
}
