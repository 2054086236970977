//! What the panel says, block by block.

use core::time::Duration;

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use tercet_host::measure::memory::{Memory, MemoryKind, Part};

use super::plot::{Glyphs, MARK};
use super::units::{bytes, millis, percent, rate, share, time};
use super::{PanelView, State};
use crate::chat::theme::Theme;
use crate::clean::OneLine;
use crate::stats::{Cause, NEIGHBOURS_MAX, Stall};

/// A full context is near.
const CONTEXT_WARNING: f64 = 0.9;
/// Rows of a histogram.
const HISTOGRAM_ROWS: usize = 3;
/// Buckets of a histogram at most.
const BUCKETS_MAX: usize = 24;
/// Columns of an entry of the legend.
const LEGEND: usize = 20;
/// Stalls that are told one by one.
const STALLS_TOLD: usize = 3;

/// Lines that stand or fall together.
#[derive(Debug)]
pub(super) struct Block {
    /// 0 is what nobody wants to miss.
    pub(super) rank: u8,
    /// Blocks of one group stand together.
    pub(super) group: Group,
    pub(super) lines: Vec<Line<'static>>,
}

/// What blocks are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Engine,
    Speed,
    Gaps,
    Histogram,
    Context,
    Memory,
}

/// The blocks of `columns` (1..=3) columns of `width` cells, with a sparkline of `spark_rows`.
pub(super) fn columns(
    view: &PanelView<'_>,
    theme: &Theme,
    (width, spark_rows): (usize, usize),
    columns: usize,
) -> Vec<Vec<Block>> {
    let draw = Draw { view, theme, width, spark_rows, glyphs: Glyphs::new(view.ascii) };
    let place = |group| match (columns, group) {
        (1, _) | (_, Group::Engine | Group::Speed) => 0,
        (2, Group::Context) => 0,
        (2, _) | (3, Group::Gaps | Group::Histogram) => 1,
        _ => 2,
    };
    let mut placed: Vec<Vec<Block>> = (0..columns).map(|_| Vec::new()).collect();
    for block in draw.blocks() {
        placed[place(block.group)].push(block);
    }
    placed
}

/// Words of one line, most important first.
pub(super) fn fragments(view: &PanelView<'_>, theme: &Theme) -> Vec<(String, Style)> {
    let PanelView { stats, ascii, .. } = *view;
    let mut words = vec![state(view, theme)];
    if let Some(now) = stats.rate_now(waiting(view)).or(stats.rate()) {
        words.push((format!("{} tokens/s", rate(now)), theme.accent));
    }
    if view.device.is_fallback {
        let device = clean(view.device.name, ascii);
        let kind = device.split(',').next().unwrap_or_default();
        words.push((marked(kind), theme.warning));
    }
    if let Some((full, is_near)) = fullness(view) {
        let style = if is_near { theme.warning } else { theme.text };
        words.push((mark_if(is_near, format!("context {}", percent(full))), style));
    }
    if let Some(first) = stats.ttft() {
        words.push((format!("first {}", time(first, ascii)), theme.text));
    }
    if let Some(itl) = stats.gaps().percentiles() {
        words.push((format!("p50 {}", millis(itl.p50, ascii)), theme.text));
        words.push((format!("p99 {}", millis(itl.p99, ascii)), theme.text));
    }
    if stats.stall_count() > 0 {
        words.push((marked(&count(stats.stall_count(), "stall")), theme.warning));
    }
    if let Some(memory) = &view.seen.memory {
        words.push((format!("{} {}", memory_name(memory), bytes(memory.ours())), theme.text));
    }
    if !view.device.is_fallback {
        words.push((clean(view.device.name, ascii), theme.dim));
    }
    words.push((clean(view.model, ascii), theme.dim));
    words.retain(|(text, _)| !text.is_empty());
    words
}

/// Everything, as text.
pub(super) fn report(view: &PanelView<'_>) -> Vec<String> {
    let PanelView { stats, ascii, .. } = *view;
    let glyphs = Glyphs::new(ascii);
    let mut lines = Vec::new();
    let mut say = |name: &str, text: String| lines.push(format!("{name:<12} {text}"));
    let theme = Theme::plain();
    say("model", clean(view.model, ascii));
    let why = clean(view.device.why, ascii);
    let why = if why.is_empty() { why } else { format!(" ({why})") };
    let device = format!("{}{why}", clean(view.device.name, ascii));
    say("device", mark_if(view.device.is_fallback, device));
    say("state", state(view, &theme).0);
    if stats.tokens() > 0 {
        let now = stats.rate_now(waiting(view)).zip(stats.rate());
        let rates = now.map_or_else(String::new, |(now, mean)| {
            format!(", {} tokens/s now, {} mean", rate(now), rate(mean))
        });
        say("answer", format!("{}{rates}", count(stats.tokens(), "token")));
    }
    if let Some(first) = stats.ttft() {
        let prompt = stats.prompt();
        let speed = stats.prefill_rate();
        let speed = speed.map_or_else(String::new, |speed| format!(", {} tokens/s", rate(speed)));
        let (all, reused) = (count(prompt.total, "token"), prompt.reused);
        let first = time(first, ascii);
        say("first token", format!("after {first} (prompt of {all}, {reused} reused{speed})"));
    }
    if let Some((itl, (_, max))) = stats.gaps().percentiles().zip(stats.gaps().range()) {
        let [mean, p50, p90, p99] =
            [itl.mean, itl.p50, itl.p90, itl.p99].map(|ms| millis(ms, ascii));
        let max = time(max, ascii);
        say("ITL", format!("mean {mean}, p50 {p50}, p90 {p90}, p99 {p99}, max {max}"));
        let plain = [Style::new(); 2];
        let stall = stats.stall_limit();
        for line in glyphs.sparkline(stats.recent(), stall, (60, 1), plain) {
            say("", line.to_string());
        }
        if let Some(histogram) = stats.histogram(BUCKETS_MAX) {
            for line in glyphs.histogram(&histogram, stall, (BUCKETS_MAX, 1), plain) {
                let ends = [histogram.low, histogram.high].map(|end| time(end, ascii));
                say("histogram", format!("{} |{line}| {}", ends[0], ends[1]));
            }
        }
    }
    let stalls: Vec<_> =
        stats.stalls().take(STALLS_TOLD).map(|stall| stall_words(&stall, ascii)).collect();
    if !stalls.is_empty() {
        say("stalls", marked(&format!("{}: {}", stats.stall_count(), stalls.join("; "))));
    }
    if let Some((full, is_near)) = fullness(view) {
        let next = next_out(view).map_or_else(String::new, |next| format!("; {next}"));
        let context = &view.context;
        let used = format!("{} of {} positions, {}", context.used, context.limit, percent(full));
        say("context", mark_if(is_near, format!("{used}{next}")));
    }
    if let Some(memory) = &view.seen.memory {
        let (ours, total) = (bytes(memory.ours()), bytes(memory.total.bytes));
        say(memory_name(memory), format!("{ours} of {total} (1 GiB = 1024 MiB)"));
        for (name, part) in parts(memory) {
            say("", format!("{name:<8} {:>9}  {}", bytes(part.bytes), part.origin.name()));
        }
    }
    if let (Some(MemoryKind::Device), Some(resident)) =
        (view.seen.memory.map(|memory| memory.kind), view.seen.resident)
    {
        say("main memory", bytes(resident));
    }
    if let Some(words) = gpu(view) {
        say("GPU", words);
    }
    if let Some(words) = slowed(view) {
        say("", marked(&words));
    }
    if let Some(words) = neighbours(view) {
        say("neighbours", marked(&words));
    }
    lines
}

/// What all blocks need.
struct Draw<'a> {
    view: &'a PanelView<'a>,
    theme: &'a Theme,
    width: usize,
    spark_rows: usize,
    glyphs: &'static Glyphs,
}

impl Draw<'_> {
    fn line(&self, text: &str, style: Style) -> Line<'static> {
        Line::styled(self.glyphs.fit(text, self.width), style)
    }

    /// Pairs of a dim label and a number, as far as they fit.
    fn pairs(&self, pairs: &[(&str, String)]) -> Line<'static> {
        let mut line = Line::default();
        for (index, (label, number)) in pairs.iter().enumerate() {
            let space = if index == 0 { "" } else { "  " };
            let label = Span::styled(format!("{space}{label} "), self.theme.dim);
            let number = Span::styled(number.clone(), self.theme.accent);
            if line.width() + label.width() + number.width() > self.width {
                break;
            }
            line.push_span(label);
            line.push_span(number);
        }
        line
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        self.engine(&mut blocks);
        self.speed(&mut blocks);
        self.gaps(&mut blocks);
        self.histogram(&mut blocks);
        self.context(&mut blocks);
        self.memory(&mut blocks);
        blocks
    }

    fn engine(&self, blocks: &mut Vec<Block>) {
        let Self { view, theme, width, glyphs, .. } = *self;
        let mut put = |rank, lines| blocks.push(Block { rank, group: Group::Engine, lines });
        let (words, style) = state(view, theme);
        put(0, vec![self.line(&words, style)]);
        if let Some(done) = progress(view) {
            put(1, vec![Line::styled(glyphs.gauge(done, width), theme.plot)]);
        }
        let device = clean(view.device.name, view.ascii);
        let why = clean(view.device.why, view.ascii);
        if view.device.is_fallback && why.is_empty() {
            put(2, vec![self.line(&marked(&device), theme.warning)]);
        } else if view.device.is_fallback {
            let lines = [device, marked(&why)].map(|words| self.line(&words, theme.warning));
            put(2, lines.into());
        } else {
            put(3, vec![self.line(&device, theme.text)]);
            if !why.is_empty() {
                put(8, vec![self.line(&why, theme.dim)]);
            }
        }
        let model = clean(view.model, view.ascii);
        if !model.is_empty() {
            put(6, vec![self.line(&model, theme.dim)]);
        }
        if let Some(words) = gpu(view) {
            put(7, vec![self.line(&words, theme.dim)]);
        }
        if let Some(words) = slowed(view) {
            put(3, vec![self.line(&marked(&words), theme.warning)]);
        }
        if let Some(words) = neighbours(view) {
            put(4, vec![self.line(&marked(&words), theme.warning)]);
        }
    }

    fn speed(&self, blocks: &mut Vec<Block>) {
        let Self { view, .. } = self;
        let stats = view.stats;
        let mut put = |rank, pairs: &[(&str, String)]| {
            let lines = vec![self.pairs(pairs)];
            blocks.push(Block { rank, group: Group::Speed, lines });
        };
        if let Some((now, mean)) = stats.rate_now(waiting(view)).zip(stats.rate()) {
            put(1, &[("tokens/s", rate(now)), ("mean", rate(mean))]);
        }
        if let Some(first) = stats.ttft() {
            put(2, &[("first token", time(first, view.ascii))]);
        }
        if let Some(speed) = stats.prefill_rate() {
            let read = stats.prompt().total - stats.prompt().reused.min(stats.prompt().total);
            put(6, &[("prompt", read.to_string()), ("at", format!("{}/s", rate(speed)))]);
        }
    }

    fn gaps(&self, blocks: &mut Vec<Block>) {
        let Self { view, theme, width, glyphs, .. } = *self;
        let (stats, ascii) = (view.stats, view.ascii);
        let Some(itl) = stats.gaps().percentiles() else { return };
        let mut put = |rank, lines| blocks.push(Block { rank, group: Group::Gaps, lines });
        let [p50, p99] = [itl.p50, itl.p99].map(|ms| millis(ms, ascii));
        put(2, vec![self.pairs(&[("ITL p50", p50), ("p99", p99)])]);
        let stall = stats.stall_limit();
        let styles = [theme.plot, theme.warning];
        put(4, glyphs.sparkline(stats.recent(), stall, (width, self.spark_rows), styles));
        if let Some(worst) = stats.stalls().next() {
            let (many, longest) = (stats.stall_count(), time(worst.time, ascii));
            let which = if many == 1 { " of" } else { ", longest" };
            let words = format!("{}{which} {longest}", count(many, "stall"));
            put(3, vec![self.line(&marked(&words), theme.warning)]);
            let words = format!("  token {}{}", worst.token, cause_words(worst.cause));
            put(6, vec![self.line(&words, theme.warning)]);
        }
    }

    fn histogram(&self, blocks: &mut Vec<Block>) {
        let Self { view, theme, width, glyphs, .. } = *self;
        let Some(histogram) = view.stats.histogram(width.min(BUCKETS_MAX)) else { return };
        let stall = view.stats.stall_limit();
        let styles = [theme.plot, theme.warning];
        let mut lines = glyphs.histogram(&histogram, stall, (width, HISTOGRAM_ROWS), styles);
        let drawn = lines.iter().map(Line::width).max().unwrap_or(0);
        let [low, high] = [histogram.low, histogram.high].map(|end| time(end, view.ascii));
        // The upper end stands below the last bucket, or after the lower one.
        let room = drawn.saturating_sub(low.chars().count() + high.chars().count()).max(1);
        let axis = format!("{low}{:room$}{high}", "");
        lines.push(self.line(&axis, theme.dim));
        blocks.push(Block { rank: 7, group: Group::Histogram, lines });
    }

    fn context(&self, blocks: &mut Vec<Block>) {
        let Self { view, theme, width, glyphs, .. } = *self;
        let mut put =
            |rank, line| blocks.push(Block { rank, group: Group::Context, lines: vec![line] });
        let Some((full, is_near)) = fullness(view) else { return };
        let (used, limit) = (view.context.used, view.context.limit);
        let words = format!("context {used} of {limit}, {}", percent(full));
        let style = if is_near { theme.warning } else { theme.text };
        put(2, self.line(&mark_if(is_near, words), style));
        let bar = if is_near { theme.warning } else { theme.plot };
        put(5, Line::styled(glyphs.gauge(full, width), bar));
        if let Some(words) = next_out(view) {
            let (rank, style) = if is_near { (3, theme.warning) } else { (5, theme.dim) };
            put(rank, self.line(&words, style));
        }
    }

    fn memory(&self, blocks: &mut Vec<Block>) {
        let Self { view, theme, width, glyphs, .. } = *self;
        let Some(memory) = &view.seen.memory else { return };
        let mut put = |rank, lines| blocks.push(Block { rank, group: Group::Memory, lines });
        let name = memory_name(memory);
        let words = format!("{name} {} of {}", bytes(memory.ours()), bytes(memory.total.bytes));
        put(3, vec![self.line(&words, theme.text)]);
        let parts = parts(memory);
        let styles = [theme.plot, theme.plot, theme.plot, theme.plot, theme.dim, theme.dim];
        put(5, vec![glyphs.parts(parts.map(|(_, part)| part.bytes), width, styles)]);
        let entries: Vec<String> = parts
            .into_iter()
            .zip(glyphs.parts)
            .map(|((name, part), glyph)| format!("{glyph} {name:<7} {:>9}", bytes(part.bytes)))
            .collect();
        // As many beside each other as there is room for.
        let beside = ((width + 2) / (LEGEND + 2)).clamp(1, entries.len());
        let legend = entries.chunks(beside).map(|row| self.line(&row.join("  "), theme.dim));
        put(6, legend.collect());
        if let (MemoryKind::Device, Some(resident)) = (memory.kind, view.seen.resident) {
            put(7, vec![self.line(&format!("main memory {}", bytes(resident)), theme.dim)]);
        }
    }
}

/// The engine's state as words.
fn state(view: &PanelView<'_>, theme: &Theme) -> (String, Style) {
    match view.state {
        State::Loading { done, total } => {
            (format!("loading {}", percent(share(done, total))), theme.accent)
        }
        State::Reading { elapsed } => {
            let prompt = view.stats.prompt();
            let read = format!("reading {}/{}", prompt.done, prompt.total);
            let done = prompt.done.saturating_sub(prompt.reused);
            let rest = prompt.total.saturating_sub(prompt.done);
            let left = elapsed.as_secs_f64() * 1e3 * share(rest as u64, done as u64);
            if done > 0 && left >= 1e3 {
                (format!("{read}, {} left", millis(left, view.ascii)), theme.accent)
            } else {
                (read, theme.accent)
            }
        }
        State::Answering { waiting } => {
            let is_late = view.stats.stall_limit().is_some_and(|limit| waiting > limit);
            if is_late {
                (marked(&format!("waiting {}", time(waiting, view.ascii))), theme.warning)
            } else {
                (format!("answering, {}", count(view.stats.tokens(), "token")), theme.accent)
            }
        }
        State::Idle => match view.stats.end() {
            None => ("ready".into(), theme.text),
            Some(end) => {
                let reason = end.reason.name().replace('_', " ");
                (format!("{}, {reason}", count(end.tokens, "token")), theme.text)
            }
        },
    }
}

/// How far what has an end is, as a share of 1.
fn progress(view: &PanelView<'_>) -> Option<f64> {
    match view.state {
        State::Loading { done, total } => Some(share(done, total)),
        State::Reading { .. } => {
            let prompt = view.stats.prompt();
            Some(share(prompt.done as u64, prompt.total as u64))
        }
        State::Answering { .. } | State::Idle => None,
    }
}

/// Time since the last token, while more are to come.
fn waiting(view: &PanelView<'_>) -> Duration {
    match view.state {
        State::Answering { waiting } => waiting,
        _ => Duration::ZERO,
    }
}

/// How full the context is, and whether that deserves a look; `None` before there is one.
fn fullness(view: &PanelView<'_>) -> Option<(f64, bool)> {
    let full = share(view.context.used as u64, view.context.limit as u64).min(1.0);
    (view.context.limit > 0).then_some((full, full >= CONTEXT_WARNING))
}

/// What has to go first when the context is full.
fn next_out(view: &PanelView<'_>) -> Option<String> {
    view.context.next_out.map(|tokens| format!("next out: turn of {}", count(tokens, "token")))
}

fn memory_name(memory: &Memory) -> &'static str {
    match memory.kind {
        MemoryKind::Main => "memory",
        MemoryKind::Device => "GPU memory",
    }
}

/// The parts by name, in the order of the bar.
fn parts(memory: &Memory) -> [(&'static str, Part); 6] {
    let rest = match memory.kind {
        MemoryKind::Main => "program",
        MemoryKind::Device => "context",
    };
    [
        ("weights", memory.weights),
        ("cache", memory.cache),
        ("work", memory.work),
        (rest, memory.context),
        ("others", memory.others),
        ("free", memory.free),
    ]
}

/// Power and load of the GPU.
fn gpu(view: &PanelView<'_>) -> Option<String> {
    let gpu = view.seen.gpu?;
    let degrees = if view.ascii { "C" } else { "°C" };
    let words = [
        gpu.watts.map(|watts| format!("{watts:.0} W")),
        gpu.celsius.map(|celsius| format!("{celsius} {degrees}")),
        gpu.busy.map(|busy| format!("{busy} % busy")),
    ];
    let words: Vec<_> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// What holds the GPU's clocks down.
fn slowed(view: &PanelView<'_>) -> Option<String> {
    let reasons: Vec<_> = view.seen.gpu?.slowed.reasons().collect();
    (!reasons.is_empty()).then(|| format!("clocks held down: {}", reasons.join(", ")))
}

/// Others at work on the machine, if it is enough to matter.
fn neighbours(view: &PanelView<'_>) -> Option<String> {
    let cores = view.seen.neighbours.filter(|cores| *cores >= NEIGHBOURS_MAX)?;
    Some(format!("others use {cores:.1} cores"))
}

/// `312 ms at token 17, first step`.
fn stall_words(stall: &Stall, ascii: bool) -> String {
    let cause = cause_words(stall.cause);
    format!("{} at token {}{cause}", time(stall.time, ascii), stall.token)
}

/// `, first step`; nothing where nothing is known.
fn cause_words(cause: Cause) -> String {
    match cause {
        Cause::FirstStep => ", first step".into(),
        Cause::Neighbours(cores) => format!(", others {cores:.1} cores"),
        Cause::Unknown => String::new(),
    }
}

/// `1 token`, `2 tokens`.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn marked(text: &str) -> String {
    format!("{MARK} {text}")
}

fn mark_if(marks: bool, text: String) -> String {
    if marks { marked(&text) } else { text }
}

/// Somebody else's text on one line, without what a terminal would obey.
fn clean(text: &str, ascii: bool) -> String {
    let text = OneLine(text).to_string();
    if !ascii {
        return text;
    }
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}
