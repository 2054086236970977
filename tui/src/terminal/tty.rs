//! [`Tty`]: the terminal itself, taken over and given back exactly once.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{fstat, makedev};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    OptionalActions, QueueSelector, Termios, isatty, tcflush, tcgetattr, tcgetwinsize, tcsetattr,
};
use tercet_host::process;

use super::Options;
use super::sequences::{self, Place};
use super::stray::Stray;
use super::watcher::Watcher;

/// The terminal that the chat is on, for whoever has to give it back.
static CURRENT: Mutex<Option<Arc<Tty>>> = Mutex::new(None);

/// Longest wait for a thread that is in the middle of writing.
const WRITER: Duration = Duration::from_millis(500);
/// Longest wait for a thread that says why the program ends. Its exit is the hook's business.
const SPEECH: Duration = Duration::from_secs(2);
/// How long an answer of the terminal may take. Over a slow network it is a tenth of a second.
const ANSWER: Duration = Duration::from_millis(500);
/// Longest wait at the end for answers that are still on their way.
const LATE_ANSWER: Duration = Duration::from_millis(100);

/// The terminal.
#[derive(Debug)]
pub(super) struct Tty {
    pub(super) input: OwnedFd,
    output: OwnedFd,
    place: Place,
    /// Held by whoever writes to the terminal or changes it.
    state: Mutex<State>,
    /// Whether it is taken over: keys are ours, and what is drawn is shown.
    up: AtomicBool,
    /// Set by a panic: nothing is drawn any more.
    dying: AtomicBool,
    /// Threads that are saying what happened to them.
    speaking: AtomicUsize,
    /// Whether the next SIGTSTP is one of ours.
    pub(super) stopping: AtomicBool,
    answers: Mutex<Answers>,
    answered: Condvar,
}

struct State {
    /// Settings to go back to.
    original: Termios,
    up: bool,
    mouse: bool,
    watcher: Option<Watcher>,
    /// stderr meanwhile, if it is this terminal.
    stray: Option<Stray>,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("State").field("up", &self.up).field("mouse", &self.mouse).finish()
    }
}

/// Questions to the terminal.
#[derive(Debug, Default)]
struct Answers {
    /// Whether somebody waits for the cursor's place.
    wants_position: bool,
    /// Row and column, from 1.
    position: Option<(u16, u16)>,
    /// When the questions of the start were asked, until the last is answered.
    asked: Option<Instant>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing between lock and unlock leaves a half-changed value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal that is taken over, if one is.
pub(super) fn current() -> Option<Arc<Tty>> {
    locked(&CURRENT).clone()
}

impl Tty {
    /// Takes over the terminal of standard input and output.
    pub(super) fn open(options: Options) -> io::Result<Arc<Self>> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let same = |one: &dyn AsFd, other: &dyn AsFd| {
            let device = |fd: &dyn AsFd| fstat(fd.as_fd()).map(|stat| stat.st_rdev).ok();
            let (first, second) = (device(one), device(other));
            // `/dev/tty` is another name of the terminal that everybody else is on.
            let is_alias = |device| device == Some(makedev(5, 0));
            let equal = first == second || is_alias(first) || is_alias(second);
            isatty(one.as_fd()) && isatty(other.as_fd()) && equal
        };
        if !same(&stdin, &stdout) {
            let what = "standard input and standard output are not one terminal";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let input = stdin.as_fd().try_clone_to_owned()?;
        let output = stdout.as_fd().try_clone_to_owned()?;
        wait_for_foreground(&input)?;
        let original = tcgetattr(&input)?;
        // Without it there is less protection, and no reason not to chat.
        let stray = if same(&stderr, &stdout) { Stray::new().ok() } else { None };
        let watcher = Watcher::start(output.as_fd(), stray.as_ref()).ok();
        if let Some(watcher) = &watcher {
            tercet_host::checkpoint::before_exit(Some(watcher.socket()));
        }
        let state = State { original, up: false, mouse: options.mouse, watcher, stray };
        let tty = Arc::new(Self {
            input,
            output,
            place: options.place,
            state: Mutex::new(state),
            up: AtomicBool::new(false),
            dying: AtomicBool::new(false),
            speaking: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            answers: Mutex::default(),
            answered: Condvar::new(),
        });
        *locked(&CURRENT) = Some(Arc::clone(&tty));
        match tty.begin(options.ask) {
            Ok(()) => Ok(tty),
            Err(error) => {
                let _ = tty.close(); // the first error says more
                Err(error)
            }
        }
    }

    fn begin(&self, ask: bool) -> io::Result<()> {
        self.take(&mut locked(&self.state))?;
        if ask {
            locked(&self.answers).asked = Some(Instant::now());
            self.write(sequences::ASK_BACKGROUND.as_bytes())?;
        }
        Ok(())
    }

    /// Ends what [`Tty::open`] began.
    pub(super) fn close(&self) -> io::Result<()> {
        self.await_answers();
        let left = self.leave();
        self.let_speak();
        tercet_host::checkpoint::before_exit(None);
        locked(&self.state).watcher = None;
        locked(&CURRENT).take_if(|tty| core::ptr::eq(&**tty, self));
        left
    }

    /// Whether keys are ours.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    pub(super) fn is_dying(&self) -> bool {
        self.dying.load(Ordering::Acquire)
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> io::Result<(u16, u16)> {
        let size = tcgetwinsize(&self.output)?;
        // A terminal that does not know its size says 0.
        let or = |count: u16, usual| if count == 0 { usual } else { count };
        Ok((or(size.ws_col, 80), or(size.ws_row, 24)))
    }

    /// Takes the terminal over, again after [`Tty::leave`], or because somebody else had it.
    pub(super) fn enter(&self) -> io::Result<()> {
        wait_for_foreground(&self.input)?;
        let mut state = locked(&self.state);
        if !state.up {
            // Whoever had it may have changed it, and wants to find it that way.
            state.original = tcgetattr(&self.input)?;
        }
        self.take(&mut state)
    }

    fn take(&self, state: &mut State) -> io::Result<()> {
        if self.is_dying() {
            return Ok(());
        }
        if let Some(watcher) = &state.watcher {
            watcher.taken(self.place);
        }
        if let Some(stray) = &mut state.stray {
            stray.begin();
        }
        state.up = true;
        self.up.store(true, Ordering::Release);
        let mut raw = state.original.clone();
        raw.make_raw();
        tcsetattr(&self.input, OptionalActions::Now, &raw)?;
        let mouse = if state.mouse { sequences::MOUSE_ON } else { "" };
        self.write_now([sequences::enter(self.place), mouse].concat().as_bytes())
    }

    /// Gives the terminal back, once.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.give_back(&mut locked(&self.state), sequences::leave(self.place))
    }

    /// Gives the terminal back because the program cannot go on. Returns even if somebody is stuck
    /// in the middle of writing; the watcher then does the rest.
    pub(super) fn abandon(&self) {
        self.dying.store(true, Ordering::Release);
        let start = Instant::now();
        loop {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if start.elapsed() < WRITER => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(TryLockError::WouldBlock) => return,
            };
            // Nobody is left to be told when that fails.
            let _ = self.give_back(&mut state, sequences::abandon(self.place));
            return;
        }
    }

    /// Runs `say`, for which [`Tty::close`] waits.
    pub(super) fn speak(&self, say: impl FnOnce()) {
        self.speaking.fetch_add(1, Ordering::AcqRel);
        say();
        self.speaking.fetch_sub(1, Ordering::AcqRel);
    }

    /// Waits for threads that say why the program ends.
    fn let_speak(&self) {
        let start = Instant::now();
        while self.speaking.load(Ordering::Acquire) > 0 && start.elapsed() < SPEECH {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn give_back(&self, state: &mut State, sequence: &str) -> io::Result<()> {
        if !core::mem::take(&mut state.up) {
            return Ok(());
        }
        self.up.store(false, Ordering::Release);
        // What nobody has read was meant for us: reports, late answers, the rest of a paste. What
        // is typed once the screen has changed is not.
        let _ = tcflush(&self.input, QueueSelector::IFlush);
        let set = tcsetattr(&self.input, OptionalActions::Now, &state.original);
        let written = self.write_now(sequence.as_bytes());
        if let Some(stray) = &mut state.stray {
            stray.end();
        }
        if let Some(watcher) = &state.watcher {
            watcher.left();
        }
        written.and(set.map_err(io::Error::from))
    }

    /// Writes if the terminal is ours; otherwise drops the bytes, which would draw on a screen that
    /// was given back.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let state = locked(&self.state);
        if state.up && !self.is_dying() { self.write_now(bytes) } else { Ok(()) }
    }

    fn write_now(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.output, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                // Somebody who shares the terminal with us may have asked for this.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&self.output, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Switches reports of the mouse on or off; terminals select text themselves without.
    pub(super) fn set_mouse(&self, on: bool) -> io::Result<()> {
        locked(&self.state).mouse = on;
        let sequence = if on { sequences::MOUSE_ON } else { sequences::MOUSE_OFF };
        self.write(sequence.as_bytes())
    }

    /// Whether a shell would take over if the program stopped, rather than nobody.
    pub(super) fn can_stop(&self) -> bool {
        process::can_be_continued()
    }

    /// Asks where the cursor is: row and column, from 1. `None` when the terminal does not say.
    pub(super) fn ask_position(&self) -> io::Result<Option<(u16, u16)>> {
        let mut answers = locked(&self.answers);
        answers.position = None;
        answers.wants_position = true;
        self.write(sequences::ASK_POSITION.as_bytes())?;
        let waits = |answers: &mut Answers| answers.position.is_none();
        let waited = self.answered.wait_timeout_while(answers, ANSWER, waits);
        let (mut answers, _) = waited.unwrap_or_else(PoisonError::into_inner);
        answers.wants_position = false;
        Ok(answers.position)
    }

    /// Takes an answer to [`Tty::ask_position`]; `false` if nobody asked.
    pub(super) fn answer_position(&self, row: u16, column: u16) -> bool {
        let mut answers = locked(&self.answers);
        if core::mem::take(&mut answers.wants_position) {
            answers.position = Some((row, column));
            self.answered.notify_all();
            return true;
        }
        false
    }

    /// All questions of the start are answered.
    pub(super) fn answer_all(&self) {
        locked(&self.answers).asked = None;
        self.answered.notify_all();
    }

    /// Lets answers arrive that would otherwise be typed into the shell.
    fn await_answers(&self) {
        let answers = locked(&self.answers);
        if self.is_up() && answers.asked.is_some_and(|asked| asked.elapsed() < 2 * ANSWER) {
            let waits = |answers: &mut Answers| answers.asked.is_some();
            drop(self.answered.wait_timeout_while(answers, LATE_ANSWER, waits));
        }
    }
}

/// Stops, as any program does that wants the terminal from the background, until it is ours.
fn wait_for_foreground(tty: &OwnedFd) -> io::Result<()> {
    for _ in 0..3 {
        if process::is_in_foreground(tty.as_fd()) {
            return Ok(());
        }
        kill_process(getpid(), Signal::TTOU)?;
        // Nobody would ever continue an orphaned group, so the system does not stop it.
        thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "the terminal belongs to another program"))
}
