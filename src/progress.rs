//! What a user sees while work goes on: messages and progress on stderr, and a copy of the messages in a log file.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

use crate::error::{AtPath, Result};

/// Seconds between plain progress lines where the output is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);
/// Work shorter than this shows no plain progress.
const QUIET_START: Duration = Duration::from_secs(2);

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// The one place that writes to stderr while a command runs.
pub struct Console {
    verbosity: Verbosity,
    log: RefCell<Option<Log>>,
    bar: RefCell<Option<ProgressBar>>,
}

impl Console {
    pub fn new(verbosity: Verbosity) -> Self {
        Console { verbosity, log: RefCell::new(None), bar: RefCell::new(None) }
    }

    /// Appends every message from now on to the log at `path`, after a line with the time, the version and the command.
    pub fn log_to(&self, path: &Path) -> Result<()> {
        let mut log = self.log.borrow_mut();
        if log.as_ref().is_none_or(|open| open.path != path) {
            let file = OpenOptions::new().create(true).append(true).open(path).at(path)?;
            let mut new = Log { path: path.into(), file };
            let command: Vec<String> = std::env::args().collect();
            new.dated(&format!("version {} begins: {}", env!("CARGO_PKG_VERSION"), command.join(" ")));
            *log = Some(new);
        }
        Ok(())
    }

    /// Writes into the log how the command ended, if one was opened.
    pub fn end_log(&self, outcome: &Result<()>) {
        if let Some(mut log) = self.log.borrow_mut().take() {
            log.dated(&match outcome {
                Ok(()) => "ends: done".to_string(),
                Err(error) => format!("ends with exit code {}: {error}", error.exit_code()),
            });
        }
    }

    /// A message for everyone who did not ask for quiet.
    pub fn info(&self, message: impl AsRef<str>) {
        self.write(Verbosity::Normal, message.as_ref());
    }

    /// A message for those who asked for more (`-v`).
    pub fn detail(&self, message: impl AsRef<str>) {
        self.write(Verbosity::Verbose, message.as_ref());
    }

    /// A message that even `-q` shows.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.write(Verbosity::Quiet, &format!("warning: {}", message.as_ref()));
    }

    fn write(&self, level: Verbosity, message: &str) {
        if self.verbosity >= level {
            match &*self.bar.borrow() {
                Some(bar) => bar.suspend(|| say(message)),
                None => say(message),
            }
        }
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.line(message);
        }
    }

    /// Starts the progress of `total` units of work called `label`; `done` of them were done before (resume).
    pub fn bar(&self, label: &str, done: u64, total: u64) -> Bar<'_> {
        self.start(label, Unit::Step, done, total)
    }

    /// The same where `done` and `total` count bytes.
    pub fn byte_bar(&self, label: &str, done: u64, total: u64) -> Bar<'_> {
        self.start(label, Unit::Byte, done, total)
    }

    fn start(&self, label: &str, unit: Unit, done: u64, total: u64) -> Bar<'_> {
        if self.verbosity > Verbosity::Quiet && can_draw() {
            let bar = ProgressBar::new(total);
            let style = ProgressStyle::with_template(match unit {
                Unit::Step => "{prefix:>12} [{bar:30}] {pos}/{len} {msg}",
                Unit::Byte => "{prefix:>12} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {msg}",
            });
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_prefix(label.to_string());
            bar.set_position(done);
            *self.bar.borrow_mut() = Some(bar);
        }
        let now = Instant::now();
        Bar {
            console: self,
            unit,
            label: label.into(),
            start: now,
            first: done,
            total: Cell::new(total),
            last_line: Cell::new(now),
            images: Cell::new(0),
        }
    }
}

/// The log file of a run.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn line(&mut self, message: &str) {
        let _ = writeln!(self.file, "{message}"); // a full disk must not stop the work itself
    }

    /// A line that starts with the time in UTC.
    fn dated(&mut self, message: &str) {
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        self.line(&format!("{now} {message}"));
    }
}

/// Whether a bar can be redrawn in place on stderr.
fn can_draw() -> bool {
    let dumb = std::env::var_os("TERM").map_or(cfg!(unix), |term| term == "dumb");
    std::io::stderr().is_terminal() && !dumb
}

/// What a bar counts.
#[derive(Clone, Copy)]
enum Unit {
    Step,
    Byte,
}

impl Unit {
    fn count(self, number: u64) -> String {
        match self {
            Unit::Step => number.to_string(),
            Unit::Byte => DecimalBytes(number).to_string(),
        }
    }
}

/// The progress of one piece of work; dropped when it ends.
pub struct Bar<'a> {
    console: &'a Console,
    unit: Unit,
    label: String,
    start: Instant,
    first: u64,
    total: Cell<u64>,
    last_line: Cell<Instant>,
    images: Cell<u64>,
}

impl Bar<'_> {
    /// The total became known, or changed.
    pub fn set_total(&self, total: u64) {
        self.total.set(total);
        if let Some(bar) = &*self.console.bar.borrow() {
            bar.set_length(total);
        }
    }

    /// `done` of the total is done, with `images` more images since the last call.
    pub fn update(&self, done: u64, images: u64, loss: Option<f32>) {
        self.images.set(self.images.get() + images);
        let elapsed = self.start.elapsed();
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let fresh = done.saturating_sub(self.first);
        let left = seconds / fresh.max(1) as f64 * self.total.get().saturating_sub(done) as f64;
        let mut message = match self.unit {
            Unit::Step => format!("{:.0} images/s", self.images.get() as f64 / seconds),
            Unit::Byte => format!("{}/s", DecimalBytes((fresh as f64 / seconds) as u64)),
        };
        if let Some(loss) = loss {
            message += &format!(", loss {loss:.4}");
        }
        message += &format!(", {} left", duration(left));
        if let Some(bar) = &*self.console.bar.borrow() {
            bar.set_position(done);
            bar.set_message(message);
        } else if self.console.verbosity > Verbosity::Quiet
            && elapsed > QUIET_START
            && (self.last_line.get().elapsed() > PLAIN_INTERVAL || self.last_line.get() == self.start)
        {
            self.last_line.set(Instant::now());
            let (done, total) = (self.unit.count(done), self.unit.count(self.total.get()));
            say(&format!("{:>12} {done}/{total}  {message}", self.label));
        }
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.console.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

/// A line on stderr. One that nobody reads any more is no reason to end the work.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}

/// Seconds in words: "42s", "3m 05s", "2h 07m", "3d 04h".
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..172_800 => format!("{}h {:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {:02}h", s / 86_400, s / 3600 % 24),
    }
}
