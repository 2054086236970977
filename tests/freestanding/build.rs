//! Linker arguments of a program that brings its own entry and has no library beneath it.

fn main() {
    // Here and not in a `.cargo/config.toml`, which cargo would read only when started in this
    // folder.
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
