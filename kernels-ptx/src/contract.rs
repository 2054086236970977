//! The contract between Rust and CUDA, written once.
//!
//! A kernel takes one argument block, by value. The macro `kernels!` declares the block and yields
//! the `#[repr(C)]` struct, a [`KernelSpec`] that describes it, and, through [`write_header`], the
//! C header that the kernel includes. The header asserts every offset again when the PTX is built,
//! and [`Ptx::keeps`](crate::ptx::Ptx::keeps) compares the built PTX with the same table.

use core::fmt;
use core::marker::PhantomData;

/// Version of everything a caller of the kernels relies on: entries, argument blocks, layouts.
///
/// Raised with every change after which a host and a PTX of different ages would misunderstand
/// each other. It is printed into the header and into the head of every PTX.
pub const CONTRACT_VERSION: u32 = 1;

mod sealed {
    pub trait Sealed {}
}

/// A number that means the same in Rust and in CUDA.
pub trait Scalar: sealed::Sealed + Copy + fmt::Debug + PartialEq {
    /// The name in the header.
    const NAME: &'static str;
}

macro_rules! scalars {
    ($($scalar:ident)*) => {$(
        impl sealed::Sealed for $scalar {}
        impl Scalar for $scalar {
            const NAME: &'static str = stringify!($scalar);
        }
        impl Argument for $scalar {
            const TYPE: ArgumentType = ArgumentType::Value { name: stringify!($scalar) };
        }
    )*};
}

/// What a field of an argument block can be.
pub trait Argument: sealed::Sealed {
    /// How the header spells it.
    const TYPE: ArgumentType;
}

scalars!(i8 i32 u32 f32);

/// Address in device memory of numbers that the kernel reads.
///
/// Eight bytes, aligned to eight on every host. It carries no length and no lifetime: whoever
/// launches the kernel proves both.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct DevicePtr<T: Scalar> {
    address: u64,
    element: PhantomData<fn() -> T>,
}

/// Address in device memory of numbers that the kernel writes; otherwise as [`DevicePtr`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct DevicePtrMut<T: Scalar> {
    address: u64,
    element: PhantomData<fn() -> T>,
}

macro_rules! device_pointers {
    ($($pointer:ident: $written:literal)*) => {$(
        impl<T: Scalar> $pointer<T> {
            /// Names an address as the driver gave it (`CUdeviceptr`).
            #[must_use]
            pub const fn new(address: u64) -> Self {
                Self { address, element: PhantomData }
            }

            /// The address 0, where a field says that there may be nothing.
            #[must_use]
            pub const fn null() -> Self {
                Self::new(0)
            }

            /// The address.
            #[must_use]
            pub const fn address(self) -> u64 {
                self.address
            }
        }

        impl<T: Scalar> fmt::Debug for $pointer<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}<{}>({:#x})", stringify!($pointer), T::NAME, self.address)
            }
        }

        impl<T: Scalar> sealed::Sealed for $pointer<T> {}
        impl<T: Scalar> Argument for $pointer<T> {
            const TYPE: ArgumentType = ArgumentType::Pointer { to: T::NAME, written: $written };
        }
    )*};
}

device_pointers! {
    DevicePtr: false
    DevicePtrMut: true
}

/// Type of a field, as the header spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentType {
    /// A number.
    Value {
        /// Name of the number's type.
        name: &'static str,
    },
    /// An address in device memory.
    Pointer {
        /// Name of the type of the numbers it points to.
        to: &'static str,
        /// Whether the kernel writes them.
        written: bool,
    },
}

impl fmt::Display for ArgumentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Value { name } => f.write_str(name),
            Self::Pointer { to, written: true } => write!(f, "{to} *"),
            Self::Pointer { to, written: false } => write!(f, "const {to} *"),
        }
    }
}

/// One field of an argument block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name on both sides.
    pub name: &'static str,
    /// Its type.
    pub ty: ArgumentType,
    /// Bytes from the start of the block.
    pub offset: usize,
    /// Bytes it takes.
    pub size: usize,
    /// Its documentation, a line each.
    pub doc: &'static [&'static str],
}

/// A number that the kernel is compiled with and its caller has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// Its name on both sides.
    pub name: &'static str,
    /// Its value.
    pub value: u32,
    /// Its documentation, a line each.
    pub doc: &'static [&'static str],
}

/// Everything the two sides must agree on about one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSpec {
    /// Name of the entry, of its `.cu` file and of its PTX.
    pub entry: &'static str,
    /// Name of the argument block's type.
    pub block: &'static str,
    /// Threads of a thread block, all of them along x.
    pub threads: u32,
    /// Bytes of the argument block.
    pub size: usize,
    /// Alignment of the argument block in bytes.
    pub alignment: usize,
    /// Fields of the argument block in order, without holes.
    pub fields: &'static [Field],
    /// Numbers the kernel is compiled with.
    pub constants: &'static [Constant],
    /// Its documentation, a line each.
    pub doc: &'static [&'static str],
}

impl KernelSpec {
    /// The same contract for another entry.
    #[must_use]
    pub const fn named(self, entry: &'static str) -> Self {
        Self { entry, ..self }
    }

    /// Refuses a block with padding: a field added later could hide there, and the block of an
    /// older PTX would have the same size.
    const fn assert_packed(&self) {
        let mut filled = 0;
        let mut at = 0;
        while at < self.fields.len() {
            assert!(self.fields[at].offset == filled, "padding before a field");
            filled += self.fields[at].size;
            at += 1;
        }
        assert!(filled == self.size, "padding after the last field");
    }
}

/// The argument block of a kernel.
///
/// A value of it is what the driver copies as the kernel's only parameter. Sealed: blocks are
/// made by this crate, whose tests compare them with the PTX.
pub trait ArgumentBlock: sealed::Sealed + Copy {
    /// The kernel that takes this block, the first one where there are several.
    const SPEC: KernelSpec;
}

/// Declares kernels with their argument blocks.
///
/// `fn entry[threads](Block { fields }) where { constants }`, or `fn entry, another[..]..` where
/// several kernels take one block, becomes a `#[repr(C)]` struct `Block`
/// with the constants and `THREADS` in its `impl`, an [`ArgumentBlock`] implementation, and a line
/// of [`KERNELS`].
macro_rules! kernels {
    ($(
        $(#[doc = $doc:literal])*
        fn $entry:ident $(, $another:ident)*[$threads:literal]($block:ident {
            $($(#[doc = $field_doc:literal])* $field:ident: $ty:ty,)+
        }) where {
            $($(#[doc = $constant_doc:literal])* $constant:ident = $value:literal,)*
        }
    )+) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug, PartialEq)]
            #[repr(C)]
            pub struct $block {
                $($(#[doc = $field_doc])* pub $field: $ty,)+
            }

            impl $block {
                /// Threads of a thread block, all of them along x.
                pub const THREADS: u32 = $threads;
                $($(#[doc = $constant_doc])* pub const $constant: u32 = $value;)*
            }

            impl sealed::Sealed for $block {}
            impl ArgumentBlock for $block {
                const SPEC: KernelSpec = KernelSpec {
                    entry: stringify!($entry),
                    block: stringify!($block),
                    threads: Self::THREADS,
                    size: size_of::<Self>(),
                    alignment: align_of::<Self>(),
                    fields: &[$(Field {
                        name: stringify!($field),
                        ty: <$ty as Argument>::TYPE,
                        offset: core::mem::offset_of!(Self, $field),
                        size: size_of::<$ty>(),
                        doc: &[$($field_doc),*],
                    }),+],
                    constants: &[$(Constant {
                        name: stringify!($constant),
                        value: Self::$constant,
                        doc: &[$($constant_doc),*],
                    }),*],
                    doc: &[$($doc),*],
                };
            }

            const _: () = <$block as ArgumentBlock>::SPEC.assert_packed();
        )+

        /// Every kernel, in the order of the header.
        pub const KERNELS: &[KernelSpec] = &[$(
            <$block as ArgumentBlock>::SPEC,
            $(<$block as ArgumentBlock>::SPEC.named(stringify!($another)),)*
        )+];
    };
}

kernels! {
    /// `sums[row, b] = Σ_c values[b, c] · trit(row, c)`, exact in `i32`.
    ///
    /// Reference: `tercet_core::reference::gemm`. Grid: `launch::TernaryGemmShape::grid`.
    fn ternary_gemm[256](TernaryGemmArgs {
        /// `(rows / 16, cols / 32, 2, 2, 8)` words of sixteen codes, layout `tile16x32`,
        /// 16-byte aligned: rows 0..8 before 8..16, then columns 0..16 before 16..32, then the
        /// row. Column `k` of a word has bits `8 · (k % 4) + 2 · (k / 4)`; code = trit + 2.
        /// No trit has code 0; the kernel counts it as -2.
        codes: DevicePtr<u32>,
        /// `(batch, stride)`, of each row the first `cols`; 16-byte aligned. Any `i8`.
        values: DevicePtr<i8>,
        /// `(batch)`: `Σ_c values[b, c]`.
        value_sums: DevicePtr<i32>,
        /// `(rows, batch)`; every element is written.
        sums: DevicePtrMut<i32>,
        /// Multiple of `TILE_ROWS`, at least one tile.
        rows: u32,
        /// Multiple of `TILE_COLS`, at least one tile, at most `COLS_MAX`.
        cols: u32,
        /// At least 1.
        batch: u32,
        /// Values from one row of `values` to the next: a multiple of 16, at least `cols`.
        stride: u32,
    }) where {
        /// Rows of a tile of codes, and of the output of one thread block.
        TILE_ROWS = 16,
        /// Columns of a tile of codes.
        TILE_COLS = 32,
        /// Rows of `values` that one thread block multiplies.
        BLOCK_BATCH = 4,
        /// `128 · 3 · COLS_MAX` and what is subtracted from it fit an `i32`.
        COLS_MAX = 4194304,
    }

    /// Rows of reals, normalised or as they are, become rows of INT8 values with a unit.
    ///
    /// Reference: `Activations::prepare` of the host's CPU, to the bit. Grid: a block a row.
    fn quantize[512](QuantizeArgs {
        /// `(rows, stride)`, of each row the first `cols`; 16-byte aligned.
        x: DevicePtr<f32>,
        /// `(cols)`: weight of the norm, 16-byte aligned; null: no norm.
        weight: DevicePtr<f32>,
        /// `(cols)`: bias of a layer norm, 16-byte aligned; null: an RMS norm.
        bias: DevicePtr<f32>,
        /// `(rows)`: `ABSENT` marks a row that pads the step, whose values, unit and sum become 0;
        /// null: no row does.
        positions: DevicePtr<u32>,
        /// `(col_tiles, row_blocks, 8, 128)`, 1024-byte aligned: value `(row, col)` stands in tile
        /// `col / 128`, block `row / 8`, line `row % 8`, and there in byte
        /// `16 · (col / 16 % 8 ^ row % 8) + col % 16`: as tensor cores like to find it in shared
        /// memory. Columns from `cols` on become 0; lines beyond `rows` are left alone.
        values: DevicePtrMut<i8>,
        /// `(8 · row_blocks)`: what value 1 is worth, to multiply by.
        row_units: DevicePtrMut<f32>,
        /// `(8 · row_blocks)`: the sum of a row's values.
        value_sums: DevicePtrMut<i32>,
        /// At least 1; the grid's blocks beyond it do nothing.
        rows: u32,
        /// Multiple of 4, at least 4, at most `COLS_MAX`.
        cols: u32,
        /// Reals from one row of `x` to the next: a multiple of 4.
        stride: u32,
        /// At least `rows / 8`, rounded up.
        row_blocks: u32,
        /// `cols / 128`, rounded up.
        col_tiles: u32,
        /// Added to the mean square.
        eps: f32,
    }) where {
        /// Widest row.
        COLS_MAX = 131072,
        /// The position that no row has.
        ABSENT = 4294967295,
    }

    /// A ternary linear over the rows of a step and what follows it, exact up to its last roundings.
    ///
    /// `value = (Σ_c values[row, c] · trit(feature, c) · row_unit) · unit + bias`; `finish` says
    /// what becomes of it. Reference: `Linear::run` of the host's CPU, to the bit. Grid:
    /// `launch::LinearShape::blocks`; shared memory: `launch::linear_shared_bytes`.
    /// The number in the name is the rows of the step that a block multiplies together:
    /// `launch::LinearShape::entry` chooses.
    fn linear_8, linear_16, linear_32, linear_64, linear_128[384](LinearArgs {
        /// `(row_tiles, col_tiles, 128)` words, layout `mma16x128`, 16-byte aligned.
        codes: DevicePtr<u32>,
        /// `(16 · row_tiles)`: what trit 1 is worth, to multiply by.
        units: DevicePtr<f32>,
        /// `(16 · row_tiles)`; null: no bias.
        bias: DevicePtr<f32>,
        /// As `quantize` writes them, with the same `row_blocks` and `col_tiles`.
        values: DevicePtr<i8>,
        /// As `quantize` writes them.
        row_units: DevicePtr<f32>,
        /// As `quantize` writes them.
        value_sums: DevicePtr<i32>,
        /// `(rows, out_stride)`: of each row `out_offset..out_offset + features` is written.
        out: DevicePtrMut<f32>,
        /// `launch::linear_workspace_words`, 16-byte aligned. The first `FLAGS` words are 0
        /// before a launch and after it. Launches that may overlap do not share it.
        workspace: DevicePtrMut<u32>,
        /// Features of the output: at most `16 · row_tiles`, and half of that for `GATED`.
        features: u32,
        /// Row tiles of `codes`; even for `GATED`.
        row_tiles: u32,
        /// Column tiles of `codes`.
        col_tiles: u32,
        /// Rows of the step, at least 1.
        rows: u32,
        /// Blocks of eight rows that `values` has room for.
        row_blocks: u32,
        /// Reals from one row of `out` to the next.
        out_stride: u32,
        /// The first feature's place in a row of `out`.
        out_offset: u32,
        /// `STORE`, `ADD`, `ACTIVATE` or `GATED`.
        finish: u32,
        /// `SILU`, `RELU2` or `RELU`; read by `ACTIVATE` and `GATED`.
        activation: u32,
        /// `launch::LinearShape::tile`: the number in the kernel's name. Another kernel does nothing.
        tile: u32,
    }) where {
        /// Words of `workspace` that blocks signal each other with: two a block.
        FLAGS = 2048,
        /// `out = value`.
        STORE = 0,
        /// `out += value`.
        ADD = 1,
        /// `out = activation(value)`.
        ACTIVATE = 2,
        /// `out = activation(gate) · up`; row tile `2i` holds 16 rows of the gate, `2i + 1` those
        /// of up.
        GATED = 3,
        /// `x / (1 + exp(-x))`.
        SILU = 0,
        /// `max(x, 0)²`.
        RELU2 = 1,
        /// `max(x, 0)`.
        RELU = 2,
        /// Largest tile of which two blocks fit a multiprocessor of capability 9.0 together, so
        /// that one fetches its codes while the one ahead of it ends.
        FEW = 16,
        /// Dynamic shared memory for capability 8.0.
        SHARED_SM_80 = 101376,
        /// Dynamic shared memory for capability 9.0, of tiles up to `FEW`.
        SHARED_FEW_SM_90 = 115712,
        /// Dynamic shared memory for capability 9.0, of larger tiles.
        SHARED_SM_90 = 232448,
    }
}

/// Writes the C header `cuda/contract.cuh` for `kernels`.
///
/// # Errors
///
/// Those of `out`.
pub fn write_header(kernels: &[KernelSpec], out: &mut impl fmt::Write) -> fmt::Result {
    out.write_str(
        "// Generated from src/contract.rs: change that, then run\n\
         // `UPDATE=1 cargo test -p tercet-kernels-ptx`.\n\
         #pragma once\n\
         \n\
         // NVRTC has no standard headers, but what they would use.\n\
         #ifdef __CUDACC_RTC__\n\
         #define offsetof(type, field) __INTADDR__(&static_cast<type *>(nullptr)->field)\n\
         #else\n\
         #include <cstddef>\n\
         #endif\n\
         \n\
         using i8 = signed char;\n\
         using i32 = int;\n\
         using u32 = unsigned int;\n\
         using f32 = float;\n\
         static_assert(sizeof(i8) == 1 && sizeof(i32) == 4 && sizeof(u32) == 4, \"numbers\");\n\
         static_assert(sizeof(f32) == 4, \"numbers\");\n\
         static_assert(sizeof(void *) == 8, \"pointers\");\n\
         \n",
    )?;
    writeln!(out, "constexpr u32 CONTRACT_VERSION = {CONTRACT_VERSION};")?;
    for (index, kernel) in kernels.iter().enumerate() {
        let KernelSpec { entry, block, threads, size, alignment, .. } = kernel;
        if kernels[..index].iter().any(|earlier| earlier.block == *block) {
            writeln!(out, "extern \"C\" __global__ void {entry}({block} args);")?;
            continue;
        }
        out.write_char('\n')?;
        write_doc(kernel.doc, "", out)?;
        writeln!(out, "struct {block} {{")?;
        writeln!(out, "    static constexpr u32 THREADS = {threads};")?;
        for Constant { name, value, doc } in kernel.constants {
            write_doc(doc, "    ", out)?;
            writeln!(out, "    static constexpr u32 {name} = {value};")?;
        }
        out.write_char('\n')?;
        for Field { name, ty, doc, .. } in kernel.fields {
            write_doc(doc, "    ", out)?;
            let space = if matches!(ty, ArgumentType::Value { .. }) { " " } else { "" };
            writeln!(out, "    {ty}{space}{name};")?;
        }
        out.write_str("};\n")?;
        writeln!(out, "static_assert(sizeof({block}) == {size}, \"{block}\");")?;
        writeln!(out, "static_assert(alignof({block}) == {alignment}, \"{block}\");")?;
        for Field { name, offset, .. } in kernel.fields {
            writeln!(out, "static_assert(offsetof({block}, {name}) == {offset}, \"{name}\");")?;
        }
        writeln!(out, "extern \"C\" __global__ void {entry}({block} args);")?;
    }
    Ok(())
}

fn write_doc(doc: &[&str], indent: &str, out: &mut impl fmt::Write) -> fmt::Result {
    doc.iter().try_for_each(|line| writeln!(out, "{indent}//{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERNARY_GEMM: KernelSpec = TernaryGemmArgs::SPEC;

    #[test]
    fn block_is_laid_out_as_c_does() {
        assert_eq!((TERNARY_GEMM.size, TERNARY_GEMM.alignment), (48, 8));
        let offsets = TERNARY_GEMM.fields.iter().map(|field| field.offset);
        assert!(offsets.eq([0, 8, 16, 24, 32, 36, 40, 44]), "{:?}", TERNARY_GEMM.fields);
    }

    #[test]
    fn pointers_say_who_writes() {
        let types = |name| TERNARY_GEMM.fields.iter().find(|f| f.name == name).unwrap().ty;
        assert_eq!(types("codes"), ArgumentType::Pointer { to: "u32", written: false });
        assert_eq!(types("sums"), ArgumentType::Pointer { to: "i32", written: true });
        assert_eq!(types("rows"), ArgumentType::Value { name: "u32" });
    }

    #[test]
    #[should_panic(expected = "padding after the last field")]
    fn padding_at_the_end_is_refused() {
        let fields = &TERNARY_GEMM.fields[..7];
        KernelSpec { fields, ..TERNARY_GEMM }.assert_packed();
    }

    #[test]
    #[should_panic(expected = "padding before a field")]
    fn padding_between_fields_is_refused() {
        let fields = &TERNARY_GEMM.fields[1..];
        KernelSpec { fields, ..TERNARY_GEMM }.assert_packed();
    }

    #[test]
    fn codes_times_values_fit() {
        let worst = 3 * 128 * i64::from(TernaryGemmArgs::COLS_MAX);
        let subtracted = 2 * 128 * i64::from(TernaryGemmArgs::COLS_MAX);
        assert!(worst <= i64::from(i32::MAX) && subtracted <= i64::from(i32::MAX), "{worst}");
    }
}
