//! [`Canvas`]: what ratatui draws on.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};

use super::sequences::{FRAME_END, FRAME_START, Place};
use super::tty::Tty;

/// Collects a frame and sends it in one piece, if the terminal is still ours.
///
/// Drawing cannot panic while it holds the terminal, since nothing is written before the frame is
/// complete; and a frame that is complete too late, after a panic elsewhere, is dropped. The cursor
/// is asked for through the thread that listens, where crossterm's own backend would read the
/// keyboard itself.
#[derive(Debug)]
pub struct Canvas {
    tty: Arc<Tty>,
    frame: Frame,
    backend: CrosstermBackend<Frame>,
    cursor: Position,
}

/// Bytes of a frame so far.
#[derive(Debug, Clone, Default)]
struct Frame(Arc<Mutex<Vec<u8>>>);

impl Frame {
    fn with<R>(&self, use_bytes: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        use_bytes(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Frame {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|frame| frame.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    /// Not yet: crossterm flushes after every command.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Canvas {
    pub(super) fn new(tty: Arc<Tty>) -> Self {
        let frame = Frame::default();
        let backend = CrosstermBackend::new(frame.clone());
        Self { tty, frame, backend, cursor: Position::ORIGIN }
    }
}

impl Backend for Canvas {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        self.backend.draw(content)
    }

    fn append_lines(&mut self, count: u16) -> io::Result<()> {
        // In raw mode a line feed goes straight down, also for those who only want more lines.
        self.backend.append_lines(count)
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.backend.hide_cursor()
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.backend.show_cursor()
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        if self.tty.place() == Place::Full {
            // Only we move it there.
            return Ok(self.cursor);
        }
        self.flush()?;
        Ok(match self.tty.ask_position()? {
            Some((row, column)) => Position::new(column.saturating_sub(1), row.saturating_sub(1)),
            // A terminal that does not say: after a command that is where most cursors are.
            None => Position::new(0, self.tty.size()?.1.saturating_sub(1)),
        })
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        self.cursor = position.into();
        self.backend.set_cursor_position(self.cursor)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.backend.clear()
    }

    fn clear_region(&mut self, kind: ClearType) -> io::Result<()> {
        self.backend.clear_region(kind)
    }

    fn size(&self) -> io::Result<Size> {
        let (columns, rows) = self.tty.size()?;
        Ok(Size::new(columns, rows))
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        let tty = &self.tty;
        self.frame.with(|frame| {
            if frame.is_empty() {
                return Ok(());
            }
            frame.splice(0..0, FRAME_START.bytes());
            frame.extend_from_slice(FRAME_END.as_bytes());
            let written = tty.write(frame);
            frame.clear();
            written
        })
    }
}
