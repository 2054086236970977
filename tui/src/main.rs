//! The program `tercet`.

fn main() -> std::process::ExitCode {
    tercet::program::main()
}
