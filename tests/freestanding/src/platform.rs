//! What an operating system's library would bring: an entry, two system calls and a panic handler.

use core::{
    arch::{asm, global_asm},
    fmt::{self, Write},
    panic::PanicInfo,
};

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("this program speaks to the Linux kernel of x86-64");

// The kernel enters with the stack aligned to 16 bytes and no return address on it; `call` pushes
// one, as the ABI expects at the start of a function.
global_asm!(
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym enter,
);

extern "C" fn enter() -> ! {
    exit(crate::main())
}

/// Leaves the program with `status`.
fn exit(status: i32) -> ! {
    // SAFETY: system call 231 is exit_group, which takes a number and does not return.
    unsafe {
        asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack));
    }
}

/// Standard error, unbuffered.
pub struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let written: isize;
        // SAFETY: system call 1 is write; it reads `text.len()` bytes at `text`, which the
        // reference covers, and changes rax, rcx and r11 only.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") 1_isize => written,
                in("rdi") 2,
                in("rsi") text.as_ptr(),
                in("rdx") text.len(),
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack, readonly),
            );
        }
        if written == text.len() as isize { Ok(()) } else { Err(fmt::Error) }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Nobody is left to hear of a failure to write.
    let _ = writeln!(Stderr, "{info}");
    exit(101)
}
