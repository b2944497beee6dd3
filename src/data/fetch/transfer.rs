//! A file of known size over HTTP: goes on after breaks from where it was, and gives up when nothing moves any more.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ureq::Agent;

use super::request::{self, Event, Head};
use super::{Archive, GLANCE};
use crate::error::{AtPath, Error, Result};
use crate::interrupt;
use crate::progress::Console;

/// How long to wait for a server, and how often to ask it again.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For an address and a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub stall: Duration,
    /// Before each new try. A try that brings a hundredth of the file begins this list anew; its end is the end.
    pub pauses: Vec<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            pauses: [1, 2, 4, 8, 16].map(Duration::from_secs).into(),
        }
    }
}

/// Why one try did not bring the rest of the file.
enum Trouble {
    /// Another try may do better.
    Passing(String),
    /// It will not.
    Lasting(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Lasting(error)
    }
}

/// Brings the file at `path` to the size of `archive`. Returns whether it was pieced together, from what was there before
/// or from several answers.
///
/// Content that cannot belong to the archive is removed; what may belong to it stays, whatever the error.
pub fn complete(archive: &Archive, url: &str, path: &Path, patience: &Patience, console: &Console) -> Result<bool> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_per_read(Some(patience.stall))
        .user_agent(concat!("distill/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut download =
        Download { archive, url, agent: config.into(), part: Part::open(path)?, etag: None, pieced: false, console };
    let (mut best, mut tries) = (download.part.len, 0);
    loop {
        match download.attempt() {
            Ok(()) => return Ok(download.pieced),
            Err(Trouble::Lasting(error)) => return Err(error),
            Err(Trouble::Passing(why)) => {
                if download.part.len >= best + (archive.bytes / 100).max(1) {
                    (best, tries) = (download.part.len, 0);
                }
                let Some(&time) = patience.pauses.get(tries) else { return Err(download.given_up(&why, tries + 1)) };
                tries += 1;
                let of = patience.pauses.len();
                let seconds = time.as_secs_f64();
                console.info(format!("{}: {why}; again in {seconds} s (try {tries} of {of})", archive.file));
                pause(time)?;
            }
        }
    }
}

struct Download<'a> {
    archive: &'a Archive<'a>,
    url: &'a str,
    agent: Agent,
    part: Part,
    /// The ETag of the answer that the part is from.
    etag: Option<String>,
    pieced: bool,
    console: &'a Console,
}

impl Download<'_> {
    /// One request for all that is missing.
    fn attempt(&mut self) -> std::result::Result<(), Trouble> {
        let bytes = self.archive.bytes;
        if self.part.len > bytes {
            self.part.clear()?;
        }
        if self.part.len == bytes {
            self.pieced = true;
            return Ok(());
        }
        let events = request::send(&self.agent, self.url, self.part.len, self.etag.as_deref());
        match next(&events)? {
            Some(Event::Head(head)) => self.begin(head)?,
            Some(Event::Error(error)) => return Err(self.trouble(error)),
            _ => return Err(Trouble::Passing("there was no answer".into())),
        }
        let bar = self.console.byte_bar("fetching", self.part.len, bytes);
        while let Some(event) = next(&events)? {
            match event {
                Event::Bytes(block) if block.len() as u64 > bytes - self.part.len => {
                    return Err(self.another_file(&format!("more than the expected {bytes} bytes came")));
                }
                Event::Bytes(block) => self.part.append(&block)?,
                Event::Error(error) => return Err(self.trouble(error)),
                Event::Head(_) => {}
            }
            bar.update(self.part.len, 0, None);
        }
        match self.part.len {
            len if len == bytes => Ok(()),
            len => Err(Trouble::Passing(format!("the answer ended after {len} of {bytes} bytes"))),
        }
    }

    /// Judges the answer's head, and makes the part end where the body starts.
    fn begin(&mut self, head: Head) -> std::result::Result<(), Trouble> {
        match head.status {
            200 | 206 | 416 => {}
            408 | 429 | 500.. => return Err(Trouble::Passing(format!("the server says status {}", head.status))),
            status => {
                return Err(Trouble::Lasting(Error::Failed(format!(
                    "{}: the server says status {status}; name another place with the variable DISTILL_MIRROR",
                    self.url
                ))));
            }
        }
        if let Some(total) = head.total.filter(|&total| total != self.archive.bytes) {
            return Err(self.another_file(&format!("it has {total} bytes, expected {}", self.archive.bytes)));
        }
        self.etag = head.etag;
        if head.start == Some(self.part.len) {
            self.pieced |= self.part.len > 0;
            return Ok(());
        }
        // The server does not know ranges, or the file has changed since.
        self.part.clear()?;
        self.pieced = false;
        match head.start {
            Some(0) => Ok(()),
            _ => Err(Trouble::Passing("the server sent another range than it was asked for".into())),
        }
    }

    /// The end of a download that brought something else; nothing of it is kept.
    fn another_file(&mut self, what: &str) -> Trouble {
        if let Err(error) = self.part.remove() {
            return Trouble::Lasting(error);
        }
        Trouble::Lasting(Error::Failed(format!(
            "{}: {what}: this is another file than the official {}; name another place with the variable DISTILL_MIRROR",
            self.url, self.archive.file
        )))
    }

    fn trouble(&self, error: ureq::Error) -> Trouble {
        use ureq::Error::*;
        match error {
            Io(_) | Timeout(_) | HostNotFound | ConnectionFailed | Protocol(_) | ConnectProxyFailed(_) => {
                Trouble::Passing(error.to_string())
            }
            _ => Trouble::Lasting(Error::Failed(format!("{}: {error}", self.url))),
        }
    }

    fn given_up(&self, why: &str, tries: usize) -> Error {
        Error::Failed(format!(
            "{}: {why} (tries: {tries}); {} of {} bytes are kept in {}: the same command goes on from there, and the \
             variable DISTILL_MIRROR names another place",
            self.url,
            self.part.len,
            self.archive.bytes,
            self.part.path.display()
        ))
    }
}

/// The next event; none at the end. Heeds Ctrl-C while it waits.
fn next(events: &Receiver<Event>) -> Result<Option<Event>> {
    loop {
        interrupt::check()?;
        match events.recv_timeout(GLANCE) {
            Ok(event) => return Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Sleeps for `time`, heeding Ctrl-C.
fn pause(time: Duration) -> Result<()> {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        interrupt::check()?;
        sleep(left.min(GLANCE));
    }
    Ok(())
}

/// The file that a download grows in.
struct Part {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Part {
    fn open(path: &Path) -> Result<Part> {
        let file = OpenOptions::new().create(true).append(true).open(path).at(path)?;
        let len = file.metadata().at(path)?.len();
        Ok(Part { path: path.to_path_buf(), file, len })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at(&self.path)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        self.len = 0;
        self.file.set_len(0).at(&self.path)
    }

    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.path).at(&self.path)
    }
}
