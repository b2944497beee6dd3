//! One HTTP request, made in a thread of its own: whoever waits for its events stays free to heed Ctrl-C.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use ureq::http::Response;
use ureq::{Agent, Body};

/// Bytes read from the network at once.
const BLOCK: usize = 64 << 10;
/// Blocks that may wait to be written.
const WAITING: usize = 16;

/// What comes of a request, in this order: a head, bytes, and the end of the channel; or an error at any place.
pub enum Event {
    Head(Head),
    Bytes(Vec<u8>),
    Error(ureq::Error),
}

/// What the answer says about itself.
pub struct Head {
    pub status: u16,
    /// Where in the file the body starts; none where the answer does not say so.
    pub start: Option<u64>,
    /// Size of the whole file, where it is told.
    pub total: Option<u64>,
    /// A strong ETag: the file's content has not changed as long as this has not.
    pub etag: Option<String>,
}

/// Asks for the bytes of `url` from `start` on, provided that the file still has `etag`. To drop the receiver ends the
/// request with its next block.
pub fn send(agent: &Agent, url: &str, start: u64, etag: Option<&str>) -> Receiver<Event> {
    let (sender, receiver) = sync_channel(WAITING);
    let mut request = agent.get(url).header("Accept-Encoding", "identity");
    if start > 0 {
        request = request.header("Range", format!("bytes={start}-"));
        if let Some(etag) = etag {
            request = request.header("If-Range", etag);
        }
    }
    thread::spawn(move || match request.call() {
        Ok(response) => receive(response, &sender),
        Err(error) => drop(sender.send(Event::Error(error))),
    });
    receiver
}

fn receive(response: Response<Body>, sender: &SyncSender<Event>) {
    if sender.send(Event::Head(head(&response))).is_err() {
        return;
    }
    let mut body = response.into_body().into_reader();
    loop {
        let mut block = vec![0; BLOCK];
        let event = match body.read(&mut block) {
            Ok(0) => return,
            Ok(n) => {
                block.truncate(n);
                Event::Bytes(block)
            }
            Err(error) => Event::Error(error.into()),
        };
        let last = matches!(event, Event::Error(_));
        if sender.send(event).is_err() || last {
            return;
        }
    }
}

fn head(response: &Response<Body>) -> Head {
    let field = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let status = response.status().as_u16();
    let (start, total) = match status {
        200 => (Some(0), field("content-length").and_then(|length| length.parse().ok())),
        _ => field("content-range").map_or((None, None), content_range),
    };
    let etag = field("etag").filter(|etag| etag.starts_with('"')).map(str::to_string);
    Head { status, start, total, etag }
}

/// (first byte, size of the whole) of "bytes 5-99/100"; either may be "*".
fn content_range(text: &str) -> (Option<u64>, Option<u64>) {
    let Some((range, total)) = text.strip_prefix("bytes ").and_then(|rest| rest.split_once('/')) else {
        return (None, None);
    };
    (range.split_once('-').and_then(|(first, _)| first.trim().parse().ok()), total.trim().parse().ok())
}
