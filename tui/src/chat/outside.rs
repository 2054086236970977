//! [`Outside`]: what the chat does to the world: the engine, the session's file, the history.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use tercet_host::content_hash::content_hash;
use tercet_host::forward::Cancel;

use super::command::{self, ExportKind};
use super::conversation::Conversation;
use super::export::{Kind, export};
use super::history::History;
use super::private::state_folder;
use super::record::Record;
use super::state::{Chat, Effect, State};
use super::store::{OpenRecord, Resumed, Store};
use super::worker::{Engine, News, Ready};
use crate::args::ChatArgs;
use crate::failure::Failure;

/// Most sessions that are listed.
const LISTED: usize = 20;
/// Most sessions whose names are completed.
const NAMES: usize = 200;

/// What a chat is connected to.
#[derive(Debug)]
pub struct Outside<T> {
    /// What answers; there until the end.
    engine: Option<Engine>,
    store: Option<Store>,
    open: Option<OpenRecord>,
    history: Option<History>,
    news: Sender<T>,
    /// The model whose content is being hashed, or was.
    hashed: Option<Ready>,
    /// Whether it was said that sessions cannot be saved.
    warned: bool,
    pace: Arc<Pace>,
}

/// Lets work that nobody waits for wait for the work that somebody does.
#[derive(Debug, Default)]
struct Pace {
    busy: AtomicBool,
    over: AtomicBool,
}

impl Pace {
    /// How often it looks whether it may go on.
    const LOOK: Duration = Duration::from_millis(5);

    /// Waits while an answer is given. `Break` when the chat is over.
    fn wait(&self) -> ControlFlow<()> {
        while self.busy.load(Ordering::Relaxed) && !self.over.load(Ordering::Relaxed) {
            thread::sleep(Self::LOOK);
        }
        match self.over.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

impl<T> Drop for Outside<T> {
    fn drop(&mut self) {
        self.pace.over.store(true, Ordering::Relaxed);
    }
}

/// A chat, and what it is connected to.
#[derive(Debug)]
pub struct Begun<T> {
    /// The chat.
    pub chat: Chat,
    /// Its connections.
    pub outside: Outside<T>,
    /// What was typed before, oldest first.
    pub history: Vec<String>,
}

impl<T: From<News> + Send + 'static> Outside<T> {
    /// Begins a chat as the options say: the engine starts, and an old session goes on if it is
    /// asked for. What the engine tells goes to `news`; `cancel` stops its answers.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the session that is asked for cannot be resumed.
    pub fn begin(args: &ChatArgs, cancel: Cancel, news: Sender<T>) -> Result<Begun<T>, Failure> {
        let conversation = Conversation::new(args.system.clone(), args.sampling.clone());
        let mut chat = Chat::new(conversation, args.device.clone());
        let state = state_folder(|name| std::env::var_os(name));
        let mut history = state.as_deref().filter(|_| !args.no_history).map(History::new);
        let entries = match history.as_mut().map(History::load) {
            None => Vec::new(),
            Some(Ok(entries)) => entries,
            Some(Err(failure)) => {
                tell(&mut chat, &failure);
                history = None;
                Vec::new()
            }
        };
        let (store, open) = sessions(args, state.as_deref(), &mut chat)?;
        let model = (args.model.clone(), args.chat_form);
        let engine = Engine::start(model, args.device.clone(), cancel, news.clone())?;
        let hashed = None;
        let pace = Arc::default();
        let warned = false;
        let engine = Some(engine);
        let outside = Self { engine, store, open, history, news, hashed, warned, pace };
        Ok(Begun { chat, outside, history: entries })
    }

    /// Notes whether an answer is given, for what can wait.
    pub fn watch(&self, chat: &Chat) {
        self.pace.busy.store(chat.is_busy(), Ordering::Relaxed);
    }

    /// Does what the chat asks for; tells it what came of it. What only a screen can do is left:
    /// it is given back.
    pub fn perform(&mut self, effect: Effect, chat: &mut Chat) -> Option<Effect> {
        match effect {
            Effect::Ask(ask) => {
                if let Some(engine) = &self.engine {
                    engine.ask(ask);
                }
            }
            Effect::Stop => {
                if let Some(engine) = &self.engine {
                    engine.stop();
                }
            }
            Effect::Save => self.save(chat),
            Effect::Begin => self.open = self.store.as_ref().map(Store::create),
            Effect::SaveAs(None) => self.save_as_its_own(chat),
            Effect::SaveAs(Some(path)) => self.export(chat, Kind::Json, &path),
            Effect::Load(None) => self.list(chat),
            Effect::Load(Some(name)) => self.load(&name, chat),
            Effect::Export(path, kind) => {
                let kind = match kind {
                    ExportKind::Markdown => Kind::Markdown,
                    ExportKind::Json => Kind::Json,
                };
                let path = path.unwrap_or_else(|| default_name(kind));
                self.export(chat, kind, &path);
            }
            other => return Some(other),
        }
        None
    }

    /// Saves the session if there is a place for it. That it cannot be saved is said once.
    pub fn save(&mut self, chat: &mut Chat) {
        let Some(open) = &mut self.open else { return };
        if chat.conversation.is_replacing() {
            // The turn that may come back stays in the file until it is clear whether it does.
            return;
        }
        match open.save(chat.conversation.record_mut()) {
            Ok(()) => self.warned = false,
            Err(failure) if !self.warned => {
                self.warned = true;
                tell(chat, &failure);
            }
            Err(_) => {}
        }
    }

    /// Finds out what the model's content is, beside everything else: it takes a while for large
    /// ones, and nobody waits for it.
    pub fn hash(&mut self, chat: &Chat) {
        let (Some(ready), true) = (&chat.ready, self.open.is_some()) else { return };
        let is_known = |hashed: &Ready| Arc::ptr_eq(&hashed.package, &ready.package);
        if self.hashed.as_ref().is_some_and(is_known) {
            return;
        }
        self.hashed = Some(ready.clone());
        let (package, news) = (Arc::clone(&ready.package), self.news.clone());
        let pace = Arc::clone(&self.pace);
        let hash = move || {
            let mut go_on = |_, _| pace.wait();
            if let Ok(Some(hash)) = content_hash(&package.checkpoint, &mut go_on) {
                // Nobody is left to hear it when the chat has ended.
                let _ = news.send(News::Hashed { package, hash }.into());
            }
        };
        // Without a thread the session is saved without a hash.
        let _ = thread::Builder::new().name("tercet-hash".into()).spawn(hash);
    }

    /// Keeps what was typed.
    pub fn remember(&mut self, text: &str, chat: &mut Chat) {
        if let Some(history) = &mut self.history
            && let Err(failure) = history.push(text)
        {
            tell(chat, &failure);
            self.history = None;
        }
    }

    fn save_as_its_own(&mut self, chat: &mut Chat) {
        if self.open.is_none() {
            return chat.error(
                "sessions are not saved here",
                "/save FILE saves to a file of yours; leave out --no-save, or set HOME",
            );
        }
        self.save(chat);
        match self.open.as_ref().and_then(OpenRecord::path) {
            Some(path) => chat.notice(&format!("saved as {}", path.display())),
            None => chat.notice("nothing was said yet: the first answer is saved by itself"),
        }
    }

    fn export(&self, chat: &mut Chat, kind: Kind, path: &Path) {
        match export(chat.conversation.record(), kind, path, false) {
            Ok(()) => chat.notice(&format!("written: {}", path.display())),
            Err(failure) => tell(chat, &failure),
        }
    }

    fn list(&self, chat: &mut Chat) {
        let Some(store) = &self.store else {
            return chat.error("sessions are not saved here", "/load FILE reads a file of yours");
        };
        match store.list(LISTED) {
            Err(failure) => tell(chat, &failure),
            Ok(sessions) if sessions.is_empty() => chat.notice("no session was saved yet"),
            Ok(sessions) => {
                let line = |listed: &super::store::Listed| {
                    let turns = listed.turns;
                    format!("{}  {} ({turns} turns, {})", listed.name, listed.title, listed.model)
                };
                let lines: Vec<_> = sessions.iter().map(line).collect();
                chat.notice(&lines.join("\n"));
            }
        }
    }

    fn load(&mut self, name: &str, chat: &mut Chat) {
        let path = command::path(name);
        let name = &*path.to_string_lossy();
        let Some(store) = &self.store else {
            return match Record::read(Path::new(name)) {
                Ok(record) => chat.resume(record),
                Err(failure) => tell(chat, &failure),
            };
        };
        match store.resume(Some(name)) {
            Err(failure) => tell(chat, &failure),
            Ok(resumed) => self.open = Some(resume(resumed, chat)),
        }
    }

    /// Names of the saved sessions, the one saved last first.
    #[must_use]
    pub fn session_names(&self) -> Vec<String> {
        self.store.as_ref().map(|store| store.names(NAMES)).unwrap_or_default()
    }

    /// Ends the chat: saves what is there of an answer that is being given, stops the engine, and
    /// tells why that had ended if it had.
    ///
    /// # Errors
    ///
    /// [`Failure`] of the engine.
    pub fn end(mut self, chat: &mut Chat) -> Result<(), Failure> {
        let is_loading = matches!(chat.state, State::Loading(..));
        if chat.conversation.interrupt(&chat.stats) {
            self.save(chat);
        }
        let end = if is_loading { Engine::abandon } else { Engine::end };
        self.engine.take().map_or(Ok(()), end)
    }
}

/// The store of sessions and the file of this one, as far as the options and the system allow.
fn sessions(
    args: &ChatArgs,
    state: Option<&Path>,
    chat: &mut Chat,
) -> Result<(Option<Store>, Option<OpenRecord>), Failure> {
    let Some(state) = state.filter(|_| !args.no_save) else {
        if args.resume.is_some() {
            return Err(Failure::NoInput {
                what: "there is no folder with saved sessions",
                hint: "set HOME or TERCET_STATE_DIR",
            });
        }
        if !args.no_save && !args.device.quiet {
            chat.notice("no HOME is set: this session is not saved");
        }
        return Ok((None, None));
    };
    let store = match Store::open(state) {
        Ok(store) => store,
        Err(failure) if args.resume.is_some() => return Err(failure),
        Err(failure) => {
            tell(chat, &failure);
            return Ok((None, None));
        }
    };
    let open = match &args.resume {
        None => store.create(),
        Some(name) => {
            let name = Some(name.as_str()).filter(|name| !name.is_empty());
            resume(store.resume(name)?, chat)
        }
    };
    Ok((Some(store), Some(open)))
}

/// Lets the chat go on with an old session.
fn resume(resumed: Resumed, chat: &mut Chat) -> OpenRecord {
    let Resumed { record, open, set_aside } = resumed;
    let title = record.title();
    chat.resume(record);
    for path in set_aside {
        chat.notice(&format!("a damaged session is now called {}", path.display()));
    }
    chat.notice(&format!("goes on with: {title}"));
    open
}

/// Says in the chat what went wrong.
fn tell(chat: &mut Chat, failure: &Failure) {
    let (what, hint) = failure.message();
    chat.error(&what, hint);
}

/// Where `/export` writes unless it is told.
fn default_name(kind: Kind) -> PathBuf {
    match kind {
        Kind::Markdown => "tercet-chat.md".into(),
        Kind::Json => "tercet-chat.json".into(),
    }
}
