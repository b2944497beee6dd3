//! A small HTTP server on this machine that answers as it is told to: well, or in the ways that networks break.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What happens to one request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The file, or the range of it that was asked for.
    Whole,
    /// The whole file whatever was asked for, with status 200.
    NoRanges,
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// The same, and ranges are not known.
    CutNoRanges(usize),
    /// So many bytes of the body, then silence until the client goes away.
    Stall(usize),
    /// The connection closes before a byte is sent.
    Hangup,
    /// Something that is not HTTP.
    Garbage,
    /// No Content-Length; the connection ends in order after so many bytes.
    Unsized(usize),
    /// No Content-Length, and more bytes than the file has, without end.
    Endless,
    /// A range that starts a byte later than the one that was asked for.
    WrongRange,
    Status(u16),
    Redirect(String),
    /// Another file with an ETag of its own.
    Other(Vec<u8>),
}

/// The server; its thread ends with the process.
pub struct Server {
    pub address: String,
    state: Arc<State>,
}

struct State {
    file: Vec<u8>,
    /// Answers to the next requests, last first; [`Answer::Whole`] to all after them.
    script: Mutex<Vec<Answer>>,
    /// The Range header of each request, "" where there was none.
    ranges: Mutex<Vec<String>>,
}

impl Server {
    pub fn new(file: &[u8], script: &[Answer]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let script = Mutex::new(script.iter().rev().cloned().collect());
        let state = Arc::new(State { file: file.to_vec(), script, ranges: Mutex::default() });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = shared.clone();
                thread::spawn(move || state.serve(stream.unwrap()));
            }
        });
        Server { address, state }
    }

    pub fn url(&self, file: &str) -> String {
        format!("{}/{file}", self.address)
    }

    /// The Range header of every request so far.
    pub fn ranges(&self) -> Vec<String> {
        self.state.ranges.lock().unwrap().clone()
    }
}

impl State {
    /// Answers one request, then closes. A client that goes away early is no error.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let (mut range, mut if_range) = (String::new(), None);
        for line in BufReader::new(stream.try_clone().ok()?).lines() {
            let line = line.ok()?;
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("range") => range = value.to_string(),
                Some((name, value)) if name.eq_ignore_ascii_case("if-range") => if_range = Some(value.to_string()),
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        self.ranges.lock().unwrap().push(range.clone());
        let answer = self.script.lock().unwrap().pop().unwrap_or(Answer::Whole);
        let start: usize =
            range.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).map_or(0, |r| r.parse().unwrap());
        let start = if if_range.is_none_or(|tag| tag == etag(&self.file)) { start } else { 0 };
        let mut send = |file: &[u8], start: usize, len: usize| {
            stream.write_all(head(file, start).as_bytes()).ok()?;
            stream.write_all(&file[start..file.len().min(start + len)]).ok()
        };
        match answer {
            Answer::Whole => send(&self.file, start, usize::MAX / 2)?,
            Answer::NoRanges => send(&self.file, 0, usize::MAX / 2)?,
            Answer::Cut(len) => send(&self.file, start, len)?,
            Answer::CutNoRanges(len) => send(&self.file, 0, len)?,
            Answer::WrongRange => send(&self.file, start + 1, usize::MAX / 2)?,
            Answer::Other(file) => send(&file, 0, usize::MAX / 2)?,
            Answer::Stall(len) => {
                send(&self.file, start, len)?;
                let _ = BufReader::new(&stream).lines().next(); // returns when the client closes
            }
            Answer::Hangup => {}
            Answer::Garbage => stream.write_all(b"\x00\x01SSH-2.0\r\n\r\n").ok()?,
            Answer::Unsized(len) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").ok()?;
                stream.write_all(&self.file[..len]).ok()?;
            }
            Answer::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").ok()?;
                while stream.write_all(&[7; 4096]).is_ok() {}
            }
            Answer::Status(status) => {
                let page = "<html>no</html>";
                let text = format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\n\r\n{page}", page.len());
                stream.write_all(text.as_bytes()).ok()?;
            }
            Answer::Redirect(to) => {
                let text = format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(text.as_bytes()).ok()?;
            }
        }
        stream.shutdown(Shutdown::Both).ok()
    }
}

/// The head of an answer with the bytes of `file` from `start` on.
fn head(file: &[u8], start: usize) -> String {
    let (len, etag) = (file.len(), etag(file));
    let common = format!("Content-Length: {}\r\nETag: {etag}\r\nConnection: close\r\n\r\n", len - start);
    match start {
        0 => format!("HTTP/1.1 200 OK\r\n{common}"),
        _ => format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{len}\r\n{common}", len - 1),
    }
}

fn etag(file: &[u8]) -> String {
    format!("\"{}\"", file.iter().fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(*byte))))
}
