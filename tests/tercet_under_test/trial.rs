//! A program with the screen of the chat and nothing else: it shows what comes in, and ends as its
//! keys say.

use core::fmt::Display;
use core::hint::black_box;
use core::time::Duration;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::Paragraph;
use ratatui::{Terminal, TerminalOptions, Viewport};
use tercet::failure::Failure;
use tercet::signals::Signals;
use tercet::terminal::{Canvas, Ending, Incoming, Options, Place, Screen};
use tercet_host::package::{Package, Source};

/// First argument of a trial; `inline`, `mouse`, `ask`, `unlinked` and the path of a model may
/// follow.
pub(crate) const ARGUMENT: &str = "__trial";

/// Thirty times a second, as the chat draws.
const FRAME: Duration = Duration::from_millis(33);

pub(crate) fn main() -> ExitCode {
    tercet::program::guarded(trial)
}

/// What is shown.
#[derive(Default)]
struct Shown {
    frames: usize,
    resizes: usize,
    resumed: usize,
    /// Keys, pastes and answers, numbered.
    log: Vec<String>,
}

impl Shown {
    fn note(&mut self, what: impl Display) {
        self.log.push(format!("{}: {what}", self.log.len()));
    }
}

fn trial(signals: &Signals) -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let place = if has("inline") { Place::Inline } else { Place::Full };
    let (sender, incoming) = channel();
    let tell = move |event| drop(sender.send(event)); // nobody listens after the end
    let options = Options { place, mouse: has("mouse"), ask: has("ask") };
    if has("unlinked") {
        // It cannot start itself a second time.
        let own = std::env::current_exe().map_err(Failure::io)?;
        std::fs::remove_file(own).map_err(Failure::io)?;
    }
    let start = Instant::now();
    let screen = Screen::enter(options, signals, tell).map_err(Failure::io)?;
    let took = start.elapsed();
    let mut terminal = terminal(&screen, place)?;
    let mut shown = Shown::default();
    shown.note(format!("entered in {} us", took.as_micros()));
    loop {
        draw(&mut terminal, &mut shown)?;
        let event = match incoming.recv_timeout(FRAME) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Internal),
        };
        match event {
            Incoming::Key(key) if key == KeyEvent::from(KeyCode::Char('W')) => {
                panic_and_draw_on(&mut terminal, &mut shown)?;
            }
            Incoming::Key(key) if !key.modifiers.intersects(!KeyModifiers::SHIFT) => match key.code
            {
                KeyCode::Char('q') => return Ok(()),
                KeyCode::Char('l') => return screen.leave().map_err(Failure::io),
                KeyCode::Char('c') => screen.copy("copied").map_err(Failure::io)?,
                KeyCode::Char('m') => screen.set_mouse(true).map_err(Failure::io)?,
                KeyCode::Char('n') => screen.set_mouse(false).map_err(Failure::io)?,
                KeyCode::Char('b') => {
                    let path = arguments.iter().find(|argument| argument.contains('/'));
                    cut(path.expect("a model's path").into());
                }
                KeyCode::Char(how) if how.is_alphabetic() => end(how)?,
                code => shown.note(format!("key {code}")),
            },
            Incoming::Key(key)
                if key == KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL) =>
            {
                suspend(&screen, &mut shown)?;
            }
            Incoming::Suspend => suspend(&screen, &mut shown)?,
            Incoming::Resumed => {
                shown.resumed += 1;
                screen.resume().map_err(Failure::io)?;
                terminal = self::terminal(&screen, place)?;
            }
            Incoming::Resize => shown.resizes += 1,
            Incoming::Ending(ending) => return Err(Failure::Ended(ending)),
            Incoming::Paste(text) => {
                let sum = text
                    .bytes()
                    .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                shown.note(format!("paste of {} bytes, sum {sum:08x}", text.len()));
            }
            other => shown.note(format!("{other:?}")),
        }
    }
}

fn terminal(screen: &Screen, place: Place) -> Result<Terminal<Canvas>, Failure> {
    let viewport = match place {
        Place::Full => Viewport::Fullscreen,
        Place::Inline => Viewport::Inline(6),
    };
    let options = TerminalOptions { viewport };
    let mut terminal = Terminal::with_options(screen.canvas(), options).map_err(Failure::io)?;
    terminal.clear().map_err(Failure::io)?;
    Ok(terminal)
}

fn draw(terminal: &mut Terminal<Canvas>, shown: &mut Shown) -> Result<(), Failure> {
    shown.frames += 1;
    let keep = shown.log.len().saturating_sub(3);
    let Shown { frames, resizes, resumed, log } = shown;
    let text = format!(
        "pid {}; resumed {resumed}\nframes {frames}; resizes {resizes}\n{}",
        std::process::id(),
        log[keep..].join("\n")
    );
    terminal
        .draw(|frame| frame.render_widget(Paragraph::new(text), frame.area()))
        .map_err(Failure::io)?;
    Ok(())
}

fn suspend(screen: &Screen, shown: &mut Shown) -> Result<(), Failure> {
    if !screen.suspend().map_err(Failure::io)? {
        shown.note("nobody to go back to");
    }
    Ok(())
}

/// A thread panics while the main one draws as fast as it can, and does not listen for a while.
fn panic_and_draw_on(terminal: &mut Terminal<Canvas>, shown: &mut Shown) -> Result<(), Failure> {
    let panic = || {
        thread::sleep(Duration::from_millis(50));
        panic!("a worker stumbled over \x1b]0;title\x07 this");
    };
    let worker = thread::Builder::new().name("worker".into()).spawn(panic);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(400) {
        draw(terminal, shown)?;
    }
    drop(worker);
    Err(Failure::Ended(Ending::Panic))
}

/// Ends the program, or makes it impossible to go on.
fn end(how: char) -> Result<(), Failure> {
    match how {
        'e' => {
            let (what, hint) = ("what was wanted is not there".into(), "want something else");
            Err(Failure::Data { what, hint })
        }
        'p' => panic!("the main thread stumbled"),
        'w' => {
            drop(thread::spawn(|| panic!("a worker stumbled")));
            Ok(())
        }
        'r' => {
            let pool = || rayon::join(|| panic!("a pool stumbled"), || 1);
            drop(thread::spawn(pool));
            Ok(())
        }
        'R' => {
            rayon::spawn(|| panic!("a pool stumbled alone"));
            Ok(())
        }
        'a' => std::process::abort(),
        'x' => std::process::exit(3),
        'o' => {
            black_box(overflow(1));
            Ok(())
        }
        'h' => loop {
            thread::sleep(FRAME);
        },
        'i' => {
            eprintln!("a library says \x1b[2J something");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Cuts a model short while it is read.
fn cut(path: PathBuf) {
    let package = Package::open(&Source::Path(path.clone())).expect("a valid model");
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(0)).expect("a file of ours");
    let model = package.bind().expect("norms are read here, or should be");
    panic!("{} layers out of nothing", model.layers.len());
}

#[expect(unconditional_recursion, reason = "until the stack is full")]
fn overflow(depth: u64) -> u64 {
    black_box(overflow(black_box(depth + 1))) + 1
}
