//! What the operating system says about the machine and this process.
//!
//! Every function reads `/proc` or `/sys` and gives `None` where there is none.

use core::time::Duration;
use std::fs;
use std::time::Instant;

/// Name of the processor.
#[must_use]
pub fn cpu_name() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The time, in Coordinated Universal Time, as ISO 8601 writes it.
#[must_use]
pub fn utc_now() -> String {
    crate::text::utc_now()
}

/// Runnable processes, averaged over the last minute.
#[must_use]
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Size of the last cache, in bytes.
#[must_use]
pub fn cache_bytes() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let size = |text: String| -> Option<u64> {
        let kib: u64 = text.trim().strip_suffix('K')?.parse().ok()?;
        Some(kib << 10)
    };
    caches
        .flatten()
        .filter_map(|cache| size(fs::read_to_string(cache.path().join("size")).ok()?))
        .max()
}

/// Memory that processes share, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// All of it.
    pub total: u64,
    /// What can still be had without swapping. Caches of files count as free.
    pub available: u64,
}

/// What the system has, or what the process's control group (a container) allows: whichever leaves
/// less.
#[must_use]
pub fn memory_pool() -> Option<Pool> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let total = kib(&info, "MemTotal:")?;
    let system = Pool { total, available: kib(&info, "MemAvailable:")? };
    let group = group_memory().filter(|group| group.available < system.available);
    Some(group.unwrap_or(system))
}

/// [`Pool::available`] of [`memory_pool`].
#[must_use]
pub fn available_memory() -> Option<u64> {
    Some(memory_pool()?.available)
}

/// The same for the control group (version 2), if it has a limit.
fn group_memory() -> Option<Pool> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = format!("/sys/fs/cgroup{group}");
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok();
    let total: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let caches: u64 = read("memory.stat")?
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "))?
        .parse()
        .ok()?;
    Some(Pool { total, available: total.saturating_sub(used.saturating_sub(caches)) })
}

/// Memory that this process holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// All of it, mapped files included.
    pub bytes: u64,
    /// The part that no file backs: it cannot be taken back.
    pub anonymous: u64,
}

/// What this process holds now.
#[must_use]
pub fn resident() -> Option<Resident> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident { bytes: kib(&status, "VmRSS:")?, anonymous: kib(&status, "RssAnon:")? })
}

/// The most memory this process has held at a time, in bytes, since its start or
/// [`reset_peak_memory`].
#[must_use]
pub fn peak_memory() -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Lets the peak start again from what is held now. Returns whether the system did.
pub fn reset_peak_memory() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The number of kibibytes after `key`, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Measures how busy *others* keep the processors: what explains a slow run.
#[derive(Debug, Clone, Copy)]
pub struct Neighbours {
    since: Instant,
    /// Of all processes, and of this one.
    used: Option<(Duration, Duration)>,
}

impl Neighbours {
    /// Starts to measure.
    #[must_use]
    pub fn watch() -> Self {
        Self { since: Instant::now(), used: used() }
    }

    /// Processors that others kept busy on average since then; counts time that a hypervisor took.
    #[must_use]
    pub fn cores(&self) -> Option<f64> {
        let ((all, own), (all_before, own_before)) = (used()?, self.used?);
        let others = all.saturating_sub(all_before).saturating_sub(own.saturating_sub(own_before));
        Some(others.as_secs_f64() / self.since.elapsed().as_secs_f64())
    }
}

/// Processor time used by all processes and by this one.
fn used() -> Option<(Duration, Duration)> {
    let ticks = |count: u64| -> Option<Duration> {
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
        Some(Duration::from_secs(count) / per_second)
    };
    let sum = |fields: &[&str]| -> Option<u64> {
        fields.iter().map(|field| field.parse::<u64>().ok()).sum()
    };
    // `cpu user nice system idle iowait irq softirq steal ...`
    let system = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<_> = system.lines().next()?.split_whitespace().skip(1).collect();
    let all = sum(fields.get(0..3)?)? + sum(fields.get(5..8)?)?;
    // The name of the program, in brackets, may hold spaces; user and system time are the 12th and
    // 13th field after it.
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<_> = own.rsplit_once(')')?.1.split_whitespace().collect();
    Some((ticks(all)?, ticks(sum(fields.get(11..13)?)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_answers_with_sane_numbers() {
        if !cfg!(target_os = "linux") {
            return;
        }
        assert!(available_memory().unwrap() > 1 << 20);
        let (pool, resident) = (memory_pool().unwrap(), resident().unwrap());
        assert!(pool.available <= pool.total && resident.bytes <= pool.total, "{pool:?}");
        assert!(resident.anonymous <= resident.bytes && resident.bytes > 1 << 20, "{resident:?}");
        // The counters of threads reach the process's with some delay.
        assert!(peak_memory().unwrap() + (4 << 20) > resident.bytes);
        let watch = Neighbours::watch();
        let mut x = 1_u64;
        while watch.since.elapsed() < Duration::from_millis(200) {
            x = core::hint::black_box(x.wrapping_mul(3));
        }
        // Busy ourselves: that is not counted as somebody else (to the tick).
        let processors = std::thread::available_parallelism().unwrap().get();
        assert!(watch.cores().unwrap() < processors as f64 + 0.2);
    }

    #[test]
    fn numbers_are_found_by_key() {
        assert_eq!(kib("VmPeak:\t  9 kB\nVmHWM:\t  12 kB\n", "VmHWM:"), Some(12 << 10));
        assert_eq!(kib("VmHWM:\t  12 MB\n", "VmHWM:"), None);
    }
}
