//! The program `tercet`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    tercet::program::main()
}
