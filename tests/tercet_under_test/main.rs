//! The shipped program, whole, for the tests of the command line.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    tercet::program::main()
}
