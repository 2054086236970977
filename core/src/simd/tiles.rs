//! The tile unit of a CPU (AMX): who may use it, and how.

use core::arch::asm;

#[cfg(test)]
use super::panels::SIDE;
use super::panels::{CodeTile, STEP_COLS, SumTile, TileUnit, ValueRows};

/// The tile unit of this thread, configured as eight tiles of 16 rows of 64 bytes until dropped.
///
/// Neither `Send` nor `Sync`: the configuration belongs to the thread.
pub(super) struct Configured(core::marker::PhantomData<*const ()>);

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<Configuration>() == 64, "ldtilecfg reads 64 bytes");

static EIGHT_FULL_TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Configured {
    /// Configures the tiles of this thread.
    ///
    /// # Safety
    ///
    /// - The CPU has AMX-TILE and AMX-INT8, and the operating system lets this process use them.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the instruction exists, as the caller promises; it reads the 64 bytes of a valid
        // configuration and changes nothing but the tiles, which the compiler keeps nothing in.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &raw const EIGHT_FULL_TILES,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly),
            );
        }
        Self(core::marker::PhantomData)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // Tiles in their initial state cost a context switch nothing.
        // SAFETY: the instruction exists, because a `Configured` does; nobody else uses the tiles.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, nomem),
            );
        }
    }
}

/// Instructions of the unit. No code generator emits any of its own accord, so tiles keep what they
/// hold from one block to the next.
macro_rules! tiles {
    ($($line:literal,)* ; $($operand:tt)*) => {
        asm!(
            $($line,)*
            $($operand)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        )
    };
}

impl TileUnit for Configured {
    // Into the caller, whose vector instructions `between` may then be made of.
    #[inline(always)]
    fn multiply<const U: usize>(
        &self,
        values: [ValueRows<'_>; U],
        codes: &[[CodeTile; 2]],
        fresh: bool,
        sums: &mut [[SumTile; 2]; U],
        mut between: impl FnMut(),
    ) {
        const { assert!(U == 1 || U == 2, "there are tiles for one or two units of values") };
        for rows in values {
            rows.check(codes.len());
        }
        // With one unit the second is the first again, in the same place: not read.
        let [first, second] = [values[0], values[U - 1]];
        debug_assert_eq!(first.stride, second.stride, "units of one batch");
        let (sums, line, stride) = (sums.as_mut_ptr(), STEP_COLS, first.stride);
        // Tiles 0..4 are sums, [unit][half]; 4 and 5 values of the units; 6 and 7 halves of codes.
        match (fresh, U) {
            // SAFETY: the tiles are configured for this thread, because a `Configured` exists and
            // cannot leave it; no memory is touched.
            (true, _) => unsafe {
                tiles!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", ;);
            },
            // SAFETY: configured, as a `Configured` exists; reads the sums, 2 KiB for each of two.
            (false, 2) => unsafe {
                tiles!(
                    "tileloadd tmm0, [{sums} + {line}*1]",
                    "tileloadd tmm1, [{sums} + {line}*1 + 1024]",
                    "tileloadd tmm2, [{sums} + {line}*1 + 2048]",
                    "tileloadd tmm3, [{sums} + {line}*1 + 3072]",
                    ; sums = in(reg) sums, line = in(reg) line,
                );
            },
            // SAFETY: configured, as a `Configured` exists; reads the 2 KiB of sums.
            (false, _) => unsafe {
                tiles!(
                    "tileloadd tmm0, [{sums} + {line}*1]",
                    "tileloadd tmm1, [{sums} + {line}*1 + 1024]",
                    ; sums = in(reg) sums, line = in(reg) line,
                );
            },
        }
        for (step, codes) in codes.iter().enumerate() {
            let [first, second] =
                [first, second].map(|rows| rows.values[step * STEP_COLS..].as_ptr());
            let codes = codes.as_ptr();
            if U == 2 {
                // SAFETY: configured, as a `Configured` exists; reads stay inside of `values`, by
                // `check`, and of the 2 KiB of a step's codes.
                unsafe {
                    tiles!(
                        "tileloadd tmm4, [{first} + {stride}*1]",
                        "tileloadd tmm6, [{codes} + {line}*1]",
                        "tdpbsud tmm0, tmm4, tmm6",
                        "tileloadd tmm7, [{codes} + {line}*1 + 1024]",
                        "tdpbsud tmm1, tmm4, tmm7",
                        "tileloadd tmm5, [{second} + {stride}*1]",
                        "tdpbsud tmm2, tmm5, tmm6",
                        "tdpbsud tmm3, tmm5, tmm7",
                        ; first = in(reg) first, second = in(reg) second, stride = in(reg) stride,
                        codes = in(reg) codes, line = in(reg) line,
                    );
                }
            } else {
                // SAFETY: configured, as a `Configured` exists; reads stay inside of `values`, by
                // `check`, and of the 2 KiB of a step's codes.
                unsafe {
                    tiles!(
                        "tileloadd tmm4, [{first} + {stride}*1]",
                        "tileloadd tmm6, [{codes} + {line}*1]",
                        "tdpbsud tmm0, tmm4, tmm6",
                        "tileloadd tmm7, [{codes} + {line}*1 + 1024]",
                        "tdpbsud tmm1, tmm4, tmm7",
                        ; first = in(reg) first, stride = in(reg) stride,
                        codes = in(reg) codes, line = in(reg) line,
                    );
                }
            }
            between();
        }
        if U == 2 {
            // SAFETY: configured, as a `Configured` exists; writes the sums, 2 KiB for each of two.
            unsafe {
                tiles!(
                    "tilestored [{sums} + {line}*1], tmm0",
                    "tilestored [{sums} + {line}*1 + 1024], tmm1",
                    "tilestored [{sums} + {line}*1 + 2048], tmm2",
                    "tilestored [{sums} + {line}*1 + 3072], tmm3",
                    ; sums = in(reg) sums, line = in(reg) line,
                );
            }
        } else {
            // SAFETY: configured, as a `Configured` exists; writes the 2 KiB of sums.
            unsafe {
                tiles!(
                    "tilestored [{sums} + {line}*1], tmm0",
                    "tilestored [{sums} + {line}*1 + 1024], tmm1",
                    ; sums = in(reg) sums, line = in(reg) line,
                );
            }
        }
    }
}

/// Whether the CPU has the tiles and the operating system lets this process use them.
///
/// Asks once; Linux grants tiles to a process that asks, and keeps the state of the threads that
/// use them.
#[cfg(all(any(test, feature = "std"), target_os = "linux"))]
pub(super) fn granted() -> bool {
    use std::sync::OnceLock;
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| cpu_has_tiles() && linux_grants_tiles())
}

/// No instruction asks the operating system: only the caller can know.
#[cfg(not(all(any(test, feature = "std"), target_os = "linux")))]
pub(super) fn granted() -> bool {
    false
}

#[cfg(all(any(test, feature = "std"), target_os = "linux"))]
fn cpu_has_tiles() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    const XSAVE_ENABLED: u32 = 1 << 27; // leaf 1, ECX
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25; // leaf 7, EDX
    const TILE_STATES: u32 = 1 << 17 | 1 << 18; // XCR0
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & XSAVE_ENABLED == 0 {
        return false;
    }
    let has = |bits: u32, all: u32| bits & all == all;
    if !has(__cpuid_count(7, 0).edx, TILE_AND_INT8) {
        return false;
    }
    let states: u32;
    // SAFETY: the instruction exists, as leaf 1 has said that the system enabled XSAVE; it only
    // reads register 0.
    unsafe {
        asm!(
            "xgetbv",
            in("ecx") 0,
            out("eax") states,
            out("edx") _,
            options(nostack, nomem, preserves_flags),
        );
    }
    has(states, TILE_STATES)
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`: for the whole process, from Linux 5.16.
#[cfg(all(any(test, feature = "std"), target_os = "linux"))]
fn linux_grants_tiles() -> bool {
    const SYS_ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let answer: isize;
    // SAFETY: the system call reads and writes no memory of this process; an unknown one, or one
    // that is refused, returns an error number. RCX and R11 are the kernel's.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// The tile unit as its manual describes it, for CPUs without one.
#[cfg(test)]
pub(super) struct Model;

#[cfg(test)]
impl TileUnit for Model {
    fn multiply<const U: usize>(
        &self,
        values: [ValueRows<'_>; U],
        codes: &[[CodeTile; 2]],
        fresh: bool,
        sums: &mut [[SumTile; 2]; U],
        mut between: impl FnMut(),
    ) {
        codes.iter().for_each(|_| between());
        for (rows, sums) in values.into_iter().zip(sums) {
            rows.check(codes.len());
            for (half, SumTile(sums)) in sums.iter_mut().enumerate() {
                if fresh {
                    *sums = [[0; SIDE]; SIDE];
                }
                for (step, codes) in codes.iter().enumerate() {
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let row = &rows.values[m * rows.stride + step * STEP_COLS..][..STEP_COLS];
                        for (n, sum) in sums.iter_mut().enumerate() {
                            for (k, four) in row.as_chunks::<4>().0.iter().enumerate() {
                                for (i, value) in four.iter().enumerate() {
                                    let code = codes[half].0[k][4 * n + i];
                                    *sum = sum.wrapping_add(i32::from(*value) * i32::from(code));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
