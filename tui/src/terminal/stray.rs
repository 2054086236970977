//! What others than us write to stderr while the screen is up: a library, the runtime before it
//! aborts, the guard of mapped files.
//!
//! It would be drawn over, and lost with the alternate screen. So stderr is a file in memory
//! meanwhile, which takes everything and holds nobody up, and whoever restores the terminal shows
//! what is in it, cleaned.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl, fstat, ftruncate};
use rustix::io::{Errno, pread};
use rustix::stdio::{dup2_stderr, stderr};

use crate::clean::CleanWriter;

/// Most that is shown; of more the end, which says why.
const SHOWN_BYTES_MAX: usize = 64 << 10;
/// Longest wait, in seconds, for a terminal that does not take what is written.
const STALLED_SECONDS: i64 = 2;

/// The file, and stderr as it was while the file stands in for it.
#[derive(Debug)]
pub(super) struct Stray {
    file: OwnedFd,
    stderr: Option<OwnedFd>,
}

impl Stray {
    pub(super) fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let file = {
            use rustix::fs::{MemfdFlags, memfd_create};
            memfd_create(c"stderr", MemfdFlags::CLOEXEC)?
        };
        #[cfg(not(target_os = "linux"))]
        let file = OwnedFd::from(tempfile::tempfile()?);
        // Processes that we start write to it, too.
        fcntl_setfl(&file, OFlags::APPEND)?;
        Ok(Self { file, stderr: None })
    }

    /// The file, for another process.
    pub(super) fn file(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// From here on stderr is the file.
    pub(super) fn begin(&mut self) {
        if self.stderr.is_none() {
            self.stderr = stderr().try_clone_to_owned().ok();
            if self.stderr.is_some() {
                let _ = dup2_stderr(&self.file); // stays what it is
            }
        }
    }

    /// stderr is what it was, and shows what was written meanwhile.
    pub(super) fn end(&mut self) {
        if let Some(stderr) = self.stderr.take() {
            let _ = dup2_stderr(&stderr); // stays the file, which is shown all the same
            show(self.file.as_fd(), stderr.as_fd());
        }
    }
}

/// Shows what is in `file` on `terminal`, and empties it.
pub(super) fn show(file: BorrowedFd<'_>, terminal: BorrowedFd<'_>) {
    let length = fstat(file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
    let mut bytes = vec![0; SHOWN_BYTES_MAX.min(usize::try_from(length).unwrap_or(usize::MAX))];
    if bytes.is_empty() {
        return;
    }
    let left_out = length - bytes.len() as u64;
    let count = pread(file, &mut bytes[..], left_out).unwrap_or(0);
    let mut clean = Vec::new();
    let mut writer = CleanWriter::new(&mut clean);
    // Memory takes everything.
    if left_out > 0 {
        let _ = writer.write_text(&format!("({left_out} bytes of messages left out)\n"));
    }
    let _ = writer.write_text(&String::from_utf8_lossy(&bytes[..count]));
    write(terminal, &clean);
    let _ = ftruncate(file, 0); // shown twice at worst
}

/// Writes to a terminal that may not be reading; gives up after [`STALLED_SECONDS`].
pub(super) fn write(terminal: BorrowedFd<'_>, mut bytes: &[u8]) {
    let wait = Timespec { tv_sec: STALLED_SECONDS, tv_nsec: 0 };
    while !bytes.is_empty() {
        let mut ready = [PollFd::from_borrowed_fd(terminal, PollFlags::OUT)];
        match poll(&mut ready, Some(&wait)) {
            Ok(1..) => {}
            Err(Errno::INTR) => continue,
            _ => return,
        }
        match rustix::io::write(terminal, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}
