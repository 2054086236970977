//! The two sides of the contract, compared without a GPU and without a compiler; and each way in
//! which they can part, provoked.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use tercet_kernels_ptx::contract::{
    ArgumentBlock, CONTRACT_VERSION, EmbedArgs, Field, KERNELS, KernelSpec, write_header,
};
use tercet_kernels_ptx::ptx::{Drift, Parameter, Ptx, Target};
use tercet_kernels_ptx::{Kernel, PTX_VERSION_MAX, kernel_for, kernels};

// Of the compiler's recipe the tests need the part that does not compile.
#[path = "../src/bin/build-ptx/recipe.rs"]
mod recipe;

use recipe::Sources;

/// The kernel in which drifts are seeded.
const EMBED: KernelSpec = EmbedArgs::SPEC;

fn embed() -> &'static str {
    kernel_for("embed", Target::SM_80.capability).expect("a kernel of every device").ptx
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn sources() -> Sources {
    recipe::read_sources(&folder("cuda")).expect("cuda/ is readable")
}

fn header(contract: &[KernelSpec]) -> String {
    let mut header = String::new();
    write_header(contract, &mut header).expect("a string takes everything");
    header
}

/// Whether `kernel` was built from `sources`.
fn is_built_from(kernel: &Kernel, sources: &Sources) -> bool {
    kernel.ptx.starts_with(&recipe::notes(kernel.spec.entry, kernel.target, sources))
}

#[test]
fn header_is_up_to_date() {
    let path = folder("cuda").join("contract.cuh");
    let expected = header(KERNELS);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == expected,
        "cuda/contract.cuh is not what src/contract.rs says: run `UPDATE=1 cargo test -p \
         tercet-kernels-ptx`, then rebuild the PTX"
    );
}

#[test]
fn ptx_is_built_from_these_sources() {
    let sources = sources();
    for kernel in kernels() {
        assert!(
            is_built_from(kernel, &sources),
            "the PTX of `{}` for {} is older than cuda/ or its compiler: rebuild it with build-ptx",
            kernel.spec.entry,
            kernel.target
        );
    }
}

#[test]
fn ptx_keeps_the_contract() {
    for kernel in kernels() {
        let ptx = Ptx::parse(kernel.ptx).unwrap();
        assert_eq!(ptx.keeps(&[kernel.spec]), Ok(()));
        assert_eq!(ptx.target(), kernel.target);
        assert!(ptx.version() <= PTX_VERSION_MAX, "{} needs a newer driver", ptx.version());
        assert_eq!(ptx.note("contract"), Some(CONTRACT_VERSION.to_string().as_str()));
    }
}

#[test]
fn contract_sources_and_ptx_name_the_same_kernels() {
    let contract: BTreeSet<_> = KERNELS.iter().map(|spec| spec.entry.to_owned()).collect();
    let embedded: BTreeSet<_> = kernels().iter().map(|k| k.spec.entry.to_owned()).collect();
    let compiled: BTreeSet<_> =
        sources().keys().filter_map(|name| name.strip_suffix(".cu")).map(str::to_owned).collect();
    assert_eq!(contract, embedded);
    assert_eq!(contract, compiled);

    let expected: BTreeSet<_> =
        kernels().iter().map(|k| recipe::file_name(k.spec.entry, k.target)).collect();
    let committed: BTreeSet<_> = fs::read_dir(folder("ptx"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(committed, expected);

    let readme = fs::read_to_string(folder("README.md")).unwrap();
    for entry in contract {
        assert!(readme.contains(&format!("| `{entry}` |")), "README.md does not list `{entry}`");
    }
}

#[test]
fn ptx_names_no_folder() {
    for kernel in kernels() {
        for line in kernel.ptx.lines() {
            assert!(!line.replace("//", "").contains(['/', '\\']), "{line}");
        }
        // Not `.local`, which is memory.
        let mut directives = kernel.ptx.lines().filter_map(|line| line.split_whitespace().next());
        assert!(!directives.any(|word| [".loc", ".file"].contains(&word)), "line info");
    }
}

// The drifts, seeded. Which check stops which is the table in the README.

/// What remains to stop a change of `contract` after which somebody refreshed the header.
fn stale_after(contract: &[KernelSpec]) -> bool {
    let mut sources = sources();
    sources.insert("contract.cuh".to_owned(), header(contract));
    kernels().iter().all(|kernel| !is_built_from(kernel, &sources))
}

#[test]
fn added_field_is_caught() {
    let mut fields = EMBED.fields.to_vec();
    for (name, offset) in [("more", 64), ("most", 68)] {
        fields.push(Field { name, offset, ..fields[10] });
    }
    let changed = [KernelSpec { fields: fields.leak(), size: 72, ..EMBED }];
    assert_ne!(header(&changed), header(&[EMBED]), "the header");
    assert!(stale_after(&changed), "the fingerprint");
    let expected = Parameter { size: 72, alignment: 8 };
    let got = Parameter { size: 64, alignment: 8 };
    assert_eq!(
        Ptx::parse(embed()).unwrap().keeps(&changed),
        Err(Drift::Argument { entry: "embed", expected, got })
    );
}

#[test]
fn swapped_pointers_are_caught() {
    let mut fields = EMBED.fields.to_vec();
    let (tokens, positions) = (fields[2], fields[3]);
    fields[2] = Field { offset: tokens.offset, ..positions };
    fields[3] = Field { offset: positions.offset, ..tokens };
    let changed = [KernelSpec { fields: fields.leak(), ..EMBED }];
    // The PTX shows only bytes, and those are the same; so it takes the header or, once that
    // has been refreshed, the fingerprint.
    assert_eq!(Ptx::parse(embed()).unwrap().keeps(&changed), Ok(()));
    assert_ne!(header(&changed), header(&[EMBED]), "the header");
    assert!(stale_after(&changed), "the fingerprint");
}

#[test]
fn other_launch_bound_is_caught() {
    let changed = [KernelSpec { threads: 128, ..EMBED }];
    assert!(stale_after(&changed), "the fingerprint");
    let ptx = embed();
    let drift = |got| Drift::Threads { entry: "embed", expected: [256, 1, 1], got };

    let smaller = ptx.replace(".maxntid 256", ".maxntid 128");
    assert_eq!(Ptx::parse(&smaller).unwrap().keeps(&[EMBED]), Err(drift(Some([128, 1, 1]))));
    let none = ptx.replace(".maxntid 256, 1, 1", "");
    assert_eq!(Ptx::parse(&none).unwrap().keeps(&[EMBED]), Err(drift(None)));
}

#[test]
fn other_source_is_caught() {
    for name in sources().keys() {
        let mut sources = sources();
        sources.get_mut(name).unwrap().push('\n');
        assert!(kernels().iter().all(|kernel| !is_built_from(kernel, &sources)), "{name}");
    }
    let mut renamed = sources();
    let text = renamed.remove("embed.cu").unwrap();
    renamed.insert("unembed.cu".to_owned(), text);
    assert!(kernels().iter().all(|kernel| !is_built_from(kernel, &renamed)), "a file's name");
}

#[test]
fn other_entries_are_caught() {
    let ptx = embed();
    let renamed = ptx.replace(".entry embed", ".entry unembed");
    let missing = Err(Drift::Missing { entry: "embed" });
    assert_eq!(Ptx::parse(&renamed).unwrap().keeps(&[EMBED]), missing);

    let more = format!("{ptx}\n.visible .entry other() {{ ret; }}");
    let unknown = Err(Drift::Unknown { entry: "other" });
    assert_eq!(Ptx::parse(&more).unwrap().keeps(&[EMBED]), unknown);

    let several = ptx.replace("embed_param_0[64]", "a[48], .param .u32 b");
    let parameters = Err(Drift::Parameters { entry: "embed", got: 2 });
    assert_eq!(Ptx::parse(&several).unwrap().keeps(&[EMBED]), parameters);
}

#[test]
fn linked_function_is_caught() {
    let ptx = format!("{}\n.extern .func helper (.param .b64 a);", embed());
    let external = Err(Drift::External { symbol: "helper" });
    assert_eq!(Ptx::parse(&ptx).unwrap().keeps(&[EMBED]), external);
}

/// Kernels for Hopper are launched while the one before them runs.
#[test]
fn a_kernel_that_does_not_wait_is_caught() {
    let early = embed().replace(".target sm_80", ".target sm_90");
    let no_wait = Err(Drift::NoWait { target: Target::SM_90 });
    assert_eq!(Ptx::parse(&early).unwrap().keeps(&[EMBED]), no_wait);
}
