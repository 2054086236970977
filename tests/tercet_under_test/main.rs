//! The shipped program, whole, for the tests of the command line; and a trial of its screen, which
//! ends in every way that a test asks for.

#![forbid(unsafe_code)]

mod trial;

fn main() -> std::process::ExitCode {
    match std::env::args().nth(1) {
        Some(argument) if argument == trial::ARGUMENT => trial::main(),
        _ => tercet::program::main(),
    }
}
