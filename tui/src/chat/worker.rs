//! The engine's thread: opens models and answers. The rest of the chat talks to it by messages, so
//! that nothing that draws ever waits for anything that computes.

use core::ops::ControlFlow;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use tercet_host::backend::TokenId;
use tercet_host::event::Event;
use tercet_host::forward::Cancel;
use tercet_host::package::{Package, Source};
use tercet_host::sampler::Sampling;
use tercet_host::session::{PromptError, Request};
use tercet_host::text::Message;

use crate::answer::encode;
use crate::args::{ChatForm, DeviceArgs, ModelArg, SamplingArgs};
use crate::engine::{self, AnySession, Place, Use, Watch, with_watched_session};
use crate::failure::Failure;

/// What the engine is asked for.
#[derive(Debug)]
pub enum Ask {
    /// An answer.
    Answer(Question),
    /// Another model; the present one stays if it cannot be had.
    Model(ModelArg),
}

/// A conversation that waits for its next answer.
#[derive(Debug, Clone)]
pub struct Question {
    /// The conversation; the last message is the user's.
    pub messages: Vec<Message>,
    /// How tokens are chosen, over the model's own way.
    pub options: SamplingArgs,
    /// Seed of the choices.
    pub seed: u64,
}

/// What the engine tells, in the order in which it happened.
#[derive(Debug)]
pub enum News {
    /// So many bytes of the model are where they are needed.
    Loading {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A line worth reading.
    Note(String),
    /// A model can be asked.
    Ready(Ready),
    /// The question became tokens; computing begins.
    Begun {
        /// Token ids of the whole conversation.
        prompt: Vec<TokenId>,
        /// How the answer's tokens are chosen.
        sampling: Sampling,
    },
    /// What the session tells of an answer.
    Heard(Event),
    /// An answer cannot be had; everything is as it was before.
    Refused(Refusal),
    /// A model cannot be had.
    NoModel {
        /// Why.
        refusal: Refusal,
        /// Whether the one before has to be loaded again; otherwise it is still there.
        reloads: bool,
    },
    /// What a model's content is; found out beside everything else.
    Hashed {
        /// The model.
        package: Arc<Package>,
        /// [`content_hash`](tercet_host::content_hash::content_hash) of it.
        hash: String,
    },
    /// The engine is gone; [`Engine::end`] knows why.
    Ended,
}

/// A model that can be asked.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The model.
    pub package: Arc<Package>,
    /// Where it came from.
    pub source: Source,
    /// The chat form that was asked for.
    pub form: ChatForm,
    /// Positions of its session.
    pub context: usize,
    /// Where it computes.
    pub place: Place,
}

/// Why something cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
    /// Whether the conversation has grown too long.
    pub is_too_long: bool,
}

impl From<&Failure> for Refusal {
    fn from(failure: &Failure) -> Self {
        use tercet_host::error::Error;
        let (what, hint) = failure.message();
        let is_too_long =
            matches!(failure, Failure::Host(Error::Prompt(PromptError::TooLong { .. })));
        Self { what, hint, is_too_long }
    }
}

/// The engine, seen from outside its thread.
#[derive(Debug)]
pub struct Engine {
    asks: Option<Sender<Ask>>,
    cancel: Cancel,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl Engine {
    /// Starts the thread, which opens `model`, with the chat form that is asked for, at once and
    /// sends its `news`. `cancel` stops its answers.
    ///
    /// # Errors
    ///
    /// [`Failure::Io`] when the system has no thread to give.
    pub fn start<T: From<News> + Send + 'static>(
        (model, form): (ModelArg, ChatForm),
        device: DeviceArgs,
        cancel: Cancel,
        news: Sender<T>,
    ) -> Result<Self, Failure> {
        let (asks, heard) = channel();
        let stop = cancel.clone();
        let run = move || {
            let news = Teller(&news);
            let work = Work { device, asks: heard, news: &news, cancel: stop };
            // The panic's message is out already; what remains is the exit code.
            let done = catch_unwind(AssertUnwindSafe(|| work.run(&model, form)));
            let _ = news.tell(News::Ended);
            done.unwrap_or(Err(Failure::Internal))
        };
        let thread = thread::Builder::new().name("tercet-engine".into()).spawn(run);
        let thread = Some(thread.map_err(Failure::io)?);
        Ok(Self { asks: Some(asks), cancel, thread })
    }

    /// Asks. While the engine is busy the ask waits; a stop that was asked for before is forgotten.
    pub fn ask(&self, ask: Ask) {
        self.cancel.clear();
        if let Some(asks) = &self.asks {
            // An engine that is gone says so by its news.
            let _ = asks.send(ask);
        }
    }

    /// Stops the answer that is being given. Heard before the next layer.
    pub fn stop(&self) {
        self.cancel.request();
    }

    /// Stops it, waits for its end, and gives the reason if that was no good one.
    ///
    /// # Errors
    ///
    /// [`Failure`] of the first model, and [`Failure::Internal`] after a panic.
    pub fn end(mut self) -> Result<(), Failure> {
        self.hang_up().unwrap_or(Ok(()))
    }

    /// Leaves it alone, to end with the program: loading a model cannot be stopped. If it has ended
    /// by itself, gives the reason.
    ///
    /// # Errors
    ///
    /// As [`Engine::end`].
    pub fn abandon(mut self) -> Result<(), Failure> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            return self.end();
        }
        self.thread = None;
        Ok(())
    }

    fn hang_up(&mut self) -> Option<Result<(), Failure>> {
        self.stop();
        self.asks = None;
        let thread = self.thread.take()?;
        Some(thread.join().unwrap_or(Err(Failure::Internal)))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever wanted to know the reason has called `end`.
        let _ = self.hang_up();
    }
}

/// Who is told: a channel of whatever the other side listens to.
trait Tell: Sync {
    /// Tells; `Break` when nobody listens any more.
    fn tell(&self, news: News) -> ControlFlow<()>;

    fn refuse(&self, failure: &Failure) {
        let _ = self.tell(News::Refused(failure.into()));
    }
}

struct Teller<'a, T>(&'a Sender<T>);

impl<T: From<News> + Send> Tell for Teller<'_, T> {
    fn tell(&self, news: News) -> ControlFlow<()> {
        match self.0.send(news.into()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

impl Watch for &dyn Tell {
    fn note(&self, line: &str) {
        let _ = self.tell(News::Note(line.to_owned()));
    }

    fn loading(&self, done: u64, total: u64) {
        let _ = self.tell(News::Loading { done, total });
    }
}

/// A model, and where it came from.
struct Opened {
    source: Source,
    form: ChatForm,
    package: Arc<Package>,
}

impl Opened {
    fn open(model: &ModelArg, form: ChatForm) -> Result<Self, Failure> {
        let source = engine::source(model);
        let package = Arc::new(engine::open_to_chat(model, form)?);
        Ok(Self { source, form, package })
    }
}

/// The thread.
struct Work<'a> {
    device: DeviceArgs,
    asks: Receiver<Ask>,
    news: &'a dyn Tell,
    cancel: Cancel,
}

impl Work<'_> {
    /// Serves one model after the other until nobody asks any more.
    fn run(mut self, model: &ModelArg, form: ChatForm) -> Result<(), Failure> {
        let mut opened = Opened::open(model, form)?;
        let mut before = None;
        loop {
            opened = match self.with_model(&opened) {
                Ok(Some(next)) => {
                    before = Some(opened);
                    next
                }
                Ok(None) => return Ok(()),
                // The one before has worked, and the memory it needs is free again.
                Err(failure) => match before.take() {
                    Some(before) => {
                        let refusal = (&failure).into();
                        let _ = self.news.tell(News::NoModel { refusal, reloads: true });
                        before
                    }
                    None => return Err(failure),
                },
            };
        }
    }

    /// Serves one model. Returns the next one, or `None` at the end.
    fn with_model(&mut self, opened: &Opened) -> Result<Option<Opened>, Failure> {
        let Opened { source, form, package } = opened;
        let context = engine::context(package, self.device.ctx)?;
        let Self { device, asks, news, cancel } = self;
        let news = *news;
        let how = (context, Use::Answer);
        with_watched_session(package, device, how, &news, move |session, place| {
            let (source, package) = (source.clone(), Arc::clone(package));
            let form = *form;
            let ready = Ready { package: Arc::clone(&package), source, form, context, place };
            let _ = news.tell(News::Ready(ready));
            while let Ok(ask) = asks.recv() {
                match ask {
                    Ask::Model(model) => match Opened::open(&model, ChatForm::Auto) {
                        Ok(next) => return Ok(Some(next)),
                        Err(failure) => {
                            let refusal = (&failure).into();
                            let _ = news.tell(News::NoModel { refusal, reloads: false });
                        }
                    },
                    Ask::Answer(question) => {
                        if let Err(failure) = answer(session, &package, &question, cancel, news) {
                            news.refuse(&failure);
                        }
                    }
                }
            }
            Ok(None)
        })
    }
}

/// Gives one answer, telling as it goes.
fn answer(
    session: &mut AnySession<'_>,
    package: &Package,
    question: &Question,
    cancel: &Cancel,
    news: &dyn Tell,
) -> Result<(), Failure> {
    let prompt = encode(package, &question.messages)?;
    let sampling = engine::sampling(package, &question.options);
    let _ = news.tell(News::Begun { prompt: prompt.clone(), sampling });
    let request = Request {
        prompt: &prompt,
        max_tokens: question.options.max_tokens.unwrap_or(usize::MAX),
        sampling,
        seed: question.seed,
        stop_tokens: &package.stop_tokens,
        stop_texts: &question.options.stop,
    };
    let mut sink = |event: Event| news.tell(News::Heard(event));
    let finished = session.generate(&request, package.tokenizer.as_ref(), cancel, &mut sink);
    finished.map_err(tercet_host::error::Error::from)?;
    Ok(())
}
