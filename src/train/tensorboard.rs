//! TensorBoard event files: the figures of metrics.jsonl and the pictures drawn beside them.
//!
//! A file is a row of records: length u64, its masked CRC-32C, the bytes, their masked CRC-32C, all little-endian (TFRecord).
//! Each record is an `Event` message (tensorflow/core/util/event.proto); the few fields used are encoded by hand.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::error::{AtPath, Result};
use crate::fs::{clear_unfinished, make_folder, write_atomic};

/// The part of a name by which TensorBoard knows its files.
const MARK: &str = "tfevents";
/// The tag of the pictures.
const PICTURES: &str = "samples";

/// An open event file that follows metrics.jsonl.
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Starts `folder/events.out.tfevents.SECONDS.distill` with all that `metrics`, the lines of a metrics.jsonl, and the
    /// pictures of the same steps hold. It takes the place of those that earlier calls wrote, so no step is there twice;
    /// a TensorBoard that is looking on drops what it has read.
    pub fn start(folder: &Path, metrics: &str, picture: &dyn Fn(u64) -> PathBuf) -> Result<Self> {
        make_folder(folder)?;
        clear_unfinished(folder)?;
        let now = wall_time();
        let path = folder.join(format!("events.out.{MARK}.{:010}.distill", now as u64));
        let mut bytes = record(&event(now, 0, &Message::new().bytes(3, b"brain.Event:2")));
        bytes.extend(record(&event(now, 0, &Message::new().bytes(7, &Message::new().varint(1, 1).0)))); // a start
        let mut lines =
            metrics.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok()).peekable();
        while let Some(line) = lines.next() {
            let Some(step) = step_of(&line) else { continue };
            bytes.extend(scalars(step, line.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))));
            if lines.peek().and_then(step_of) != Some(step) {
                bytes.extend(image(step, &picture(step))?);
            }
        }
        write_atomic(&path, &bytes)?;
        for entry in fs::read_dir(folder).at(folder)? {
            let other = entry.at(folder)?.path();
            if other != path && other.file_name().is_some_and(|name| name.to_string_lossy().contains(MARK)) {
                fs::remove_file(&other).at(&other)?;
            }
        }
        let file = OpenOptions::new().append(true).open(&path).at(&path)?;
        Ok(Events { path, file })
    }

    /// Appends figures of a step.
    pub fn write(&mut self, step: u64, figures: &[(&str, f64)]) -> Result<()> {
        self.file.write_all(&scalars(step, figures.iter().copied())).at(&self.path)
    }

    /// Appends the PNG file at `path`, if there is one.
    pub fn picture(&mut self, step: u64, path: &Path) -> Result<()> {
        self.file.write_all(&image(step, path)?).at(&self.path)
    }
}

fn step_of(line: &Map<String, Value>) -> Option<u64> {
    line.get("step")?.as_u64()
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A record with one value for each figure but the step.
fn scalars<'a>(step: u64, figures: impl Iterator<Item = (&'a str, f64)>) -> Vec<u8> {
    let values = figures.filter(|(name, _)| *name != "step");
    let summary = values.fold(Message::new(), |summary, (name, value)| {
        summary.bytes(1, &Message::new().bytes(1, name.as_bytes()).float(2, value as f32).0)
    });
    record(&event(wall_time(), step, &Message::new().bytes(5, &summary.0)))
}

/// A record with the PNG file at `path`; nothing where there is none. Its header states width and height at bytes 16 to 23.
fn image(step: u64, path: &Path) -> Result<Vec<u8>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let png = fs::read(path).at(path)?;
    let side = |at: usize| png.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let image = Message::new().varint(1, side(20).into()).varint(2, side(16).into()).varint(3, 3).bytes(4, &png);
    let value = Message::new().bytes(1, PICTURES.as_bytes()).bytes(4, &image.0);
    Ok(record(&event(wall_time(), step, &Message::new().bytes(5, &Message::new().bytes(1, &value.0).0))))
}

/// An event: wall time (field 1), step (2), and what it tells.
fn event(time: f64, step: u64, what: &Message) -> Vec<u8> {
    let mut message = Message::new().double(1, time).varint(2, step);
    message.0.extend(&what.0);
    message.0
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

/// A protocol buffer in the making: each field is (number << 3 | wire type), then its value.
struct Message(Vec<u8>);

impl Message {
    fn new() -> Self {
        Message(Vec::new())
    }

    fn varint(mut self, field: u8, value: u64) -> Self {
        self.0.push(field << 3);
        self.number(value);
        self
    }

    fn double(mut self, field: u8, value: f64) -> Self {
        self.0.push(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u8, value: f32) -> Self {
        self.0.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        self.number(value.len() as u64);
        self.0.extend(value);
        self
    }

    /// Seven bits a byte, the lowest first; all but the last byte have the top bit set.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), rotated and shifted as TFRecord does.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    let shift = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    let crc = !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), shift));
    crc.rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli_masked() {
        // RFC 3720, B.4: 32 bytes of zeros have CRC-32C 8a9136aa; unmasked as TFRecord's documentation says.
        let masked = u32::from_le_bytes(masked_crc(&[0; 32]));
        assert_eq!(masked.wrapping_sub(0xA282_EAD8).rotate_left(15), 0x8A91_36AA);
    }
}
