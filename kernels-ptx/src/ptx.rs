//! Reads what a loader needs to know out of PTX text: version, target, entries.
//!
//! It reads the whole text once, as tokens, and understands only the heads; it allocates nothing
//! and accepts what NVRTC and nvcc print as well as what a person would write. It is no verifier:
//! the driver's assembler has the last word.

use core::fmt;

use crate::contract::KernelSpec;

mod scan;

use scan::{Head, Heads, parse_u32};

/// Version of the PTX instruction set. A driver takes PTX up to the version it was released with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Before the point.
    pub major: u32,
    /// After the point.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a GPU can do, as the driver numbers it: an A100 is 8.0, an H100 is 9.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComputeCapability {
    /// Generation.
    pub major: u32,
    /// Member of the generation, 0..10.
    pub minor: u32,
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The GPU that PTX was compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The capability in the target's name: `sm_80` is 8.0.
    pub capability: ComputeCapability,
    /// Whether the name ends in `a`: such PTX runs on this capability and on no later one.
    pub exact: bool,
}

impl Target {
    /// Every NVIDIA GPU since 2020.
    pub const SM_80: Self =
        Self { capability: ComputeCapability { major: 8, minor: 0 }, exact: false };

    /// GPUs whose kernels can start before the one ahead of them has ended.
    pub const SM_90: Self =
        Self { capability: ComputeCapability { major: 9, minor: 0 }, exact: false };

    /// H100, H200 and their like, with instructions that no other generation has.
    pub const SM_90A: Self =
        Self { capability: ComputeCapability { major: 9, minor: 0 }, exact: true };

    /// Whether PTX for this target runs on `device`.
    #[must_use]
    pub fn runs_on(self, device: ComputeCapability) -> bool {
        if self.exact { device == self.capability } else { device >= self.capability }
    }

    /// Whether kernels for this target are begun while the one before them runs, and wait for it
    /// by themselves (`griddepcontrol`, PTX 7.8).
    #[must_use]
    pub fn begins_early(self) -> bool {
        self.capability >= Self::SM_90.capability
    }

    fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("sm_")?;
        let (digits, exact) = match digits.strip_suffix('a') {
            Some(digits) => (digits, true),
            None => (digits, false),
        };
        let number = parse_u32(digits)?;
        let capability = ComputeCapability { major: number / 10, minor: number % 10 };
        Some(Self { capability, exact })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ComputeCapability { major, minor } = self.capability;
        write!(f, "sm_{major}{minor}{}", if self.exact { "a" } else { "" })
    }
}

/// A parameter of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Bytes.
    pub size: usize,
    /// Bytes.
    pub alignment: usize,
}

/// Head of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name by which the driver finds it.
    pub name: &'a str,
    /// How many parameters it takes.
    pub parameters: usize,
    /// The first of them.
    pub argument: Option<Parameter>,
    /// Threads in a block at most (`.maxntid`) or exactly (`.reqntid`), along x, y and z.
    pub threads: Option<[u32; 3]>,
}

/// PTX text whose head and entries have been read without an error.
#[derive(Clone, Copy, Debug)]
pub struct Ptx<'a> {
    text: &'a str,
    version: Version,
    target: Target,
}

impl<'a> Ptx<'a> {
    /// Reads `text`.
    ///
    /// # Errors
    ///
    /// [`PtxError`] when `.version` or `.target` is missing or a head cannot be read.
    pub fn parse(text: &'a str) -> Result<Self, PtxError> {
        let mut heads = Heads::new(text);
        let mut version = None;
        let mut target = None;
        while let Some(head) = heads.next()? {
            match head {
                Head::Version(found) => version = version.or(Some(found)),
                Head::Target(found) => target = target.or(Some(found)),
                Head::Entry(_) | Head::External(_) => {}
            }
        }
        let version = version.ok_or(PtxError::Missing { directive: ".version" })?;
        let target = target.ok_or(PtxError::Missing { directive: ".target" })?;
        Ok(Self { text, version, target })
    }

    /// The instruction set it is written in.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The GPU it is for.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// Its kernels, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.heads()
            .filter_map(|head| if let Head::Entry(entry) = head { Some(entry) } else { None })
    }

    /// Names of functions and variables that it expects another module to define.
    ///
    /// Shared memory sized at launch (`.extern .shared`) is none of them.
    pub fn externals(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.heads()
            .filter_map(|head| if let Head::External(name) = head { Some(name) } else { None })
    }

    fn heads(&self) -> impl Iterator<Item = Head<'a>> + use<'a> {
        let mut heads = Heads::new(self.text);
        // `parse` has been through the same text to its end, so no error ends this early.
        core::iter::from_fn(move || heads.next().ok().flatten())
    }

    /// The note `name` that `build-ptx` left in the comments at the top: `// tercet-<name>: value`.
    #[must_use]
    pub fn note(&self, name: &str) -> Option<&'a str> {
        self.text.lines().map_while(|line| line.strip_prefix("// tercet-")).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            (key == name).then_some(value)
        })
    }

    /// Checks this PTX against the contract of the kernels it should hold.
    ///
    /// Each has its entry and there is no other; an entry takes the argument block, of the same
    /// size and alignment, as its only parameter, and promises to run in blocks of that number of
    /// threads or more; nothing is left to link. From capability 9.0 on it waits for the kernel
    /// before it (`griddepcontrol.wait`), since it is begun while that one runs. What types and
    /// order the fields have is not in the PTX: for that the fingerprint vouches, see the README.
    ///
    /// # Errors
    ///
    /// The first [`Drift`] found.
    pub fn keeps(&self, contract: &[KernelSpec]) -> Result<(), Drift<'a>> {
        if let Some(symbol) = self.externals().next() {
            return Err(Drift::External { symbol });
        }
        for spec in contract {
            let entry = self
                .entries()
                .find(|entry| entry.name == spec.entry)
                .ok_or(Drift::Missing { entry: spec.entry })?;
            let (1, Some(argument)) = (entry.parameters, entry.argument) else {
                return Err(Drift::Parameters { entry: spec.entry, got: entry.parameters });
            };
            let expected = Parameter { size: spec.size, alignment: spec.alignment };
            if argument != expected {
                return Err(Drift::Argument { entry: spec.entry, expected, got: argument });
            }
            let expected = [spec.threads, 1, 1];
            let room = |[x, y, z]: [u32; 3]| x >= spec.threads && [y, z] == [1, 1];
            if !entry.threads.is_some_and(room) {
                let got = entry.threads;
                return Err(Drift::Threads { entry: spec.entry, expected, got });
            }
        }
        if self.target.begins_early() && !self.text.contains("griddepcontrol.wait;") {
            return Err(Drift::NoWait { target: self.target });
        }
        let known = |entry: &Entry<'_>| contract.iter().any(|spec| spec.entry == entry.name);
        match self.entries().find(|entry| !known(entry)) {
            Some(entry) => Err(Drift::Unknown { entry: entry.name }),
            None => Ok(()),
        }
    }
}

/// Why a text was not read as PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PtxError {
    /// The text has no such directive.
    Missing {
        /// The directive.
        directive: &'static str,
    },
    /// A head is not what PTX allows there.
    Malformed {
        /// Line in the text, from 1.
        line: usize,
        /// What was looked for.
        wanted: &'static str,
    },
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { directive } => write!(f, "not PTX: no `{directive}` in it"),
            Self::Malformed { line, wanted } => write!(f, "PTX line {line}: expected {wanted}"),
        }
    }
}

impl core::error::Error for PtxError {}

/// How a PTX differs from the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drift<'a> {
    /// The contract has a kernel that the PTX lacks.
    Missing {
        /// Its entry.
        entry: &'static str,
    },
    /// The PTX has a kernel that the contract lacks.
    Unknown {
        /// Its entry.
        entry: &'a str,
    },
    /// A kernel takes no parameter or several.
    Parameters {
        /// Its entry.
        entry: &'static str,
        /// How many it takes.
        got: usize,
    },
    /// A kernel's parameter is not its argument block.
    Argument {
        /// Its entry.
        entry: &'static str,
        /// The block in the contract.
        expected: Parameter,
        /// The parameter in the PTX.
        got: Parameter,
    },
    /// A kernel was compiled for blocks of another shape.
    Threads {
        /// Its entry.
        entry: &'static str,
        /// Threads in the contract.
        expected: [u32; 3],
        /// Threads in the PTX.
        got: Option<[u32; 3]>,
    },
    /// It would compute with what the kernel before it has not written yet.
    NoWait {
        /// What it is for.
        target: Target,
    },
    /// The PTX cannot be loaded on its own.
    External {
        /// What it wants to be linked with.
        symbol: &'a str,
    },
}

impl fmt::Display for Drift<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { entry } => write!(f, "the PTX has no entry `{entry}`"),
            Self::Unknown { entry } => write!(f, "the contract has no kernel `{entry}`"),
            Self::Parameters { entry, got } => {
                write!(f, "`{entry}` takes {got} parameters, expected one argument block")
            }
            Self::Argument { entry, expected, got } => write!(
                f,
                "`{entry}` takes {} bytes aligned to {}, expected {} aligned to {}",
                got.size, got.alignment, expected.size, expected.alignment
            ),
            Self::Threads { entry, expected, got: Some(got) } => {
                write!(f, "`{entry}` runs in blocks of {got:?} threads, expected {expected:?}")
            }
            Self::Threads { entry, expected, got: None } => {
                write!(f, "`{entry}` states no launch bound, expected {expected:?} threads")
            }
            Self::NoWait { target } => {
                write!(f, "the PTX for {target} does not wait for the kernel before it")
            }
            Self::External { symbol } => {
                write!(f, "the PTX has to be linked with something that defines `{symbol}`")
            }
        }
    }
}

impl core::error::Error for Drift<'_> {}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::*;

    const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

    /// Parameters, the first of them, threads.
    type Head = (usize, Option<Parameter>, Option<[u32; 3]>);

    fn entry(body: &str) -> Result<Head, PtxError> {
        let text = format!("{HEAD}{body}");
        let mut entries = Ptx::parse(&text)?.entries();
        let Entry { name, parameters, argument, threads } = entries.next().unwrap();
        assert_eq!((name, entries.next()), ("k", None), "{body}");
        Ok((parameters, argument, threads))
    }

    #[test]
    fn head_is_read_past_comments_of_both_kinds() {
        let text =
            "// .version 1.0\n/* .target sm_20\n */ .version 8.4 // x\n.target sm_90a, debug";
        let ptx = Ptx::parse(text).unwrap();
        assert_eq!(ptx.version(), Version { major: 8, minor: 4 });
        let capability = ComputeCapability { major: 9, minor: 0 };
        assert_eq!(ptx.target(), Target { capability, exact: true });
    }

    #[test]
    fn target_reads_as_it_is_written() {
        for name in ["sm_80", "sm_86", "sm_90a", "sm_100", "sm_120a"] {
            assert_eq!(Target::parse(name).unwrap().to_string(), name);
        }
        for name in ["sm_", "sm_8x", "compute_80", "sm_+80", "sm_99999999999"] {
            assert_eq!(Target::parse(name), None, "{name}");
        }
    }

    #[test]
    fn target_runs_on_later_devices_unless_exact() {
        let at = |major, minor| ComputeCapability { major, minor };
        assert!(!Target::SM_80.runs_on(at(7, 5)));
        assert!(Target::SM_80.runs_on(at(8, 0)) && Target::SM_80.runs_on(at(12, 0)));
        let hopper = Target { capability: at(9, 0), exact: true };
        assert!(hopper.runs_on(at(9, 0)) && !hopper.runs_on(at(10, 0)));
    }

    #[test]
    fn block_by_value_is_read() {
        let block = Some(Parameter { size: 48, alignment: 8 });
        let body = ".visible .entry k(\n\t.param .align 8 .b8 k_param_0[48]\n)\n\
                    .maxntid 256, 1, 1\n.minnctapersm 2\n{ ret; }";
        assert_eq!(entry(body), Ok((1, block, Some([256, 1, 1]))));
        // As newer toolkits print it.
        let body = ".entry k ( .param .align 8 .b8 k_param_0[48] ) .maxntid 256 { ret; }";
        assert_eq!(entry(body), Ok((1, block, Some([256, 1, 1]))));
    }

    #[test]
    fn scalars_and_pointers_are_read() {
        let pointer = Some(Parameter { size: 8, alignment: 8 });
        let body = ".entry k(.param .u64 .ptr .global .align 16 a, .param .u32 b) { ret; }";
        assert_eq!(entry(body), Ok((2, pointer, None)));
        let four = Some(Parameter { size: 12, alignment: 4 });
        assert_eq!(entry(".entry k(.param .f32 a[3]) { ret; }"), Ok((1, four, None)));
        assert_eq!(entry(".entry k { ret; }"), Ok((0, None, None)));
        assert_eq!(entry(".entry k() .reqntid 16, 16 { ret; }"), Ok((0, None, Some([16, 16, 1]))));
    }

    #[test]
    fn bodies_are_skipped() {
        let body = ".entry k() { { .pragma \".entry x() {\"; } // .entry y()\n /* } */ }\n\
                    .func f() { .reg .b32 r; }";
        assert_eq!(entry(body), Ok((0, None, None)));
    }

    #[test]
    fn externals_are_found_except_shared_memory() {
        let body = ".extern .shared .align 16 .b8 pool[];\n\
                    .extern .func (.param .b32 result) vprintf (.param .b64 a);\n\
                    .extern .global .align 4 .b8 table[16];";
        let text = format!("{HEAD}{body}");
        assert!(Ptx::parse(&text).unwrap().externals().eq(["vprintf", "table"]), "{text}");
    }

    #[test]
    fn notes_end_with_the_first_other_line() {
        let text = "// tercet-a: 1\n// tercet-b: two words\n//\n// tercet-c: 3\n\
                    .version 8.0 .target sm_80";
        let ptx = Ptx::parse(text).unwrap();
        assert_eq!((ptx.note("a"), ptx.note("b")), (Some("1"), Some("two words")));
        assert_eq!(ptx.note("c"), None);
    }

    #[test]
    fn damage_is_an_error_or_a_smaller_text() {
        let text = format!(
            "{HEAD}.extern .func f (.param .b32 a);\n.visible .entry k(\n\t.param .align 8 .b8 \
             k_param_0[48]\n)\n.maxntid 256, 1, 1\n{{ /* \u{e9} */ .pragma \"x\"; ret; }}"
        );
        for cut in (0..text.len()).filter(|&cut| text.is_char_boundary(cut)) {
            if let Ok(ptx) = Ptx::parse(&text[..cut]) {
                assert_eq!(ptx.entries().count(), 0, "a kernel without its end: {cut}");
            }
            let changed = format!("{}\u{fffd}{}", &text[..cut], &text[cut..]);
            let entries = Ptx::parse(&changed).map(|ptx| ptx.entries().count());
            assert!(entries.unwrap_or(0) <= 1, "{changed}");
        }
    }

    #[test]
    fn what_is_no_ptx_is_an_error_with_its_line() {
        let missing = |directive| Err(PtxError::Missing { directive });
        assert_eq!(Ptx::parse("").map(|_| ()), missing(".version"));
        assert_eq!(Ptx::parse(".version 8.0").map(|_| ()), missing(".target"));
        for body in [
            ".entry",
            ".entry (",
            ".entry k(",
            ".entry k(.param",
            ".entry k(.param .b8",
            ".entry k(.param .align x .b8 p)",
            ".entry k(.param p) {}",
            ".entry k(.param .b8 p[",
            ".entry k(.param .b8 p[-1]) {}",
            ".entry k(.param .b64 p[9999999999999999999]) {}",
            ".entry k(.param .b64 p[2305843009213693952]) {}",
            ".entry k(,) {}",
            ".entry k()",
            ".entry k() .maxntid {}",
            ".entry k() .maxntid 1, {}",
            ".entry k() {",
            "}",
            ".extern .func",
            ".extern ;",
            ".target \u{e9}",
            ".version 8",
        ] {
            let result = Ptx::parse(&format!("{HEAD}{body}")).map(|_| ());
            assert!(
                matches!(result, Err(PtxError::Malformed { line: 4, .. })),
                "{body}: {result:?}"
            );
        }
    }
}
