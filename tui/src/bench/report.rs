//! [`Report`]: rows to a table, JSON, JSON lines or CSV.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::args::Format;
use super::row::Row;
use crate::clean::{Json, OneLine};
use crate::failure::{Failure, note};

/// Writes rows as they come, or all of them at the end.
#[derive(Debug)]
pub struct Report<'o, W> {
    format: Format,
    quiet: bool,
    out: &'o mut W,
    rows: Vec<Row>,
}

impl<'o, W: Write> Report<'o, W> {
    /// A report to `out`; `quiet` keeps the table's warnings from stderr.
    pub fn new(format: Format, quiet: bool, out: &'o mut W) -> Self {
        Self { format, quiet, out, rows: Vec::new() }
    }

    /// Takes the next row.
    ///
    /// # Errors
    ///
    /// [`Failure::Io`] when the output is gone.
    pub fn row(&mut self, row: Row) -> Result<(), Failure> {
        let is_first = self.rows.is_empty();
        let written = match self.format {
            Format::Md => self.table_row(&row, is_first),
            Format::Json => Ok(()),
            Format::Jsonl => serde_json::to_string(&row)
                .map_err(io::Error::from)
                .and_then(|line| writeln!(self.out, "{}", Json(&line))),
            Format::Csv => self.csv_row(&row, is_first),
        };
        written.and_then(|()| self.out.flush()).map_err(Failure::io)?;
        if self.format == Format::Md && !self.quiet {
            for warning in &row.warnings {
                note(format_args!("tercet: warning: {}: {}", row.test, OneLine(warning)));
            }
        }
        self.rows.push(row);
        Ok(())
    }

    /// Writes what only the end knows.
    ///
    /// # Errors
    ///
    /// [`Failure::Io`] when the output is gone.
    pub fn finish(self, interrupted: bool) -> Result<(), Failure> {
        if self.format != Format::Json {
            return Ok(());
        }
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "interrupted": interrupted,
            "results": self.rows,
        });
        writeln!(self.out, "{}", Json(&format!("{report:#}"))).map_err(Failure::io)
    }

    fn csv_row(&mut self, row: &Row, is_first: bool) -> io::Result<()> {
        let flat = row.flat();
        if is_first {
            let names: Vec<_> = flat.keys().map(String::as_str).collect();
            writeln!(self.out, "{}", names.join(","))?;
        }
        let field = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => {
                format!("\"{}\"", OneLine(text).to_string().replace('"', "\"\""))
            }
            other => other.to_string(),
        };
        let fields: Vec<_> = flat.values().map(field).collect();
        writeln!(self.out, "{}", fields.join(","))
    }

    fn table_row(&mut self, row: &Row, is_first: bool) -> io::Result<()> {
        let cells = cells(row);
        if is_first {
            writeln!(self.out, "{}\n", legend(row))?;
            line(self.out, cells.each_ref().map(|cell| (cell.title.to_owned(), cell)))?;
            line(self.out, cells.each_ref().map(|cell| (cell.rule(), cell)))?;
        }
        line(self.out, cells.each_ref().map(|cell| (cell.text.clone(), cell)))
    }
}

/// What holds for every row.
fn legend(row: &Row) -> String {
    let text = format!(
        "{} on {}; {}; weights {}, head {}, cache {}",
        row.build_commit,
        processor(row),
        row.model_filename,
        row.type_weights,
        row.type_head,
        row.type_k
    );
    OneLine(&text).to_string()
}

/// What computes.
fn processor(row: &Row) -> String {
    match &row.gpu {
        Some(gpu) => format!("{} (driver for CUDA {})", gpu.name, gpu.driver),
        None => format!("{}, {}", row.cpu_info, row.simd),
    }
}

/// A time in milliseconds, with as many digits as say something.
fn ms(time: f64) -> String {
    if time < 10.0 { format!("{time:.3}") } else { format!("{time:.1}") }
}

/// A cell of the table.
struct Cell {
    title: &'static str,
    width: usize,
    text: String,
    is_left: bool,
}

impl Cell {
    /// The line under the title: Markdown's alignment.
    fn rule(&self) -> String {
        let dashes = "-".repeat(self.width - 1);
        if self.is_left { format!(":{dashes}") } else { format!("{dashes}:") }
    }
}

fn line<const N: usize>(out: &mut impl Write, cells: [(String, &Cell); N]) -> io::Result<()> {
    for (text, cell) in cells {
        let width = cell.width;
        if cell.is_left {
            write!(out, "| {text:<width$} ")?;
        } else {
            write!(out, "| {text:>width$} ")?;
        }
    }
    writeln!(out, "|")
}

/// The table's row; widths are fixed, because rows are written as they come.
#[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
fn cells(row: &Row) -> [Cell; 11] {
    let cell = |title, width, text| Cell { title, width, text, is_left: false };
    let left = |title, width, text| Cell { title, width, text, is_left: true };
    let gb = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let none = || "-".to_owned();
    // A bar in a name would be a column.
    let model = OneLine(&row.model_type).to_string().replace('|', "/");
    [
        left("model", 24, model),
        cell("size", 8, gb(row.model_size)),
        cell("threads", 7, row.n_threads.to_string()),
        left("test", 16, row.test.clone()),
        cell("t/s", 16, format!("{:.2} ± {:.2}", row.avg_ts, row.stddev_ts)),
        cell("new t/s", 8, row.new_ts.map_or_else(none, |rate| format!("{rate:.2}"))),
        cell(
            "ms (median ± MAD)",
            18,
            format!("{} ± {}", ms(row.median_ns as f64 / 1e6), ms(row.mad_ns as f64 / 1e6)),
        ),
        cell(
            "ttft ms p50/p99",
            16,
            row.ttft_ms.map_or_else(none, |times| format!("{} / {}", ms(times.p50), ms(times.p99))),
        ),
        cell(
            "itl ms p50/p99",
            16,
            row.itl_ms.map_or_else(none, |times| format!("{} / {}", ms(times.p50), ms(times.p99))),
        ),
        cell("of read GB/s", 16, share(row).unwrap_or_else(none)),
        cell("peak", 8, peak(row).map_or_else(none, gb)),
    ]
}

/// Memory of the device that computes.
fn peak(row: &Row) -> Option<u64> {
    row.gpu.as_ref().map_or(row.peak_rss_bytes, |gpu| gpu.memory_bytes)
}

/// `42 % of 28.4`: the share of the bandwidth measured beside the test; only the bandwidth where
/// the test has no share.
fn share(row: &Row) -> Option<String> {
    let all = row.read_bandwidth_gbs?;
    let share = row.pct_of_bandwidth.map(|share| format!("{share:.0} % of "));
    Some(format!("{}{all:.1}", share.unwrap_or_default()))
}
