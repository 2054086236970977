//! Snapshots of scripted answers (`UPDATE=1` writes them anew), and every small area.

use core::fmt::Write as _;
use core::time::Duration;
use std::path::Path;
use std::{env, fs};

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use tercet_host::backend::cuda::{GpuState, Slowed};
use tercet_host::event::{Event, Finished, StopReason};
use tercet_host::measure::machine::{Pool, Resident};
use tercet_host::measure::memory::{DeviceCounts, Held, Memory};
use tercet_host::measure::sampler::Snapshot;

use super::{ContextUse, DeviceLine, PanelView, State, draw, lines, status_line};
use crate::chat::theme::Theme;
use crate::stats::Stats;

const MIB: u64 = 1 << 20;

fn prefill(done: usize, total: usize, reused: usize) -> Event {
    Event::Prefill { done, total, reused }
}

/// `count` tokens after a prompt of 120: gaps around 40 ms, a slow first step and two stalls.
fn answer(stats: &mut Stats, count: usize, unit: Duration) {
    stats.hear(&prefill(40, 120, 40));
    stats.hear(&prefill(120, 120, 40));
    for token in 0..count {
        let tenths = match token {
            0 => 103,
            1 => 52,
            30 => 78,
            61 => 128,
            // Deterministic, and not flat.
            n => 9 + u32::try_from(n * 7 % 5).unwrap(),
        };
        stats.note_neighbours(Some(if token == 61 { 1.2 } else { 0.0 }));
        stats.hear(&Event::Token {
            token: 5,
            text: "a".into(),
            position: 120 + token,
            elapsed: unit * tenths,
        });
    }
}

fn finished(tokens: usize, unit: Duration) -> Event {
    Event::Finished(Finished {
        reason: StopReason::MaxTokens,
        text: String::new(),
        prompt_tokens: 120,
        reused_tokens: 40,
        tokens,
        prefill: unit * 100,
        decode: unit * 2000,
    })
}

fn main_memory() -> Snapshot {
    let held = Held { weights: 1178 * MIB, cache: 315 * MIB, work: 9 * MIB };
    let resident = Resident { bytes: 1300 * MIB, anonymous: 90 * MIB };
    let pool = Pool { total: 15 * 1024 * MIB, available: 12 * 1024 * MIB };
    Snapshot {
        memory: Some(Memory::of_process(held, 0.05, resident, pool)),
        resident: Some(resident.bytes),
        neighbours: Some(0.4),
        looks: 7,
        gpu: None,
    }
}

fn device_memory() -> Snapshot {
    let held = Held { weights: 1178 * MIB, cache: 600 * MIB, work: 150 * MIB };
    let total = 143_771 * MIB;
    let counts = DeviceCounts { ours: 2300 * MIB, free: total - 12_300 * MIB, total };
    let slowed = Slowed { power: true, ..Slowed::default() };
    let gpu = GpuState {
        watts: Some(412.4),
        joules: Some(9e6),
        busy: Some(97),
        celsius: Some(61),
        slowed,
    };
    Snapshot {
        memory: Some(Memory::of_device(held, counts)),
        resident: Some(900 * MIB),
        neighbours: Some(0.0),
        looks: 7,
        gpu: Some(gpu),
    }
}

const FALLBACK: DeviceLine<'_> =
    DeviceLine { name: "CPU, AVX-512 VNNI, 2 threads", why: "no NVIDIA driver", is_fallback: true };
const H200: DeviceLine<'_> = DeviceLine { name: "NVIDIA H200", why: "", is_fallback: false };
const FEW_USED: ContextUse = ContextUse { used: 220, limit: 4096, next_out: None };

fn view(stats: &Stats) -> PanelView<'_> {
    PanelView {
        stats,
        seen: main_memory(),
        model: "bitnet-b1.58-2B-4T.tercet",
        device: FALLBACK,
        context: FEW_USED,
        state: State::Answering { waiting: Duration::from_millis(12) },
        ascii: false,
    }
}

/// What stands in `area`, line by line, without spaces at the ends; then where warnings are.
fn shown(view: &PanelView<'_>, (width, height): (u16, u16)) -> String {
    let theme = Theme::dark();
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    draw(area, &mut buf, view, &theme);
    let mut text = String::new();
    for y in 0..height {
        let cells = (0..width).map(|x| &buf[(x, y)]);
        let line: String = cells.clone().map(Cell::symbol).collect();
        let warns = |cell: &Cell| cell.symbol() != " " && cell.style().fg == theme.warning.fg;
        let warnings = cells.filter(|cell| warns(cell)).count();
        let note = if warnings > 0 { format!("  <- {warnings} in warning") } else { String::new() };
        writeln!(text, "{}{note}", line.trim_end()).unwrap();
    }
    text
}

/// Holds `got` against the file, or writes it.
#[track_caller]
fn snapshot(name: &str, got: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/snapshots/panel");
    let path = folder.join(format!("{name}.txt"));
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, got).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(expected, got, "{}: as it should be?\n{got}\nUPDATE=1 writes it", path.display());
}

#[test]
fn an_answer_on_the_cpu_at_eight_sizes() {
    let mut stats = Stats::default();
    answer(&mut stats, 100, Duration::from_millis(4));
    let sizes =
        [(28, 40), (36, 24), (40, 10), (60, 8), (80, 6), (100, 9), (160, 12), (20, 6), (80, 1)];
    for (width, height) in sizes {
        let text = shown(&view(&stats), (width, height));
        snapshot(&format!("cpu-{width}x{height}"), &text);
    }
}

#[test]
fn the_same_in_ascii() {
    let mut stats = Stats::default();
    answer(&mut stats, 100, Duration::from_millis(4));
    for (width, height) in [(28, 40), (100, 9)] {
        let text = shown(&PanelView { ascii: true, ..view(&stats) }, (width, height));
        snapshot(&format!("cpu-{width}x{height}-ascii"), &text);
    }
}

#[test]
fn an_answer_on_a_gpu() {
    let mut stats = Stats::default();
    answer(&mut stats, 100, Duration::from_micros(100));
    stats.hear(&finished(100, Duration::from_micros(100)));
    let view =
        PanelView { seen: device_memory(), device: H200, state: State::Idle, ..view(&stats) };
    for (width, height) in [(32, 30), (120, 8)] {
        snapshot(&format!("gpu-{width}x{height}"), &shown(&view, (width, height)));
    }
}

#[test]
fn before_and_around_an_answer() {
    let empty = Stats::default();
    let loading = PanelView {
        seen: Snapshot::default(),
        context: ContextUse { used: 0, limit: 0, next_out: None },
        state: State::Loading { done: 43, total: 100 },
        device: H200,
        ..view(&empty)
    };
    snapshot("loading-32x12", &shown(&loading, (32, 12)));

    let mut reading = Stats::default();
    reading.hear(&prefill(100, 600, 100));
    reading.hear(&prefill(200, 600, 100));
    let full = ContextUse { used: 3900, limit: 4096, next_out: Some(96) };
    let state = State::Reading { elapsed: Duration::from_secs(2) };
    let reading = PanelView { context: full, state, ..view(&reading) };
    snapshot("reading-32x30", &shown(&reading, (32, 30)));

    let mut late = Stats::default();
    answer(&mut late, 20, Duration::from_millis(4));
    let state = State::Answering { waiting: Duration::from_millis(3200) };
    snapshot("waiting-80x5", &shown(&PanelView { state, ..view(&late) }, (80, 5)));
}

#[test]
fn everything_is_told_in_words() {
    let mut stats = Stats::default();
    answer(&mut stats, 100, Duration::from_millis(4));
    let cpu = view(&stats);
    snapshot("report-cpu", &(lines(&cpu).join("\n") + "\n"));
    let ascii = PanelView { ascii: true, seen: device_memory(), device: H200, ..cpu };
    snapshot("report-gpu-ascii", &(lines(&ascii).join("\n") + "\n"));
}

/// Views that differ in everything that there may or may not be.
fn views<'a>(empty: &'a Stats, full: &'a Stats) -> Vec<PanelView<'a>> {
    let huge = ContextUse { used: usize::MAX, limit: 1, next_out: Some(usize::MAX) };
    let nothing = PanelView {
        seen: Snapshot::default(),
        model: "",
        device: DeviceLine { name: "", why: "", is_fallback: false },
        context: ContextUse { used: 0, limit: 0, next_out: None },
        state: State::Idle,
        ..view(empty)
    };
    vec![
        nothing,
        view(full),
        PanelView { seen: device_memory(), device: H200, ascii: true, ..view(full) },
        PanelView {
            context: huge,
            state: State::Answering { waiting: Duration::MAX },
            model: "世界\u{1b}[31m👩‍👩‍👧\t\n",
            ..view(full)
        },
        PanelView { state: State::Loading { done: u64::MAX, total: 0 }, ..view(empty) },
        PanelView { state: State::Reading { elapsed: Duration::MAX }, ..view(full) },
    ]
}

#[test]
fn every_area_is_drawn_and_nothing_outside_of_it() {
    let mut full = Stats::default();
    answer(&mut full, 300, Duration::from_millis(4));
    let empty = Stats::default();
    let theme = Theme::light();
    let mark = Cell::new("X");
    for view in views(&empty, &full) {
        for height in 0..=40 {
            for width in 0..=120 {
                let area = Rect::new(2, 2, width, height);
                let room = Rect::new(0, 0, width + 4, height + 4);
                let mut buf = Buffer::filled(room, mark.clone());
                draw(area, &mut buf, &view, &theme);
                let changed = room.positions().filter(|at| buf[*at] != mark);
                let outside: Vec<_> = changed.filter(|at| !area.contains(*at)).collect();
                assert!(outside.is_empty(), "{width}x{height}: {outside:?}");
                if !area.is_empty() {
                    assert_ne!(buf[(2, 2)], mark, "{width}x{height} is empty");
                }
            }
        }
    }
    // Areas that are not in the buffer, as while a window shrinks.
    for area in [Rect::new(100, 40, 90, 90), Rect::new(500, 500, 9, 9), Rect::new(0, 0, 200, 100)] {
        let mut buf = Buffer::filled(Rect::new(0, 0, 120, 44), mark.clone());
        draw(area, &mut buf, &view(&full), &theme);
    }
}

#[test]
fn ascii_is_ascii_and_lines_keep_their_width() {
    let mut full = Stats::default();
    answer(&mut full, 300, Duration::from_micros(20));
    let empty = Stats::default();
    let theme = Theme::plain();
    for view in views(&empty, &full) {
        let view = PanelView { ascii: true, ..view };
        for (width, height) in [(200, 100), (120, 8), (40, 40), (20, 20), (80, 1), (3, 3)] {
            let text = shown(&view, (width, height));
            assert!(text.is_ascii(), "{text}");
        }
        assert!(lines(&view).join("\n").is_ascii());
        for width in 0..120 {
            for ascii in [true, false] {
                let view = PanelView { ascii, ..view };
                let line = status_line(&view, width, &theme);
                assert!(line.width() <= usize::from(width), "{width}: {line}");
            }
        }
    }
}

/// No control character of a name reaches anybody.
#[test]
fn names_are_cleaned() {
    let stats = Stats::default();
    let view = PanelView { model: "a\u{1b}]52;c;eA==\u{7}b\u{202e}\r\n", ..view(&stats) };
    for line in lines(&view) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    let line = status_line(&view, 200, &Theme::plain()).to_string();
    assert!(!line.chars().any(char::is_control) && !line.contains('\u{202e}'), "{line:?}");
}
