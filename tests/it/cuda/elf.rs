//! What the program asks of the dynamic linker before it runs.

use std::fs;

/// Little-endian number of `size` bytes at `at`.
fn number(file: &[u8], at: usize, size: usize) -> usize {
    file[at..at + size].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// Names of the shared libraries in the dynamic section of a 64-bit ELF file.
fn needed(file: &[u8]) -> Vec<String> {
    const SECTION_DYNAMIC: usize = 6;
    const NEEDED: usize = 1;
    assert!(file.starts_with(b"\x7fELF\x02\x01"), "64 bits, little-endian");
    let (sections, size, count) =
        (number(file, 0x28, 8), number(file, 0x3a, 2), number(file, 0x3c, 2));
    let section = |index: usize| sections + index * size;
    let mut names = Vec::new();
    for dynamic in (0..count).map(section).filter(|&at| number(file, at + 4, 4) == SECTION_DYNAMIC)
    {
        let strings = number(file, section(number(file, dynamic + 0x28, 4)) + 0x18, 8);
        let (start, bytes) = (number(file, dynamic + 0x18, 8), number(file, dynamic + 0x20, 8));
        for entry in (start..start + bytes).step_by(16) {
            if number(file, entry, 8) == NEEDED {
                let name = &file[strings + number(file, entry + 8, 8)..];
                let name = name.split(|&byte| byte == 0).next().unwrap();
                names.push(String::from_utf8(name.to_vec()).unwrap());
            }
        }
    }
    names
}

#[test]
fn no_library_of_nvidia_is_needed() {
    for program in
        [crate::cli::support::PROGRAM, std::env::current_exe().unwrap().to_str().unwrap()]
    {
        let needed = needed(&fs::read(program).unwrap());
        assert!(needed.iter().any(|name| name.starts_with("libc.so")), "{program}: {needed:?}");
        let theirs = |name: &&String| name.starts_with("libcuda") || name.starts_with("libnv");
        assert_eq!(needed.iter().find(theirs), None, "{program}");
    }
}
