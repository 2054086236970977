//! [`KernelSet`]: which PTX a GPU is given, the program's own or that of a model's file.
//!
//! A `.tercet` file carries the kernels that read its layout. They are code from wherever the file
//! comes from, so they are taken under a rule: every module is copied out of the mapping, the copy
//! is hashed, and that copy is what the driver gets, if the list of released kernels has the hash
//! under the contract of this program, or if the user trusts it. Otherwise the program's own
//! kernels of the contract are used. Trusted or not, a module must keep the contract: another size
//! of an argument block would be read past its end.

use core::fmt;
use std::borrow::Cow;

use sha2::{Digest, Sha256};
use tercet_kernels_ptx::contract::{ArgumentBlock as _, CONTRACT_VERSION, KERNELS, LinearArgs};
use tercet_kernels_ptx::launch::linear_entries;
use tercet_kernels_ptx::ptx::{ComputeCapability, Ptx, Target};
use tercet_kernels_ptx::released::{Released, released};
use tercet_kernels_ptx::{Kernel, kernels};

use crate::checkpoint::{Checkpoint, Dtype};

/// Prefix of the tensors of a `.tercet` file that hold PTX; the kernel's entry and target follow.
pub const TERCET_PTX_PREFIX: &str = "tercet.ptx.";
/// Metadata key whose value is the version of the contract that a file's kernels keep.
pub const TERCET_CONTRACT_KEY: &str = "tercet.kernels.contract";

/// Longest PTX taken from a file; ours have less than a tenth of it.
const PTX_BYTES_MAX: usize = 4 << 20;
/// Most modules taken from a file.
const MODULES_MAX: usize = 256;

/// A kernel's PTX and where it may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelText {
    /// Entry and target: `embed.sm_80`.
    pub name: String,
    /// The entry.
    pub entry: &'static str,
    /// The GPUs it runs on.
    pub target: Target,
    /// SHA-256 of the text.
    pub sha256: [u8; 32],
    ptx: Cow<'static, str>,
}

impl KernelText {
    fn builtin(kernel: &'static Kernel) -> Self {
        Self {
            name: name(kernel),
            entry: kernel.spec.entry,
            target: kernel.target,
            sha256: Sha256::digest(kernel.ptx).into(),
            ptx: Cow::Borrowed(kernel.ptx),
        }
    }

    /// The PTX, for [`Module::load`](super::driver::Module::load).
    #[must_use]
    pub fn ptx(&self) -> &str {
        &self.ptx
    }
}

/// What a file calls a kernel of ours.
#[must_use]
pub fn name(kernel: &Kernel) -> String {
    format!("{}.{}", kernel.spec.entry, kernel.target)
}

/// Where kernels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The program.
    Program,
    /// The model's file: every one of them is on the list.
    Released,
    /// The model's file: the user said so.
    Trusted,
}

/// Why the kernels of a file are not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Made for another program.
    #[error("they keep contract {}, this program needs {CONTRACT_VERSION}", found.as_deref().unwrap_or("unknown"))]
    Contract {
        /// What the file says.
        found: Option<String>,
    },
    /// Nobody knows it.
    #[error("`{name}` (SHA-256 {}) is on no list of released kernels", Hex(*sha256))]
    Unknown {
        /// The module.
        name: String,
        /// Its hash.
        sha256: [u8; 32],
    },
    /// Not what it says it is.
    #[error("`{name}` is damaged: {what}")]
    Damaged {
        /// The module.
        name: String,
        /// What is wrong.
        what: String,
    },
}

impl Refusal {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Contract { .. } => "convert the model again with this version of tercet",
            Self::Unknown { .. } => {
                "convert the model again, or give --trust-kernels if you know who made the file"
            }
            Self::Damaged { .. } => "download or convert the model again",
        }
    }
}

/// SHA-256 as digits.
#[derive(Debug, Clone, Copy)]
pub struct Hex(pub [u8; 32]);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The kernels of a session.
#[derive(Debug, Clone)]
pub struct KernelSet {
    texts: Vec<KernelText>,
    origin: Origin,
    refusal: Option<Refusal>,
}

impl KernelSet {
    /// The program's own.
    #[must_use]
    pub fn program() -> Self {
        let texts = kernels().iter().map(KernelText::builtin).collect();
        Self { texts, origin: Origin::Program, refusal: None }
    }

    /// Those of `checkpoint`, if it has any and the rule allows it; else the program's own, and
    /// [`KernelSet::refusal`] says why.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint, trust: bool) -> Self {
        let known = released().filter(|known| known.contract == CONTRACT_VERSION);
        Self::judged(checkpoint, trust, &known.collect::<Vec<_>>())
    }

    fn judged(checkpoint: &Checkpoint, trust: bool, known: &[Released<'_>]) -> Self {
        let found = checkpoint.metadata(TERCET_CONTRACT_KEY);
        let names: Vec<_> = checkpoint
            .tensor_names()
            .filter(|name| name.starts_with(TERCET_PTX_PREFIX))
            .take(MODULES_MAX)
            .collect();
        if names.is_empty() {
            return Self::program();
        }
        let copies = names.iter().map(|name| copied(checkpoint, name));
        match judge(found, copies, trust, known) {
            Ok((texts, origin)) => Self { texts, origin, refusal: None },
            Err(refusal) => Self { refusal: Some(refusal), ..Self::program() },
        }
    }

    /// Without linears of Hopper's own where not all of them are there: they are launched as one
    /// family, and those of the other go with any of the model's steps.
    #[must_use]
    pub fn with_whole_families(mut self) -> Self {
        let own = linear_entries(Target::SM_90A);
        let is_exact = |text: &KernelText| text.target == Target::SM_90A;
        let has =
            |entry: &&str| self.texts.iter().any(|text| is_exact(text) && text.entry == *entry);
        let is_whole = own.iter().all(has);
        let is_linear =
            |text: &KernelText| LinearArgs::SPECS.iter().any(|spec| spec.entry == text.entry);
        self.texts.retain(|text| {
            !is_exact(text) || !is_linear(text) || is_whole && own.contains(&text.entry)
        });
        self
    }

    /// Where they come from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Why those of the file are not these.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// All of them.
    #[must_use]
    pub fn texts(&self) -> &[KernelText] {
        &self.texts
    }

    /// Those that a GPU of `device` runs: what an older one would have to do with.
    #[must_use]
    pub fn of_device(&self, device: ComputeCapability) -> Self {
        let mut set = self.clone();
        set.texts.retain(|text| text.target.runs_on(device));
        set
    }

    /// The text of kernel `entry` for `device`: of several the one for the highest target.
    #[must_use]
    pub fn best(&self, entry: &str, device: ComputeCapability) -> Option<&KernelText> {
        self.texts
            .iter()
            .filter(|text| text.entry == entry && text.target.runs_on(device))
            .max_by_key(|text| (text.target.capability, text.target.exact))
    }
}

/// A module out of the mapping: name and bytes that nobody else can change.
fn copied(checkpoint: &Checkpoint, tensor: &str) -> Result<(String, Vec<u8>), Refusal> {
    let name = tensor.strip_prefix(TERCET_PTX_PREFIX).unwrap_or(tensor).to_owned();
    let damaged = |what: &str| Refusal::Damaged { name: name.clone(), what: what.into() };
    match checkpoint.tensor(tensor) {
        Some(tensor) if tensor.dtype != Dtype::U8 => Err(damaged("it is no sequence of bytes")),
        Some(tensor) if tensor.bytes.len() > PTX_BYTES_MAX => Err(damaged("it is too long")),
        Some(tensor) => Ok((name, tensor.bytes.to_vec())),
        None => Err(damaged("it has no bytes")),
    }
}

/// The rule, on copies.
fn judge(
    contract: Option<&str>,
    copies: impl Iterator<Item = Result<(String, Vec<u8>), Refusal>>,
    trust: bool,
    known: &[Released<'_>],
) -> Result<(Vec<KernelText>, Origin), Refusal> {
    if contract.and_then(|found| found.parse().ok()) != Some(CONTRACT_VERSION) {
        return Err(Refusal::Contract { found: contract.map(str::to_owned) });
    }
    let mut texts = Vec::new();
    let mut origin = Origin::Released;
    for copy in copies {
        let (name, bytes) = copy?;
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        let hex = Hex(sha256).to_string();
        // Our own kernels are not yet on the list when a release is being made.
        let is_ours = || kernels().iter().any(|kernel| kernel.ptx.as_bytes() == bytes);
        if !known.iter().any(|known| known.sha256 == hex) && !is_ours() {
            if !trust {
                return Err(Refusal::Unknown { name, sha256 });
            }
            origin = Origin::Trusted;
        }
        texts.push(checked(name, bytes, sha256)?);
    }
    Ok((texts, origin))
}

/// Reads a module: one kernel, which keeps the contract, under the name that it should have.
fn checked(name: String, bytes: Vec<u8>, sha256: [u8; 32]) -> Result<KernelText, Refusal> {
    let damaged = |what: String| Refusal::Damaged { name: name.clone(), what };
    let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
    let ptx = Ptx::parse(&text).map_err(|error| damaged(error.to_string()))?;
    let entry = ptx.entries().next().ok_or_else(|| damaged("there is no kernel in it".into()))?;
    let spec = KERNELS
        .iter()
        .find(|spec| spec.entry == entry.name)
        .ok_or_else(|| damaged(format!("this program has no kernel `{}`", entry.name)))?;
    ptx.keeps(&[*spec]).map_err(|drift| damaged(drift.to_string()))?;
    let target = ptx.target();
    if name != format!("{}.{target}", spec.entry) {
        return Err(damaged(format!("it holds `{}.{target}`", spec.entry)));
    }
    Ok(KernelText { name, entry: spec.entry, target, sha256, ptx: Cow::Owned(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of ours.
    fn embed() -> &'static Kernel {
        tercet_kernels_ptx::kernel_for("embed", Target::SM_80.capability).unwrap()
    }

    /// A kernel that keeps the contract, and is on no list.
    fn stranger() -> (String, Vec<u8>) {
        let kernel = embed();
        (name(kernel), format!("{}\n// mine\n", kernel.ptx).into_bytes())
    }

    fn contract() -> String {
        CONTRACT_VERSION.to_string()
    }

    fn judged(
        contract: Option<&str>,
        copy: (String, Vec<u8>),
        trust: bool,
        known: &[Released<'_>],
    ) -> Result<(Vec<KernelText>, Origin), Refusal> {
        judge(contract, [Ok(copy)].into_iter(), trust, known)
    }

    #[test]
    fn a_released_kernel_is_used() {
        let (name, bytes) = stranger();
        let hex = Hex(Sha256::digest(&bytes).into()).to_string();
        let known = Released { sha256: &hex, contract: 1, version: "0.0.1", name: &name };
        let copy = (name.clone(), bytes.clone());
        let (texts, origin) = judged(Some(&contract()), copy, false, &[known]).unwrap();
        assert_eq!((texts[0].ptx().as_bytes(), origin), (&bytes[..], Origin::Released));
        let none = judged(Some(&contract()), (name, bytes), false, &[]);
        assert!(matches!(none, Err(Refusal::Unknown { .. })), "{none:?}");
    }

    #[test]
    fn our_own_kernel_is_used_before_its_release() {
        let kernel = embed();
        let copy = (name(kernel), kernel.ptx.as_bytes().to_vec());
        let (texts, origin) = judged(Some(&contract()), copy, false, &[]).unwrap();
        assert_eq!((texts[0].ptx(), origin), (kernel.ptx, Origin::Released));
    }

    #[test]
    fn an_unknown_kernel_takes_trust() {
        let contract = contract();
        let refused = judged(Some(&contract), stranger(), false, &[]).unwrap_err();
        let said = refused.to_string();
        let hex = Hex(Sha256::digest(stranger().1).into()).to_string();
        assert!(said.contains(&hex) && said.contains(&stranger().0), "{said}");
        let (texts, origin) = judged(Some(&contract), stranger(), true, &[]).unwrap();
        assert_eq!((texts[0].ptx().as_bytes(), origin), (&stranger().1[..], Origin::Trusted));
    }

    #[test]
    fn another_contract_is_refused_even_when_trusted() {
        let next = (CONTRACT_VERSION + 1).to_string();
        for found in [Some(next.as_str()), Some("one"), Some(""), None] {
            let refused = judged(found, stranger(), true, &[]).unwrap_err();
            assert_eq!(refused, Refusal::Contract { found: found.map(str::to_owned) });
        }
    }

    #[test]
    fn what_breaks_the_contract_is_refused_even_when_trusted() {
        let contract = contract();
        let (name, bytes) = stranger();
        let ptx = String::from_utf8(bytes).unwrap();
        let changed = |from: &str, to: &str| {
            let changed = ptx.replace(from, to);
            assert_ne!(changed, ptx, "{from}");
            (name.clone(), changed.into_bytes())
        };
        for (copy, word) in [
            (changed("param_0[64]", "param_0[56]"), "56"),
            (changed(".entry embed(", ".entry mine("), "no kernel `mine`"),
            (changed(".target sm_80", ".target sm_86"), "embed.sm_86"),
            (changed(".target sm_80", ".target sm_90"), "does not wait"),
            ((name.clone(), b"not PTX".to_vec()), ".version"),
            ((name.clone(), vec![0xff, 0xfe]), "utf-8"),
            (("qkv.sm_80".into(), ptx.clone().into_bytes()), "embed.sm_80"),
        ] {
            let refused = judged(Some(&contract), copy, true, &[]).unwrap_err();
            assert!(matches!(refused, Refusal::Damaged { .. }), "{refused}");
            assert!(refused.to_string().contains(word), "{word}: {refused}");
        }
    }

    #[test]
    fn the_best_target_is_taken() {
        let set = KernelSet::program();
        let device = |major, minor| ComputeCapability { major, minor };
        assert_eq!(set.origin(), Origin::Program);
        for text in set.texts() {
            let best = set.best(text.entry, text.target.capability).unwrap();
            assert!(
                best.target.capability >= text.target.capability || best.target.exact,
                "{best:?}"
            );
        }
        assert!(set.best("embed", device(7, 5)).is_none(), "below every target");
        let older = set.of_device(device(8, 6));
        assert!(older.texts().iter().all(|text| text.target == Target::SM_80), "{older:?}");
        assert!(older.best("embed", device(9, 0)).is_some_and(|text| text.name == "embed.sm_80"));
        assert!(set.best("no_such_kernel", device(9, 0)).is_none(), "no such kernel");
    }

    #[test]
    fn linears_of_hopper_are_taken_all_or_none() {
        let is_own = |text: &KernelText| text.entry.starts_with("linear_") && text.target.exact;
        let names =
            |set: &KernelSet| set.texts().iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        let whole = KernelSet::program();
        assert!(whole.texts().iter().filter(|text| is_own(text)).count() > 2);
        assert_eq!(names(&whole.clone().with_whole_families()), names(&whole));
        let mut part = whole.clone();
        part.texts.retain(|text| text.name != "linear_64x64.sm_90a");
        let left = part.with_whole_families();
        assert_eq!(left.texts().iter().find(|text| is_own(text)).map(|text| &text.name), None);
        let others = |set: &KernelSet| set.texts().iter().filter(|text| !is_own(text)).count();
        assert_eq!(others(&left), others(&whole));
    }
}
