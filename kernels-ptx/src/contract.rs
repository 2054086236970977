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

scalars!(i8 u8 u16 i32 u32 f32 f64);

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
    /// The kernels that take this block, at least one.
    const SPECS: &'static [KernelSpec];
    /// The first of them.
    const SPEC: KernelSpec = Self::SPECS[0];
}

/// Declares kernels with their argument blocks.
///
/// `fn entry, ...[threads](Block { fields }) where { constants }` becomes a `#[repr(C)]` struct
/// `Block` with the constants and `THREADS` in its `impl`, an [`ArgumentBlock`] implementation, and
/// a line of the module's `KERNELS` for every entry: entries of one block are one operation,
/// compiled for several types or sizes. `entry: threads` has other threads than the rest.
macro_rules! kernels {
    (@threads $block:ident $own:literal) => { $own };
    (@threads $block:ident) => { Self::THREADS };
    ($(
        $(#[doc = $doc:literal])*
        fn $($entry:ident $(: $own:literal)?),+ [$threads:literal]($block:ident {
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
                /// Threads of a thread block, all of them along x, where an entry has none of its
                /// own.
                pub const THREADS: u32 = $threads;
                $($(#[doc = $constant_doc])* pub const $constant: u32 = $value;)*

                const fn spec(entry: &'static str, threads: u32) -> KernelSpec {
                    KernelSpec {
                        entry,
                        block: stringify!($block),
                        threads,
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
                    }
                }
            }

            impl sealed::Sealed for $block {}
            impl ArgumentBlock for $block {
                const SPECS: &'static [KernelSpec] = &[$(Self::spec(
                    stringify!($entry),
                    kernels!(@threads $block $($own)?),
                )),+];
            }

            const _: () = <$block as ArgumentBlock>::SPEC.assert_packed();
        )+

        /// The blocks of this module, in the order of the header.
        pub(super) const BLOCKS: &[&[KernelSpec]] = &[$(<$block as ArgumentBlock>::SPECS),+];
    };
}

mod decode;
mod floats;
mod measure;
mod ternary;

pub use decode::{DecodeAttendArgs, DecodeLayersArgs, DecodeLinearArgs};
pub use floats::{
    AttendRowsArgs, AttendRowsExactArgs, AttendRowsHopperArgs, ChooseArgs, EmbedArgs,
    FloatLinearArgs, FloatLinearHopperArgs, NormalizeArgs, RopeStoreArgs, TileWeightsArgs,
};
pub use measure::ReadMemoryArgs;
pub use ternary::{LinearArgs, QuantizeArgs};

/// The kernel `entry` of those that take block `B`.
///
/// # Panics
///
/// When there is none: at compile time, where it is used for a table.
#[must_use]
pub(crate) const fn spec_of<B: ArgumentBlock>(entry: &str) -> KernelSpec {
    let mut at = 0;
    while at < B::SPECS.len() {
        if equal(B::SPECS[at].entry.as_bytes(), entry.as_bytes()) {
            return B::SPECS[at];
        }
        at += 1;
    }
    panic!("no kernel of this block has that name")
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// Every kernel, in the order of the header.
pub const KERNELS: &[KernelSpec] = &joined::<{ count(&GROUPS) }>(&GROUPS);

const GROUPS: [&[&[KernelSpec]]; 4] =
    [ternary::BLOCKS, floats::BLOCKS, decode::BLOCKS, measure::BLOCKS];

const fn count(groups: &[&[&[KernelSpec]]]) -> usize {
    let (mut total, mut group) = (0, 0);
    while group < groups.len() {
        let mut block = 0;
        while block < groups[group].len() {
            total += groups[group][block].len();
            block += 1;
        }
        group += 1;
    }
    total
}

const fn joined<const N: usize>(groups: &[&[&[KernelSpec]]]) -> [KernelSpec; N] {
    let mut all = [QuantizeArgs::SPEC; N];
    let (mut at, mut group) = (0, 0);
    while group < groups.len() {
        let mut block = 0;
        while block < groups[group].len() {
            let mut entry = 0;
            while entry < groups[group][block].len() {
                all[at] = groups[group][block][entry];
                at += 1;
                entry += 1;
            }
            block += 1;
        }
        group += 1;
    }
    all
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
         using u8 = unsigned char;\n\
         using u16 = unsigned short;\n\
         using i32 = int;\n\
         using u32 = unsigned int;\n\
         using f32 = float;\n\
         using f64 = double;\n\
         static_assert(sizeof(i8) == 1 && sizeof(u8) == 1 && sizeof(u16) == 2, \"numbers\");\n\
         static_assert(sizeof(i32) == 4 && sizeof(u32) == 4, \"numbers\");\n\
         static_assert(sizeof(f32) == 4 && sizeof(f64) == 8, \"numbers\");\n\
         static_assert(sizeof(void *) == 8, \"pointers\");\n\
         \n",
    )?;
    writeln!(out, "constexpr u32 CONTRACT_VERSION = {CONTRACT_VERSION};")?;
    let mut last = None;
    for kernel in kernels {
        let KernelSpec { entry, block, threads, size, alignment, .. } = kernel;
        // Entries of one block stand side by side; the first of them declares it.
        if last == Some(block) {
            writeln!(out, "extern \"C\" __global__ void {entry}({block} args);")?;
            continue;
        }
        last = Some(block);
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

    const EMBED: KernelSpec = EmbedArgs::SPEC;

    #[test]
    fn block_is_laid_out_as_c_does() {
        assert_eq!((EMBED.size, EMBED.alignment), (64, 8));
        let offsets = EMBED.fields.iter().map(|field| field.offset);
        let expected = [0, 8, 16, 24, 32, 40, 44, 48, 52, 56, 60];
        assert!(offsets.eq(expected), "{:?}", EMBED.fields);
    }

    #[test]
    fn pointers_say_who_writes() {
        let types = |name| EMBED.fields.iter().find(|f| f.name == name).unwrap().ty;
        assert_eq!(types("tokens"), ArgumentType::Pointer { to: "u32", written: false });
        assert_eq!(types("hidden"), ArgumentType::Pointer { to: "f32", written: true });
        assert_eq!(types("cols"), ArgumentType::Value { name: "u32" });
    }

    #[test]
    #[should_panic(expected = "padding after the last field")]
    fn padding_at_the_end_is_refused() {
        let fields = &EMBED.fields[..10];
        KernelSpec { fields, ..EMBED }.assert_packed();
    }

    #[test]
    #[should_panic(expected = "padding before a field")]
    fn padding_between_fields_is_refused() {
        let fields = &EMBED.fields[1..];
        KernelSpec { fields, ..EMBED }.assert_packed();
    }
}
