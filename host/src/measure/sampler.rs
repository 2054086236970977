//! [`Sampler`]: a thread that looks at memory, device and neighbours now and then.
//!
//! Asking a driver can take milliseconds. Whoever draws or computes only ever copies the last
//! answers.

use core::time::Duration;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use super::machine::{self, Neighbours};
use super::memory::{Held, Memory};
use crate::backend::cuda::{GpuMeter, GpuState};

/// How often a panel wants to know.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Snapshot {
    /// Memory of the device that computes; `None` before the first look, and where the system does
    /// not tell.
    pub memory: Option<Memory>,
    /// The GPU, where one computes.
    pub gpu: Option<GpuState>,
    /// Bytes of main memory that the process holds.
    pub resident: Option<u64>,
    /// Processors that other processes kept busy since the look before.
    pub neighbours: Option<f64>,
    /// Looks taken so far: tells whether this one is new.
    pub looks: u64,
}

/// What there is to be looked at.
#[derive(Debug, Clone, Default)]
struct Subject {
    held: Held,
    /// Positions of the session.
    positions: usize,
    /// The most of them that were ever used: pages that were written once stay.
    reached: usize,
    meter: Option<GpuMeter>,
}

#[derive(Debug, Default)]
struct Shared {
    subject: Mutex<Subject>,
    latest: Mutex<Snapshot>,
}

/// A panic elsewhere leaves plain numbers, which are as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why the thread wakes before its time.
enum Wake {
    Look,
    End,
}

/// What the sampler's users hold: cheap to copy, works on any thread.
#[derive(Debug, Clone)]
pub struct Probe {
    shared: Arc<Shared>,
    wake: Sender<Wake>,
}

impl Probe {
    /// The last answers.
    #[must_use]
    pub fn latest(&self) -> Snapshot {
        *lock(&self.shared.latest)
    }

    /// Tells what a session of `positions` positions holds, and by what its device is looked at
    /// (`None`: it is the CPU). The next look is taken at once.
    pub fn session(&self, held: Held, positions: usize, meter: Option<GpuMeter>) {
        *lock(&self.shared.subject) = Subject { held, positions, reached: 0, meter };
        // Without the thread there is nobody to look.
        let _ = self.wake.send(Wake::Look);
    }

    /// Tells that the session has used its first `positions` positions.
    pub fn reached(&self, positions: usize) {
        let mut subject = lock(&self.shared.subject);
        subject.reached = subject.reached.max(positions);
    }
}

/// The thread. It ends when this is dropped, which waits for the look that it is taking.
#[derive(Debug)]
pub struct Sampler {
    probe: Probe,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts to look every `interval`, first at once.
    ///
    /// # Errors
    ///
    /// The system's, when it gives no thread.
    pub fn start(interval: Duration) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (wake, woken) = channel();
        let probe = Probe { shared: Arc::clone(&shared), wake };
        let thread = Builder::new().name("tercet-sampler".into());
        let thread = thread.spawn(move || look_again_and_again(&shared, &woken, interval))?;
        Ok(Self { probe, thread: Some(thread) })
    }

    /// What its users hold. Answers stay what they were when the sampler has ended.
    #[must_use]
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        let _ = self.probe.wake.send(Wake::End);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so; there is nothing to add to it.
            let _ = thread.join();
        }
    }
}

fn look_again_and_again(shared: &Shared, woken: &Receiver<Wake>, interval: Duration) {
    let mut watch = (Instant::now(), Neighbours::watch());
    let mut neighbours = None;
    for looks in 1.. {
        // The system counts processor time in hundredths of a second: too short a while says
        // nothing.
        if watch.0.elapsed() >= interval / 2 {
            neighbours = watch.1.cores();
            watch = (Instant::now(), Neighbours::watch());
        }
        let subject = lock(&shared.subject).clone();
        let seen = Snapshot { neighbours, looks, ..look(&subject) };
        *lock(&shared.latest) = seen;
        match woken.recv_timeout(interval) {
            Ok(Wake::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// One look.
fn look(subject: &Subject) -> Snapshot {
    let Subject { held, positions, reached, meter } = subject;
    let resident = machine::resident();
    let memory = match meter {
        Some(meter) => meter.counts().map(|counts| Memory::of_device(*held, counts)),
        None => resident.zip(machine::memory_pool()).map(|(resident, pool)| {
            #[allow(clippy::cast_precision_loss, reason = "a share of a cache")]
            let used = *reached as f64 / (*positions).max(1) as f64;
            Memory::of_process(*held, used, resident, pool)
        }),
    };
    Snapshot {
        memory,
        gpu: meter.as_ref().and_then(GpuMeter::state),
        resident: resident.map(|resident| resident.bytes),
        ..Snapshot::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(probe: &Probe, enough: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let start = Instant::now();
        loop {
            let seen = probe.latest();
            if enough(&seen) {
                return seen;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{seen:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_looks_until_it_is_dropped() {
        let sampler = Sampler::start(Duration::from_millis(2)).unwrap();
        let probe = sampler.probe();
        wait_for(&probe, |seen| seen.looks >= 3);
        drop(sampler);
        let last = probe.latest();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(probe.latest(), last, "nobody looks any more");
        // And nobody is hurt by those who still tell.
        probe.session(Held::default(), 10, None);
    }

    #[test]
    fn what_a_session_holds_is_part_of_what_is_resident() {
        if !cfg!(target_os = "linux") {
            return;
        }
        // Looks only when it is told something new.
        let sampler = Sampler::start(Duration::from_secs(600)).unwrap();
        let probe = sampler.probe();
        let first = wait_for(&probe, |seen| seen.looks >= 1);
        let memory = first.memory.unwrap();
        assert_eq!((memory.weights.bytes, memory.cache.bytes), (0, 0));
        assert!(memory.ours() > 1 << 20 && memory.ours() < memory.total.bytes, "{memory:?}");
        assert_eq!(first.gpu, None);

        let block = vec![1_u8; 64 << 20];
        let held = Held { weights: 48 << 20, cache: 8 << 20, work: 4 << 20 };
        probe.session(held, 100, None);
        let second = wait_for(&probe, |seen| seen.looks >= 2);
        let memory = second.memory.unwrap();
        assert_eq!((memory.weights.bytes, memory.work.bytes), (48 << 20, 4 << 20));
        assert_eq!(memory.cache.bytes, 0, "no position was used yet");
        let more = second.resident.unwrap() - first.resident.unwrap();
        // The allocator may have had some of it before; others of this process come and go.
        assert!(more > 32 << 20, "{more} bytes more");
        drop(block);
    }
}
