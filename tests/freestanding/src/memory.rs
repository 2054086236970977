//! The memory functions that compiled code calls, and the unwinder's hook that the prebuilt `core`
//! names.
//!
//! On a target that has a standard library, Rust leaves these to the C library. They are written as
//! string instructions because a loop could be compiled into a call of the function it stands in.

use core::arch::asm;

/// Copies `len` bytes between places that do not overlap.
///
/// # Safety
///
/// - `from` is readable and `to` writable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both places; the ABI keeps the direction flag clear.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// Copies `len` bytes between places that may overlap.
///
/// # Safety
///
/// - `from` is readable and `to` writable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: as the caller vouches; going upwards, no byte is written before it is read.
        return unsafe { memcpy(to, from, len) };
    }
    // `to` lies inside `from..from + len`, so `len` is not 0 and the copy must go downwards.
    let last = len - 1;
    // SAFETY: as the caller vouches; the direction flag is cleared again, as the ABI wants it.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") len => _,
            inout("rdi") to.wrapping_add(last) => _,
            inout("rsi") from.wrapping_add(last) => _,
            options(nostack),
        );
    }
    to
}

/// Sets `len` bytes to the low byte of `value`.
///
/// # Safety
///
/// - `to` is writable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the place; the ABI keeps the direction flag clear.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") len => _, inout("rdi") to => _, in("al") value as u8,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// The difference of the first two bytes that differ, or 0.
///
/// # Safety
///
/// - `a` and `b` are readable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let (a_byte, b_byte): (u32, u32);
    // SAFETY: the caller vouches for both places. With `len` 0 nothing is read and `xor` leaves
    // equal flags; otherwise rsi and rdi stop one behind the pair that decides, so −1 is inside.
    unsafe {
        asm!(
            "xor {a:e}, {a:e}",
            "xor {b:e}, {b:e}",
            "repe cmpsb",
            "je 2f",
            "movzx {a:e}, byte ptr [rsi - 1]",
            "movzx {b:e}, byte ptr [rdi - 1]",
            "2:",
            a = out(reg) a_byte, b = out(reg) b_byte,
            inout("rcx") len => _, inout("rsi") a => _, inout("rdi") b => _,
            options(nostack, readonly),
        );
    }
    a_byte as i32 - b_byte as i32
}

/// `memcmp` where only "equal or not" is asked.
///
/// # Safety
///
/// - `a` and `b` are readable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: as the caller vouches.
    unsafe { memcmp(a, b, len) }
}

/// Named by tables inside the prebuilt `core`, never called: this program aborts on panic.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
