//! What a terminal makes of bytes: just enough of one to see what the program left behind.

use std::collections::BTreeSet;

use vte::{Params, Parser, Perform};

/// A terminal's memory.
pub(super) struct Emulator {
    parser: Parser,
    seen: Seen,
}

/// Rows of characters, and where the next one goes.
#[derive(Clone)]
struct Grid {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

struct Seen {
    columns: usize,
    main: Grid,
    /// The alternate screen while it is shown.
    alternate: Option<Grid>,
    modes: BTreeSet<u16>,
    /// Operating system commands: titles, the clipboard.
    commands: Vec<String>,
}

impl Emulator {
    pub(super) fn new(columns: u16, rows: u16) -> Self {
        let seen = Seen {
            columns: columns.into(),
            main: Grid::new(columns.into(), rows.into()),
            alternate: None,
            // The cursor is shown, and lines wrap.
            modes: BTreeSet::from([7, 25]),
            commands: Vec::new(),
        };
        Self { parser: Parser::new(), seen }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.parser.advance(&mut self.seen, bytes);
    }

    /// What is shown, row by row, without spaces at the ends.
    pub(super) fn text(&self) -> String {
        let grid = self.seen.alternate.as_ref().unwrap_or(&self.seen.main);
        let rows = grid.rows.iter().map(|row| row.iter().collect::<String>());
        rows.map(|row| row.trim_end().to_owned() + "\n").collect()
    }

    /// The row (from 0) that the cursor is in, and its text.
    pub(super) fn cursor_row(&self) -> (usize, String) {
        let grid = self.seen.alternate.as_ref().unwrap_or(&self.seen.main);
        (grid.row, grid.rows[grid.row].iter().collect::<String>().trim_end().to_owned())
    }

    /// Private modes that are on, other than those of a fresh terminal; and those of a fresh
    /// terminal that are off, negative.
    pub(super) fn changed_modes(&self) -> Vec<i32> {
        let off = [7_u16, 25].into_iter().filter(|mode| !self.seen.modes.contains(mode));
        let on = self.seen.modes.iter().copied().filter(|mode| ![7, 25].contains(mode));
        off.map(|mode| -i32::from(mode)).chain(on.map(i32::from)).collect()
    }

    /// Operating system commands so far.
    pub(super) fn commands(&self) -> &[String] {
        &self.seen.commands
    }
}

impl Grid {
    fn new(columns: usize, rows: usize) -> Self {
        Self { rows: vec![vec![' '; columns]; rows], row: 0, column: 0 }
    }

    fn feed_line(&mut self) {
        if self.row + 1 < self.rows.len() {
            self.row += 1;
        } else {
            let top = self.rows.remove(0);
            self.rows.push(vec![' '; top.len()]);
        }
    }

    /// Clears from `from` to `to`, counted through all rows.
    fn clear(&mut self, from: usize, to: usize) {
        let columns = self.rows[0].len();
        for cell in from..to.min(columns * self.rows.len()) {
            self.rows[cell / columns][cell % columns] = ' ';
        }
    }
}

impl Seen {
    fn grid(&mut self) -> &mut Grid {
        self.alternate.as_mut().unwrap_or(&mut self.main)
    }

    fn set_mode(&mut self, mode: u16, on: bool) {
        if mode == 1049 {
            let rows = self.main.rows.len();
            self.alternate = on.then(|| Grid::new(self.columns, rows));
        }
        if on {
            self.modes.insert(mode);
        } else {
            self.modes.remove(&mode);
        }
    }
}

impl Perform for Seen {
    fn print(&mut self, c: char) {
        let columns = self.columns;
        let grid = self.grid();
        if grid.column == columns {
            grid.column = 0;
            grid.feed_line();
        }
        grid.rows[grid.row][grid.column] = c;
        grid.column += 1;
    }

    fn execute(&mut self, byte: u8) {
        let grid = self.grid();
        match byte {
            b'\n' => grid.feed_line(),
            b'\r' => grid.column = 0,
            0x08 => grid.column = grid.column.saturating_sub(1),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, parameters: &Params, between: &[u8], _: bool, action: char) {
        let numbers: Vec<u16> = parameters.iter().map(|group| group[0]).collect();
        if between == b"?" {
            for &mode in &numbers {
                match action {
                    'h' => self.set_mode(mode, true),
                    'l' => self.set_mode(mode, false),
                    _ => {}
                }
            }
            return;
        }
        let columns = self.columns;
        let grid = self.grid();
        let number = |at: usize| usize::from(numbers.get(at).copied().unwrap_or(0));
        let here = grid.row * columns + grid.column.min(columns - 1);
        match action {
            'H' => {
                grid.row = number(0).max(1).min(grid.rows.len()) - 1;
                grid.column = number(1).max(1).min(columns) - 1;
            }
            'J' if number(0) == 0 => grid.clear(here, usize::MAX),
            'J' => grid.clear(0, usize::MAX),
            'K' => grid.clear(here, (grid.row + 1) * columns),
            'A' => grid.row = grid.row.saturating_sub(number(0).max(1)),
            'G' => grid.column = number(0).max(1).min(columns) - 1,
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, parts: &[&[u8]], _: bool) {
        let parts: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(part)).collect();
        self.commands.push(parts.join(";"));
    }
}

#[test]
fn the_emulator_shows_what_a_terminal_would() {
    let mut emulator = Emulator::new(10, 3);
    emulator.feed(b"one\r\ntwo\x1b[?1049h\x1b[2;3Halt\x1b[?25l\x1b[?2004h");
    assert_eq!(emulator.text(), "\n  alt\n\n");
    assert_eq!(emulator.changed_modes(), [-25, 1049, 2004]);
    emulator.feed(b"\x1b[?1049l\x1b[?25h\x1b[?2004l\x1b]52;c;eA==\x07\r\nthree\r\nfour");
    assert_eq!(
        (emulator.text().as_str(), emulator.changed_modes()),
        ("two\nthree\nfour\n", vec![])
    );
    assert_eq!(emulator.commands(), ["52;c;eA=="]);
    assert_eq!(emulator.cursor_row(), (2, "four".into()));
    emulator.feed(b"\x1b[1;2H\x1b[Jx0123456789");
    assert_eq!(emulator.text(), "tx01234567\n89\n\n");
}
