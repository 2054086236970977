//! What the panel shows of a [`Chat`].

use std::time::Instant;

use tercet_host::measure::sampler::Snapshot;

use super::panel::{self, ContextUse, DeviceLine, PanelView};
use super::state::{Chat, State};
use crate::device::Why;

impl Chat {
    /// Tokens of the oldest turn, with the instructions before it; `None` while nothing was said,
    /// and where turns before it are forgotten, which its prompt still had.
    fn oldest_turn(&self) -> Option<usize> {
        let first = self.conversation.turns().first()?;
        (first.prompt.dropped() == 0).then(|| first.prompt.tokens() + first.tokens.len())
    }

    /// What the panel shows of it, beside what the sampler has `seen`.
    #[must_use]
    pub fn view(&self, seen: Snapshot, ascii: bool, now: Instant) -> PanelView<'_> {
        let elapsed = now.saturating_duration_since(self.since);
        let place = self.ready.as_ref().map(|ready| &ready.place);
        PanelView {
            stats: &self.stats,
            seen,
            model: self.ready.as_ref().map_or("", |ready| ready.package.checkpoint.name()),
            device: DeviceLine {
                name: &self.device_line,
                why: &self.why_line,
                is_fallback: place.is_some_and(|place| matches!(place.why, Why::Fallback { .. })),
            },
            context: ContextUse {
                used: self.context_used,
                limit: self.ready.as_ref().map_or(0, |ready| ready.context),
                next_out: self.oldest_turn(),
            },
            state: match self.state {
                State::Loading(done, total) => panel::State::Loading { done, total },
                State::Idle => panel::State::Idle,
                State::Reading(_) => panel::State::Reading { elapsed },
                State::Answering | State::Stopping => panel::State::Answering { waiting: elapsed },
            },
            ascii,
        }
    }
}
