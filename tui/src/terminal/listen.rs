//! The thread that listens: to the keyboard, to signals, to panics.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::decode::{Decoded, Decoder, modifiers};
use super::hub::Hub;
use super::kind::Background;
use super::tty::Tty;
use super::{Ending, Incoming};

/// Shortest time between two reports of a new size: who drags a window changes it hundreds of times
/// a second.
const RESIZE_PAUSE: Duration = Duration::from_millis(33);
/// How long the program may take to end in order before it is ended.
const GRACE: Duration = Duration::from_secs(3);
/// A paste that has been silent for so long can be ended by Ctrl-C.
const PASTE_SILENCE: Duration = Duration::from_secs(1);
const CTRL_C: u8 = 3;

/// Listens until `closed`.
pub(super) fn listen(
    tty: &Arc<Tty>,
    hub: &Hub,
    closed: &AtomicBool,
    mut tell: impl FnMut(Incoming),
) {
    let mut bytes = vec![0; 64 << 10];
    let mut listener = Listener {
        decoder: Decoder::new(),
        decoded: Vec::new(),
        heard: Instant::now(),
        gives_up: None,
        resized: None,
        resize_due: None,
        ending: None,
        told_panic: false,
        lost: false,
    };
    while !closed.load(Ordering::Acquire) {
        let now = Instant::now();
        let wait = listener.next_due().map(|due| {
            let wait = due.saturating_duration_since(now);
            // Rounded up, so that what is due is due when it wakes.
            Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().saturating_add(1000).min(999_999_999).into(),
            }
        });
        let mut sources =
            [PollFd::new(&hub.wakes, PollFlags::IN), PollFd::new(&tty.input, PollFlags::IN)];
        let hears_keys = tty.is_up() && !listener.lost;
        let count = if hears_keys { 2 } else { 1 };
        match poll(&mut sources[..count], wait.as_ref()) {
            Ok(_) => {}
            // Its flag is set, and the socket wakes us.
            Err(Errno::INTR) => continue,
            Err(_) => {
                listener.lost = true;
                listener.end(Ending::HangUp, &mut tell);
            }
        }
        let keys = hears_keys && !sources[1].revents().is_empty();
        hub.drain();
        if closed.load(Ordering::Acquire) {
            return;
        }
        listener.signals(tty, hub, &mut tell);
        if keys && tty.is_up() {
            match rustix::io::read(&tty.input, &mut bytes[..]) {
                Ok(count @ 1..) => listener.bytes(&bytes[..count]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                // The terminal is gone. Its signal may be ignored (nohup), or still be on its way.
                Ok(0) | Err(_) => {
                    listener.lost = true;
                    listener.end(Ending::HangUp, &mut tell);
                }
            }
        }
        listener.due(tty, &mut tell);
    }
}

struct Listener {
    decoder: Decoder,
    decoded: Vec<Decoded>,
    /// When bytes came last.
    heard: Instant,
    /// When a sequence that has begun counts as complete.
    gives_up: Option<Instant>,
    /// When a new size was told last.
    resized: Option<Instant>,
    /// When to tell the next.
    resize_due: Option<Instant>,
    /// The ending that was told, and when.
    ending: Option<(Ending, Instant)>,
    told_panic: bool,
    /// Whether the terminal is gone.
    lost: bool,
}

impl Listener {
    fn next_due(&self) -> Option<Instant> {
        let ending = self.ending.map(|(_, told)| told + GRACE);
        [self.gives_up, self.resize_due, ending].into_iter().flatten().min()
    }

    fn end(&mut self, ending: Ending, tell: &mut impl FnMut(Incoming)) {
        if self.ending.is_none() {
            self.ending = Some((ending, Instant::now()));
            tell(Incoming::Ending(ending));
        }
    }

    fn signals(&mut self, tty: &Tty, hub: &Hub, tell: &mut impl FnMut(Incoming)) {
        if tty.is_dying() && !self.told_panic {
            self.told_panic = true;
            tell(Incoming::Ending(Ending::Panic));
        }
        while let Some(ending) = hub.ending() {
            self.end(ending, tell);
        }
        // The one that `Screen::suspend` sends to the whole group reaches us, too.
        if hub.stop() && !tty.stopping.swap(false, Ordering::AcqRel) {
            tell(Incoming::Suspend);
        }
        if hub.continued() {
            tell(Incoming::Resumed);
        }
        if hub.resized() && self.resize_due.is_none() {
            let now = Instant::now();
            self.resize_due = Some(self.resized.map_or(now, |last| now.max(last + RESIZE_PAUSE)));
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let silent = self.heard.elapsed() > PASTE_SILENCE;
        if self.decoder.is_pasting() && silent && bytes == [CTRL_C] {
            self.decoder.end_paste(&mut self.decoded);
        } else {
            self.decoder.push(bytes, &mut self.decoded);
        }
        self.heard = Instant::now();
        self.gives_up = self.decoder.wait().map(|wait| self.heard + wait);
    }

    /// Does what is due, and tells what was understood.
    fn due(&mut self, tty: &Tty, tell: &mut impl FnMut(Incoming)) {
        let now = Instant::now();
        if self.gives_up.is_some_and(|due| due <= now) {
            self.gives_up = None;
            self.decoder.give_up(&mut self.decoded);
        }
        for decoded in self.decoded.drain(..) {
            match decoded {
                Decoded::Key(key) => tell(Incoming::Key(key)),
                Decoded::Mouse(mouse) => tell(Incoming::Mouse(mouse)),
                Decoded::Paste(text) => tell(Incoming::Paste(text)),
                Decoded::PasteTooLong(bytes) => tell(Incoming::PasteTooLong(bytes)),
                Decoded::Background(colour) => {
                    tell(Incoming::Background(Background::of(colour)));
                }
                Decoded::Attributes => tty.answer_all(),
                Decoded::Position(row, column) => {
                    if !tty.answer_position(row, column) && row == 1 {
                        let key = KeyEvent::new(KeyCode::F(3), modifiers(column.into()));
                        tell(Incoming::Key(key));
                    }
                }
            }
        }
        if self.resize_due.is_some_and(|due| due <= now) {
            self.resize_due = None;
            self.resized = Some(now);
            tell(Incoming::Resize);
        }
        if let Some((ending, told)) = self.ending
            && now.duration_since(told) >= GRACE
        {
            // Whoever should have ended the program is stuck.
            tty.abandon();
            signal_hook::low_level::exit(ending.exit_code() as i32);
        }
    }
}
