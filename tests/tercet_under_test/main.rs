//! The shipped program, whole, for the tests of the command line.

fn main() -> std::process::ExitCode {
    tercet::program::main()
}
