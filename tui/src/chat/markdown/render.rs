//! One stretch of Markdown to lines.

use core::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, LinkType, Options, Parser, Tag, TagEnd};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::table::Table;
use crate::chat::theme::Theme;
use crate::chat::wrap::{self, Text, columns};
use crate::clean::clean;

/// Least width at which code is indented.
const INDENT_FROM: usize = 20;

/// What begins a line that goes on the one before it, in code.
const CONTINUED: &str = "» ";

/// Lines, and how much of the text can be forgotten.
#[derive(Debug)]
pub(super) struct Fragment {
    pub(super) lines: Vec<Line<'static>>,
    /// Bytes before the last block that has an empty line above it. Whatever comes after it, what
    /// stands before it is parsed in the same way.
    pub(super) settled: usize,
    /// Lines before that block, without the empty one.
    pub(super) settled_lines: usize,
}

/// Renders `source`; `follows` says whether something stands above it.
pub(super) fn render(source: &str, width: usize, theme: &Theme, follows: bool) -> Fragment {
    let mut renderer = Renderer {
        source,
        width: width.max(1),
        theme,
        out: Fragment { lines: Vec::new(), settled: 0, settled_lines: 0 },
        levels: Vec::new(),
        lists: Vec::new(),
        text: Text::default(),
        styles: vec![theme.text],
        links: Vec::new(),
        label: String::new(),
        table: None,
        follows,
        is_gap_due: follows,
        seen: 0,
        depth: 0,
        leaves: 0,
    };
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    for (event, range) in Parser::new_ext(source, options).into_offset_iter() {
        renderer.event(event, range);
    }
    renderer.definitions(source.len());
    renderer.out
}

/// What stands before every line of a block: the mark of an item, the bar of a quote.
#[derive(Debug)]
struct Level {
    /// Before the first line; taken by it.
    mark: Option<String>,
    /// Before the others, equally wide.
    rest: String,
}

/// What comes after the text of a link.
#[derive(Debug)]
enum After {
    /// Its address, unless that is the text.
    Address(String),
    /// The rest of what was written.
    Source(String),
}

struct Renderer<'a> {
    source: &'a str,
    width: usize,
    theme: &'a Theme,
    out: Fragment,
    levels: Vec<Level>,
    /// The number of the next item of every open list, if it has numbers, and whether it has items.
    lists: Vec<(Option<u64>, bool)>,
    /// Inline text, or code, of the block that is open.
    text: Text,
    styles: Vec<Style>,
    /// Where the text of every open link begins, and what comes after it.
    links: Vec<(usize, After)>,
    /// Language of the block of code.
    label: String,
    table: Option<Table>,
    /// Whether something stands above all of this.
    follows: bool,
    /// Whether an empty line has to stand before the next block.
    is_gap_due: bool,
    /// How much of the source has been rendered.
    seen: usize,
    /// Open elements.
    depth: usize,
    /// Open elements that are no containers of blocks.
    leaves: usize,
}

impl Renderer<'_> {
    fn event(&mut self, event: Event<'_>, range: Range<usize>) {
        if self.leaves == 0 && !matches!(event, Event::End(_)) {
            self.definitions(range.start);
            if self.depth == 0 {
                self.settle(range.start);
            }
        }
        let mut seen = range.end;
        match event {
            Event::Start(tag) => {
                self.depth += 1;
                if is_container(&tag.to_end()) {
                    seen = range.start;
                } else {
                    self.leaves += 1;
                }
                self.start(tag, &self.source[range]);
            }
            Event::End(tag) => {
                self.depth -= 1;
                if is_container(&tag) {
                    self.definitions(range.end);
                } else {
                    self.leaves -= 1;
                }
                self.end(tag);
            }
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.push(&text),
            Event::Code(code) => self.code(&code),
            Event::SoftBreak | Event::HardBreak => self.push("\n"),
            Event::Rule => {
                self.flush();
                let rule = "─".repeat(self.room());
                self.block(vec![Line::styled(rule, self.theme.dim)]);
            }
            Event::TaskListMarker(done) => self.push(if done { "[x] " } else { "[ ] " }),
            // Of extensions that are off.
            Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.push(&text)
            }
        }
        if self.leaves == 0 {
            self.seen = seen;
        }
    }

    /// Notes that a block begins at `start`, in no other.
    fn settle(&mut self, start: usize) {
        // With its indent, which says what it is.
        let line = self.source[..start].rfind('\n').map_or(0, |place| place + 1);
        if ends_empty(&self.source[..line]) {
            self.out.settled = line;
            self.out.settled_lines = self.out.lines.len();
        }
    }

    /// Shows what the parser took out of the text up to `end`: definitions of links, which answers
    /// end with more often than they use them.
    fn definitions(&mut self, end: usize) {
        let skipped = self.source.get(self.seen..end).unwrap_or_default();
        self.seen = self.seen.max(end);
        if skipped.contains("]:") {
            self.flush();
            let text = skipped.trim_matches([' ', '\n', '>', '-', '*', '+']);
            self.push(text);
            self.flush();
        }
    }

    /// Begins an element, which `source` spells.
    fn start(&mut self, tag: Tag<'_>, source: &str) {
        let style = self.style();
        let styled = |modifier| style.add_modifier(modifier);
        match tag {
            Tag::Emphasis => self.styles.push(styled(Modifier::ITALIC)),
            Tag::Strong => self.styles.push(styled(Modifier::BOLD)),
            Tag::Strikethrough => self.styles.push(styled(Modifier::CROSSED_OUT)),
            Tag::Link { link_type, dest_url, title, .. } => {
                self.link(link_type, "", [&dest_url, &title], source);
            }
            Tag::Image { link_type, dest_url, title, .. } => {
                self.link(link_type, "image: ", [&dest_url, &title], source);
            }
            Tag::TableHead => {
                self.styles.push(styled(Modifier::BOLD));
                self.table.iter_mut().for_each(Table::row);
            }
            Tag::TableRow => self.table.iter_mut().for_each(Table::row),
            Tag::TableCell => {}
            tag => {
                self.flush();
                self.start_block(tag);
            }
        }
    }

    fn start_block(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => {
                let underlined = self.theme.accent.add_modifier(Modifier::UNDERLINED);
                let is_first = level == HeadingLevel::H1;
                self.styles.push(if is_first { underlined } else { self.theme.accent });
            }
            Tag::CodeBlock(kind) => {
                self.styles.push(self.theme.code);
                self.label = match kind {
                    CodeBlockKind::Fenced(label) => clean(&label),
                    CodeBlockKind::Indented => String::new(),
                };
            }
            Tag::BlockQuote(_) => {
                self.gap();
                self.levels.push(Level { mark: None, rest: "│ ".into() });
            }
            Tag::List(first) => {
                if !self.lists.is_empty() {
                    self.is_gap_due = false;
                }
                self.lists.push((first, false));
            }
            Tag::Item => {
                let mut mark = "• ".to_owned();
                if let Some((number, has_items)) = self.lists.last_mut() {
                    if *has_items {
                        self.is_gap_due = false;
                    }
                    *has_items = true;
                    if let Some(number) = number {
                        mark = format!("{number}. ");
                        *number = number.saturating_add(1);
                    }
                }
                self.gap();
                let rest = " ".repeat(columns(&mark));
                self.levels.push(Level { mark: Some(mark), rest });
            }
            Tag::Table(alignments) => self.table = Some(Table::new(alignments)),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {
                self.styles.pop();
            }
            TagEnd::Link | TagEnd::Image => self.end_link(),
            TagEnd::TableCell => {
                let cell = core::mem::take(&mut self.text);
                if let Some(table) = &mut self.table {
                    table.cell(cell);
                }
            }
            TagEnd::TableHead => {
                self.styles.pop();
            }
            TagEnd::TableRow => {}
            TagEnd::Table => {
                if let Some(table) = self.table.take() {
                    self.block(table.lines(self.room(), self.theme.dim));
                }
            }
            TagEnd::CodeBlock => {
                self.code_block();
                self.styles.pop();
            }
            TagEnd::Heading(_) => {
                self.flush();
                self.styles.pop();
            }
            TagEnd::BlockQuote(_) => {
                self.flush();
                self.levels.pop();
                self.is_gap_due = true;
            }
            TagEnd::Item => {
                self.flush();
                if self.levels.last().is_some_and(|level| level.mark.is_some()) {
                    self.block(vec![Line::default()]);
                }
                self.levels.pop();
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.is_gap_due = true;
            }
            _ => self.flush(),
        }
    }

    fn style(&self) -> Style {
        self.styles.last().copied().unwrap_or(self.theme.text)
    }

    /// Appends text to the open block.
    fn push(&mut self, text: &str) {
        let style = self.style();
        // An entity can be any character.
        self.text.push(&clean(text), style);
    }

    /// Code in a line: between backticks where no colour tells.
    fn code(&mut self, code: &str) {
        let style = self.style().patch(self.theme.code);
        let mark = if self.theme.code == self.theme.text { "`" } else { "" };
        for part in [mark, &clean(code), mark] {
            self.text.push(part, style);
        }
    }

    fn link(&mut self, kind: LinkType, what: &str, [address, title]: [&str; 2], source: &str) {
        let after = match kind {
            LinkType::Inline | LinkType::Autolink | LinkType::Email => {
                self.text.push(what, self.theme.dim);
                let title = if title.is_empty() { String::new() } else { format!(", {title}") };
                After::Address(clean(address) + &clean(&title))
            }
            // By way of a definition, which may come much later: shown as it is written, like the
            // definition, so that what has been shown does not change.
            _ => {
                self.push(if source.starts_with('!') { "![" } else { "[" });
                let label = source.rfind("][").map_or("", |place| &source[place + 1..]);
                After::Source(format!("]{label}"))
            }
        };
        self.links.push((self.text.as_str().len(), after));
        let style = self.style();
        let is_link = matches!(self.links.last(), Some((_, After::Address(_))));
        let underlined = style.add_modifier(Modifier::UNDERLINED);
        self.styles.push(if is_link { underlined } else { style });
    }

    fn end_link(&mut self) {
        self.styles.pop();
        match self.links.pop() {
            Some((begin, After::Address(address))) => {
                let shown = self.text.as_str().get(begin..).unwrap_or_default();
                let is_shown = address.strip_prefix("mailto:").unwrap_or(&address) == shown;
                if !is_shown && address != shown {
                    let separator = if shown.is_empty() { "" } else { " " };
                    self.text.push(&format!("{separator}({address})"), self.theme.dim);
                }
            }
            Some((_, After::Source(source))) => self.push(&source),
            None => {}
        }
    }

    /// Columns for the lines of a block.
    fn room(&self) -> usize {
        let kept = &self.levels[self.first_kept()..];
        self.width - kept.iter().map(|level| columns(&level.rest)).sum::<usize>()
    }

    /// The first of the levels that are shown: the inner ones, in half of the width.
    fn first_kept(&self) -> usize {
        let mut used = 0;
        let fits = |level: &&Level| {
            used += columns(&level.rest);
            used <= self.width / 2
        };
        self.levels.len() - self.levels.iter().rev().take_while(fits).count()
    }

    /// Shows the open text as a paragraph.
    fn flush(&mut self) {
        self.text.pop_line_end();
        if !self.text.is_empty() {
            let text = core::mem::take(&mut self.text);
            self.block(wrap::words(&text, self.room()));
        }
    }

    fn code_block(&mut self) {
        let mut text = core::mem::take(&mut self.text);
        text.pop_line_end();
        let label = Text::of(&core::mem::take(&mut self.label), self.theme.dim);
        let room = self.room();
        let indent = if room < INDENT_FROM { "" } else { "  " };
        let room = room - indent.len();
        let continued = if room < INDENT_FROM / 2 { "" } else { CONTINUED };
        let mut lines = Vec::new();
        if !label.is_empty() {
            lines.extend(wrap::words(&label, room));
        }
        if !text.is_empty() || label.is_empty() {
            for parts in wrap::hard(&text, room, columns(continued)) {
                let marks = core::iter::once("").chain(core::iter::repeat(continued));
                lines.extend(parts.into_iter().zip(marks).map(|(mut line, mark)| {
                    if !mark.is_empty() {
                        line.spans.insert(0, Span::styled(mark, self.theme.dim));
                    }
                    line
                }));
            }
        }
        for line in &mut lines {
            if !indent.is_empty() && !line.spans.is_empty() {
                line.spans.insert(0, Span::raw(indent));
            }
        }
        self.block(lines);
    }

    /// The empty line between two blocks, if one is due.
    fn gap(&mut self) {
        let is_first = !self.follows && self.out.lines.is_empty();
        if core::mem::take(&mut self.is_gap_due) && !is_first {
            let mut spans = self.prefix(false);
            while spans.last().is_some_and(|span| span.content.trim().is_empty()) {
                spans.pop();
            }
            if let Some(last) = spans.last_mut() {
                last.content = last.content.trim_end().to_owned().into();
            }
            self.out.lines.push(Line::from(spans));
        }
    }

    /// Appends the lines of a block, with what stands before them.
    fn block(&mut self, lines: Vec<Line<'static>>) {
        self.gap();
        let first_kept = self.first_kept();
        for level in &mut self.levels[..first_kept] {
            // No room beside the text, so above it.
            if let Some(mark) = level.mark.take() {
                let mark = Text::of(mark.trim_end(), self.theme.accent);
                self.out.lines.extend(wrap::words(&mark, self.width));
            }
        }
        for mut line in lines {
            let mut spans = self.prefix(true);
            spans.append(&mut line.spans);
            line.spans = spans;
            self.out.lines.push(line);
        }
        self.is_gap_due = true;
    }

    /// What stands before the next line; marks only before the first one of their item.
    fn prefix(&mut self, with_marks: bool) -> Vec<Span<'static>> {
        let first_kept = self.first_kept();
        let spans = self.levels[first_kept..].iter_mut().map(|level| {
            match level.mark.take_if(|_| with_marks) {
                Some(mark) => Span::styled(mark, self.theme.accent),
                None => Span::styled(level.rest.clone(), self.theme.dim),
            }
        });
        spans.collect()
    }
}

/// Whether the last line of `text` is empty.
fn ends_empty(text: &str) -> bool {
    let above = text.trim_end_matches([' ', '\t']);
    above
        .strip_suffix('\n')
        .is_some_and(|above| above.trim_end_matches([' ', '\t']).ends_with('\n'))
}

/// Whether blocks stand in it.
fn is_container(tag: &TagEnd) -> bool {
    matches!(tag, TagEnd::List(_) | TagEnd::Item | TagEnd::BlockQuote(_))
}
