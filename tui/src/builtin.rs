//! The model inside the program: `tercet` alone answers, offline.

use tercet_host::package::Source;

/// The bytes of a file, aligned as a mapping would be.
#[repr(C, align(256))]
struct Aligned<B: ?Sized>(B);

static STORIES: &Aligned<[u8]> = &Aligned(*include_bytes!("../model/stories-25m.tercet"));

/// A storyteller with 25 million weights; `tui/model/README.md` says where it comes from.
#[must_use]
pub fn source() -> Source {
    Source::Builtin { name: "stories-25m (built in)", bytes: &STORIES.0 }
}
