//! The chat on a whole screen, or in a few lines at the bottom of one: the loop that waits, draws
//! and does what it is asked.
//!
//! Everything comes through one channel: keys from the thread that reads the terminal, news from
//! the engine's. So one thread owns the chat, never waits for anything that computes, and draws at
//! most thirty times a second, however fast tokens come.

use core::time::Duration;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use ratatui::backend::Backend;
use ratatui::text::Line;
use ratatui::widgets::Widget;
use ratatui::{Terminal, TerminalOptions, Viewport};
use tercet_host::measure::sampler::{INTERVAL, Probe, Sampler};

use super::app::{App, Look, Places, Wish};
use super::outside::{Begun, Outside};
use super::state::Effect;
use super::theme::Theme;
use super::worker::News;
use crate::args::{ChatArgs, ThemeArg};
use crate::failure::Failure;
use crate::signals::Signals;
use crate::terminal::{Background, Canvas, Incoming, Kind, Options, Place, Screen};

/// Least time between two frames.
const FRAME: Duration = Duration::from_millis(33);
/// Time after which numbers that depend on the clock are drawn anew.
const TICK: Duration = Duration::from_millis(200);
/// What most models need to fail, if they do: no screen is taken over for that.
const FAILS_FAST: Duration = Duration::from_millis(100);
/// Rows of the chat at the bottom of a screen.
const INLINE: u16 = 12;

/// What the loop hears.
#[derive(Debug)]
enum Input {
    /// From the terminal.
    Terminal(Incoming),
    /// From the engine.
    News(News),
}

impl From<News> for Input {
    fn from(news: News) -> Self {
        Self::News(news)
    }
}

/// Chats on the screen.
///
/// # Errors
///
/// [`Failure`] of the first model, the device or the terminal; everything else is said in the chat,
/// which goes on.
pub fn converse(args: &ChatArgs, kind: Kind, signals: &Signals) -> Result<(), Failure> {
    let (sender, inputs) = channel();
    let begun = Outside::begin(args, signals.cancel.clone(), sender.clone())?;
    let Begun { mut chat, outside, history } = begun;
    let first = match inputs.recv_timeout(FAILS_FAST) {
        Ok(Input::News(news @ News::Ended)) => {
            chat.hear(news);
            return outside.end(&mut chat);
        }
        first => first.ok(),
    };
    let sampler = Sampler::start(INTERVAL).map_err(Failure::io)?;
    let places = Places {
        sessions: outside.session_names(),
        folder: std::env::current_dir().unwrap_or_default(),
        home: std::env::var_os("HOME").map(PathBuf::from),
    };
    let look =
        Look { theme: theme(args.theme, kind, None), ascii: args.ascii, inline: args.inline };
    let place = if args.inline { Place::Inline } else { Place::Full };
    let options =
        Options { place, mouse: false, ask: kind.answers && args.theme == ThemeArg::Auto };
    let tell = move |event| drop(sender.send(Input::Terminal(event))); // nobody listens at the end
    let screen = Screen::enter(options, signals, tell).map_err(Failure::io)?;
    let terminal = terminal(&screen, place)?;
    let mut full = Full {
        app: App::new(chat, history, places, look),
        outside,
        probe: sampler.probe(),
        screen,
        terminal,
        place,
        chosen: (args.theme, kind),
    };
    let talked = full.run(first, &inputs);
    let Full { mut app, outside, screen, mut terminal, place, .. } = full;
    let cleared = match place {
        // What was said stays; what is being typed and counted does not.
        Place::Inline if talked.is_ok() => {
            terminal.clear().and_then(|()| terminal.backend_mut().flush())
        }
        _ => Ok(()),
    };
    drop(terminal);
    // Whatever becomes of the terminal, the session is saved.
    let left = cleared.and(screen.leave()).map_err(Failure::io);
    let ended = outside.end(&mut app.chat);
    talked.and(ended).and(left)
}

/// The chat and all that it is connected to.
struct Full {
    app: App,
    outside: Outside<Input>,
    probe: Probe,
    screen: Screen,
    terminal: Terminal<Canvas>,
    place: Place,
    /// What the user and the environment say about colours.
    chosen: (ThemeArg, Kind),
}

impl Full {
    /// Hears and draws until the user leaves.
    fn run(&mut self, first: Option<Input>, inputs: &Receiver<Input>) -> Result<(), Failure> {
        let mut waiting = first;
        let mut drawn = None;
        let mut is_new = true;
        loop {
            while let Some(input) = waiting.take().or_else(|| inputs.try_recv().ok()) {
                is_new = true;
                if !self.hear(input)? {
                    return Ok(());
                }
            }
            self.outside.watch(&self.app.chat);
            is_new |= self.app.see(self.probe.latest());
            let since = drawn.map(|drawn: Instant| drawn.elapsed());
            is_new |= self.app.is_moving() && since.is_some_and(|since| since >= TICK);
            let left = since.map_or(Duration::ZERO, |since| FRAME.saturating_sub(since));
            if is_new && left.is_zero() {
                self.draw()?;
                drawn = Some(Instant::now());
                is_new = false;
            }
            let patience = match (is_new, self.app.is_moving()) {
                (true, _) => left,
                (false, true) => TICK,
                (false, false) => INTERVAL,
            };
            if self.app.chat.is_busy() {
                // Tokens may come much faster than frames: to wake for each of them would take the
                // processor from those who make them. A key waits no longer than a frame.
                let rest = drawn.map_or(FRAME, |drawn| FRAME.saturating_sub(drawn.elapsed()));
                thread::sleep(rest.max(FRAME / 4));
                continue;
            }
            waiting = match inputs.recv_timeout(patience) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                // It cannot: both threads hold a sender, and end after this loop.
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Internal),
            };
        }
    }

    /// Hears one thing. `false` at the end.
    fn hear(&mut self, input: Input) -> Result<bool, Failure> {
        let wishes = match input {
            Input::News(news) => {
                if let News::Ready(ready) = &news {
                    let place = &ready.place;
                    self.probe.session(place.held, ready.context, place.meter.clone());
                }
                let is_ready = matches!(news, News::Ready(_));
                let wishes = self.app.news(news);
                if is_ready {
                    self.outside.hash(&self.app.chat);
                }
                self.probe.reached(self.app.chat.context_used);
                wishes
            }
            Input::Terminal(Incoming::Key(key)) => self.app.key(key),
            Input::Terminal(Incoming::Paste(text)) => {
                self.app.paste(&text);
                Vec::new()
            }
            Input::Terminal(Incoming::PasteTooLong(bytes)) => {
                let what = format!("a paste of {bytes} bytes is too long");
                self.app.chat.error(&what, "put it into a file, and give it to `tercet run`");
                Vec::new()
            }
            Input::Terminal(Incoming::Mouse(event)) => {
                self.app.mouse(event);
                Vec::new()
            }
            Input::Terminal(Incoming::Resize) => Vec::new(),
            Input::Terminal(Incoming::Background(background)) => {
                let (asked, kind) = self.chosen;
                self.app.set_theme(theme(asked, kind, Some(background)));
                Vec::new()
            }
            Input::Terminal(Incoming::Suspend) => vec![Wish::Suspend],
            Input::Terminal(Incoming::Resumed) => {
                self.screen.resume().map_err(Failure::io)?;
                self.terminal = terminal(&self.screen, self.place)?;
                Vec::new()
            }
            Input::Terminal(Incoming::Ending(ending)) => return Err(Failure::Ended(ending)),
        };
        for wish in wishes {
            if !self.grant(wish)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does what is asked for. `false` when that is the end.
    fn grant(&mut self, wish: Wish) -> Result<bool, Failure> {
        match wish {
            Wish::Chat(effect) => {
                let renames = matches!(effect, Effect::Begin | Effect::Load(_));
                match self.outside.perform(effect, &mut self.app.chat) {
                    Some(Effect::Quit) => return Ok(false),
                    Some(Effect::Copy(text)) => self.copy(&text),
                    _ => {}
                }
                if renames {
                    self.app.know_sessions(self.outside.session_names());
                }
            }
            Wish::Remember(text) => self.outside.remember(&text, &mut self.app.chat),
            Wish::Suspend => {
                if !self.screen.suspend().map_err(Failure::io)? {
                    self.app.chat.notice("no shell waits for the program: it cannot be stopped");
                }
            }
            Wish::Mouse(on) => self.screen.set_mouse(on).map_err(Failure::io)?,
            Wish::Redraw => self.terminal.clear().map_err(Failure::io)?,
        }
        Ok(true)
    }

    fn copy(&mut self, text: &str) {
        match self.screen.copy(text) {
            Ok(()) => self.app.chat.notice("copied, if the terminal allows it (OSC 52)"),
            Err(error) => {
                self.app.chat.error(&error.to_string(), "write it to a file with /export");
            }
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        if self.place == Place::Inline {
            let width = self.terminal.size().map_err(Failure::io)?.width;
            let lines = self.app.settle(width);
            self.insert(&lines)?;
        }
        let now = Instant::now();
        self.terminal.draw(|frame| self.app.draw(frame, now)).map_err(Failure::io)?;
        Ok(())
    }

    /// Puts lines above the chat, where they stay.
    fn insert(&mut self, lines: &[Line<'static>]) -> Result<(), Failure> {
        for lines in lines.chunks(usize::from(u8::MAX)) {
            let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
            let draw = |buf: &mut ratatui::buffer::Buffer| {
                for (line, row) in lines.iter().zip(buf.area.rows()) {
                    line.render(row, buf);
                }
            };
            self.terminal.insert_before(height, draw).map_err(Failure::io)?;
        }
        Ok(())
    }
}

/// What draws on the screen.
fn terminal(screen: &Screen, place: Place) -> Result<Terminal<Canvas>, Failure> {
    let viewport = match place {
        Place::Full => Viewport::Fullscreen,
        Place::Inline => Viewport::Inline(INLINE),
    };
    let options = TerminalOptions { viewport };
    let mut terminal = Terminal::with_options(screen.canvas(), options).map_err(Failure::io)?;
    terminal.clear().map_err(Failure::io)?;
    Ok(terminal)
}

/// The colours that were asked for, on a `background` if the terminal has told.
fn theme(asked: ThemeArg, kind: Kind, background: Option<Background>) -> Theme {
    match asked {
        ThemeArg::Auto => kind.theme(background),
        ThemeArg::Dark => Theme::dark(),
        ThemeArg::Light => Theme::light(),
        ThemeArg::None => Theme::plain(),
    }
}
