//! Memory by parts: what the backends counted beside what the system or the driver counts.
//!
//! The parts never overlap and always make up the total, whatever the numbers they are made of
//! say: those are read one after the other while the program goes on.

use super::machine::{Pool, Resident};

/// Who says how large a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This program, as it allocated or mapped.
    Counted,
    /// The operating system.
    System,
    /// The driver of the device.
    Driver,
    /// Nobody: it is what the others leave.
    Rest,
}

impl Origin {
    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counted => "counted by tercet",
            Self::System => "operating system",
            Self::Driver => "driver",
            Self::Rest => "the rest",
        }
    }
}

/// A part of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its size in bytes.
    pub bytes: u64,
    /// Who says so.
    pub origin: Origin,
}

/// Whose memory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// The machine's, of which the process holds some.
    Main,
    /// A device's.
    Device,
}

/// Memory of the machine or of a device. `weights + cache + work + context` is this program's
/// ([`Memory::ours`]); with `others` and `free` it is the total, to the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Which memory.
    pub kind: MemoryKind,
    /// The model; in main memory the part of it that is resident.
    pub weights: Part,
    /// Keys and values; in main memory of the positions that were used so far.
    pub cache: Part,
    /// Buffers between operations.
    pub work: Part,
    /// The rest of what this program holds. On a device: the driver's context and the kernels; in
    /// main memory: code, tokenizer, everything else.
    pub context: Part,
    /// What cannot be had because others hold it.
    pub others: Part,
    /// What can still be had, without pushing out anything of ours.
    pub free: Part,
    /// All of it; in a container, as much as it may have.
    pub total: Part,
}

/// What a session holds, in bytes, as the backends count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// The model ([`Backend::weights_bytes`](crate::backend::Backend::weights_bytes)).
    pub weights: u64,
    /// Keys and values, as if every position were used
    /// ([`OpsBytes`](crate::backend::OpsBytes)).
    pub cache: u64,
    /// Buffers between operations.
    pub work: u64,
}

/// What a driver counts on a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Held by this process; where processes are hidden, what came into use since its start.
    pub ours: u64,
    /// Free for anybody.
    pub free: u64,
    /// In all.
    pub total: u64,
}

impl Memory {
    /// Main memory of the machine, `pool`, of which the process has `resident`, `held` by a session
    /// that has used `used` (0..=1) of its positions.
    ///
    /// Pages of mapped files count as ours, though the system can take them back.
    #[must_use]
    pub fn of_process(held: Held, used: f64, resident: Resident, pool: Pool) -> Self {
        let ours = resident.bytes.min(pool.total);
        // Others have what is in use less our own pages that no file backs.
        let in_use = pool.total.saturating_sub(pool.available);
        let others = in_use.saturating_sub(resident.anonymous).min(pool.total - ours);
        #[allow(clippy::cast_precision_loss, reason = "whole pages are lost in it anyway")]
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within cache")]
        let cache = (held.cache as f64 * used.clamp(0.0, 1.0)) as u64;
        let of = Origins { whole: Origin::System, others: Origin::Rest, free: Origin::Rest };
        Self::split(MemoryKind::Main, Held { cache, ..held }, (ours, others, pool.total), of)
    }

    /// Memory of a device.
    #[must_use]
    pub fn of_device(held: Held, counts: DeviceCounts) -> Self {
        let in_use = counts.total.saturating_sub(counts.free);
        let counted = held.weights.saturating_add(held.cache).saturating_add(held.work);
        let ours = counts.ours.max(counted).min(in_use);
        let of = Origins { whole: Origin::Driver, others: Origin::Rest, free: Origin::Driver };
        Self::split(MemoryKind::Device, held, (ours, in_use - ours, counts.total), of)
    }

    /// Gives each part what those before it have left.
    fn split(
        kind: MemoryKind,
        held: Held,
        (ours, others, total): (u64, u64, u64),
        of: Origins,
    ) -> Self {
        // Buffers are there since they were allocated; of the weights, pages may be missing.
        let work = held.work.min(ours);
        let cache = held.cache.min(ours - work);
        let weights = held.weights.min(ours - work - cache);
        let context = ours - work - cache - weights;
        let counted = |bytes| Part { bytes, origin: Origin::Counted };
        Self {
            kind,
            weights: counted(weights),
            cache: counted(cache),
            work: counted(work),
            context: Part { bytes: context, origin: Origin::Rest },
            others: Part { bytes: others, origin: of.others },
            free: Part { bytes: total - ours - others, origin: of.free },
            total: Part { bytes: total, origin: of.whole },
        }
    }

    /// Bytes of this program.
    #[must_use]
    pub fn ours(&self) -> u64 {
        self.weights.bytes + self.cache.bytes + self.work.bytes + self.context.bytes
    }
}

/// Who vouches for what was not counted.
struct Origins {
    whole: Origin,
    others: Origin,
    free: Origin,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn parts(memory: &Memory) -> [u64; 6] {
        let Memory { weights, cache, work, context, others, free, total, .. } = *memory;
        let parts = [weights, cache, work, context, others, free].map(|part| part.bytes);
        assert_eq!(parts.iter().sum::<u64>(), total.bytes, "{memory:?}");
        assert_eq!(memory.ours(), parts[..4].iter().sum::<u64>());
        parts
    }

    #[test]
    fn a_device_is_split_as_the_driver_counts() {
        let held = Held { weights: 600 * MIB, cache: 300 * MIB, work: 50 * MIB };
        let counts = DeviceCounts { ours: 1200 * MIB, free: 100 * GIB, total: 140 * GIB };
        let memory = Memory::of_device(held, counts);
        let others = 40 * GIB - 1200 * MIB;
        let mib = [600, 300, 50, 250].map(|mib| mib * MIB);
        assert_eq!(parts(&memory), [mib[0], mib[1], mib[2], mib[3], others, 100 * GIB]);
        assert_eq!((memory.total.origin, memory.weights.origin), (Origin::Driver, Origin::Counted));
        assert_eq!(memory.context.origin, Origin::Rest);
        // The driver counts less than was allocated: it looked before.
        let early = Memory::of_device(held, DeviceCounts { ours: 500 * MIB, ..counts });
        assert_eq!(parts(&early)[..4], [mib[0], mib[1], mib[2], 0]);
    }

    #[test]
    fn main_memory_holds_the_positions_that_were_used() {
        let held = Held { weights: 600 * MIB, cache: 400 * MIB, work: 20 * MIB };
        let resident = Resident { bytes: 800 * MIB, anonymous: 200 * MIB };
        let pool = Pool { total: 8 * GIB, available: 7 * GIB };
        let memory = Memory::of_process(held, 0.25, resident, pool);
        // 1 GiB is in use, 200 MiB of it ours; of the 7 GiB available, our file takes 600 MiB.
        let expected = [600, 100, 20, 80, 824, 7 * 1024 - 600].map(|mib| mib * MIB);
        assert_eq!(parts(&memory), expected);
        // While a model is loading, less of it is resident than it has.
        let early = Resident { bytes: 300 * MIB, anonymous: 50 * MIB };
        let memory = Memory::of_process(held, 0.0, early, pool);
        assert_eq!(parts(&memory)[..4], [280 * MIB, 0, 20 * MIB, 0]);
    }

    #[test]
    fn numbers_that_contradict_each_other_still_make_up_the_total() {
        let held = Held { weights: u64::MAX, cache: u64::MAX, work: u64::MAX };
        let resident = Resident { bytes: 9 * GIB, anonymous: 10 * GIB };
        for available in [0, GIB, 20 * GIB] {
            let pool = Pool { total: 8 * GIB, available };
            parts(&Memory::of_process(held, f64::NAN, resident, pool));
            let counts = DeviceCounts { ours: 9 * GIB, free: available, total: 8 * GIB };
            let memory =
                Memory::of_device(held, DeviceCounts { free: available.min(8 * GIB), ..counts });
            parts(&memory);
        }
    }
}
