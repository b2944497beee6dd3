//! Tensors of other programs' files, turned into images and labels as they are read.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use half::{bf16, f16};

use super::Reading;
use crate::data::Normalization;
use crate::distilled::SoftLabels;
use crate::error::Error;
use crate::interrupt;

/// A type of values, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl DType {
    /// Bytes of a value.
    pub fn width(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::I16 | DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// The value of `width` bytes. Whole numbers beyond 2^53 are rounded, which no pixel or label reaches.
    fn value(self, bytes: &[u8]) -> f64 {
        let mut eight = [0; 8];
        eight[..self.width()].copy_from_slice(&bytes[..self.width()]);
        let bits = u64::from_le_bytes(eight);
        match self {
            DType::Bool | DType::U8 => f64::from(bits as u8),
            DType::I8 => f64::from(bits as i8),
            DType::I16 => f64::from(bits as i16),
            DType::I32 => f64::from(bits as i32),
            DType::I64 => bits as i64 as f64,
            DType::F16 => f16::from_bits(bits as u16).to_f64(),
            DType::BF16 => bf16::from_bits(bits as u16).to_f64(),
            DType::F32 => f64::from(f32::from_bits(bits as u32)),
            DType::F64 => f64::from_bits(bits),
        }
    }
}

/// A tensor whose values are still to be read. Whoever makes one has checked that `data` can hold `shape`.
pub struct Tensor<'a> {
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// The values in row-major order.
    pub data: Box<dyn Read + 'a>,
}

/// What the numbers of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pixels {
    /// 0 to 255
    Bytes,
    /// 0 to 1
    Unit,
    /// 0 to 1, less the data set's mean, divided by its standard deviation
    Normalized,
}

/// Square RGB images out of a tensor.
pub struct Images {
    /// (N, H, W, 3), 0 to 255.
    pub pixels: Vec<u8>,
    pub size: usize,
    /// The share of values that were outside of what a pixel can show, and were clamped.
    pub clamped: f64,
    /// (N, H, W, 3): the values as they are, normalized, where these were asked for and are floating-point numbers.
    pub exact: Option<Vec<f32>>,
}

/// A set is refused if more than this share of its values lies outside of what a pixel can show: it is something else
/// than was said. Optimized images overshoot by a little.
const MOST_CLAMPED: f64 = 0.1;
/// The same where nothing is clamped, so that only what the values mean is in question.
const MOST_OUTSIDE: f64 = 0.5;
/// More negative values than this are no overshoot of pixels from 0 to 1, where some go below -0.5.
const MOST_BELOW_ZERO: f64 = 0.3;
/// Fewer values than this beyond a limit are overshoot of optimized images, if none goes far.
const FEW: f64 = 0.03;
/// How far values from -1 to 1 overshoot.
const BARELY: f64 = 1.1;
/// A set is refused if a value lies further outside than this, in ranges of a pixel: 255 said to be from 0 to 1 is 254.
const FURTHEST: f64 = 4.0;

/// Reads a tensor (N, 3, H, W) or (N, H, W, 3) whose values are what `reading` says; if it does not, only whole numbers
/// are taken, as bytes. Errors are sentences about the tensor.
pub fn images(mut tensor: Tensor, reading: &Reading) -> std::result::Result<Images, String> {
    let (n, size, channels_first) = match tensor.shape[..] {
        [n, 3, h, w] if h == w => (n, h, true),
        [n, h, w, 3] if h == w => (n, h, false),
        _ => return Err(format!("the images have shape {:?}, expected (N, 3, H, H) or (N, H, H, 3)", tensor.shape)),
    };
    if n == 0 || size == 0 {
        return Err(format!("there is no image in a tensor of shape {:?}", tensor.shape));
    }
    let meaning = match (reading.pixels(), tensor.dtype.is_float()) {
        (Some(pixels), true) => pixels,
        (None | Some(Pixels::Bytes), false) => Pixels::Bytes,
        (Some(_), false) => return Err("the images are whole numbers, so they are --pixels bytes".into()),
        (None, true) => {
            return Err("the images are floating-point numbers; say what they mean with --pixels bytes, unit or \
                        normalized"
                .into());
        }
    };
    let width = tensor.dtype.width();
    let plane = size * size;
    let mut bytes = vec![0; 3 * plane * width];
    let mut values = Values::new(meaning, reading, tensor.dtype.is_float());
    let mut pixels = Vec::new(); // grows as images arrive: a header may promise more than there is
    for _ in 0..n {
        if interrupt::requested() {
            return Err("the images were not read".into()); // `import` tells why
        }
        read_exactly(&mut tensor.data, &mut bytes)?;
        let value = |at: usize| tensor.dtype.value(&bytes[at * width..]);
        for i in 0..plane {
            for c in 0..3 {
                pixels.push(values.pixel(value(if channels_first { c * plane + i } else { 3 * i + c }), c)?);
            }
        }
    }
    read_end(&mut tensor.data)?;
    let clamped = values.check()?;
    Ok(Images { pixels, size, clamped, exact: values.exact })
}

/// Turns values into pixels, and remembers what shows whether they are what was said.
struct Values {
    meaning: Pixels,
    /// What normalized values were normalized with.
    stated: Normalization,
    /// What exact values are to be normalized with.
    wanted: Normalization,
    count: u64,
    clamped: u64,
    /// Values below 0, and outside of -1 to 1.
    below_zero: u64,
    beyond_one: u64,
    /// How far outside of what a pixel can show, in its ranges.
    furthest: f64,
    least: f64,
    most: f64,
    /// The values so far, normalized, if they are to be kept.
    exact: Option<Vec<f32>>,
}

impl Values {
    fn new(meaning: Pixels, reading: &Reading, float: bool) -> Self {
        let wanted = reading.dataset.normalization();
        Values {
            meaning,
            stated: reading.normalization.unwrap_or(wanted),
            wanted,
            count: 0,
            clamped: 0,
            below_zero: 0,
            beyond_one: 0,
            furthest: 0.0,
            least: f64::INFINITY,
            most: f64::NEG_INFINITY,
            exact: (reading.exact && float).then(Vec::new),
        }
    }

    /// The pixel of a value of channel `c`.
    fn pixel(&mut self, value: f64, c: usize) -> std::result::Result<u8, String> {
        if !value.is_finite() {
            return Err(format!("a pixel is {value}"));
        }
        let (stated, wanted) = (self.stated, self.wanted);
        let shown = value * f64::from(stated.std[c]) + f64::from(stated.mean[c]); // of a normalized value
        if let Some(exact) = &mut self.exact {
            let normalized = |unit: f32| (unit - wanted.mean[c]) / wanted.std[c]; // in f32, as a table of pixels has it
            exact.push(match self.meaning {
                Pixels::Bytes => normalized(value as f32 / 255.0),
                Pixels::Unit => normalized(value as f32),
                Pixels::Normalized if stated == wanted => value as f32,
                Pixels::Normalized => normalized(shown as f32),
            });
        }
        let pixel = match self.meaning {
            Pixels::Bytes => value,
            Pixels::Unit => value * 255.0,
            Pixels::Normalized => shown * 255.0,
        };
        self.count += 1;
        self.below_zero += u64::from(value < 0.0);
        self.beyond_one += u64::from(value.abs() > 1.0);
        self.clamped += u64::from(!(-0.5..=255.5).contains(&pixel));
        self.furthest = self.furthest.max((-pixel).max(pixel - 255.0) / 255.0);
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        Ok(pixel.round() as u8) // `as` clamps
    }

    /// The share of clamped values, if the values can be what was said.
    fn check(&self) -> std::result::Result<f64, String> {
        let share = |count: u64| count as f64 / self.count as f64;
        let (clamped, below_zero, beyond_one) = (share(self.clamped), share(self.below_zero), share(self.beyond_one));
        let Normalization { mean, std } = self.stated;
        // Whether black and white lie outside of -1 to 1.
        let leaves_one = (0..3).all(|c| f64::from(mean[c].min(1.0 - mean[c]) / std[c]) > BARELY);
        let reason = match self.meaning {
            _ if clamped > if self.exact.is_some() { MOST_OUTSIDE } else { MOST_CLAMPED } => {
                format!("{:.0} % of them would lie outside of what a pixel can show", clamped * 100.0)
            }
            _ if self.furthest > FURTHEST => {
                format!("one would lie {:.0} times the range of a pixel outside of it", self.furthest)
            }
            Pixels::Normalized if below_zero < FEW && self.least > -BARELY => {
                format!("{:.1} % are below 0", below_zero * 100.0)
            }
            Pixels::Normalized if leaves_one && beyond_one < FEW && self.least > -BARELY && self.most < BARELY => {
                format!(
                    "{:.1} % lie outside of -1 to 1, which this mean and standard deviation would leave",
                    beyond_one * 100.0
                )
            }
            Pixels::Unit if below_zero > MOST_BELOW_ZERO && self.least < -0.5 => {
                format!("{:.0} % are below 0", below_zero * 100.0)
            }
            Pixels::Bytes if beyond_one < FEW && (0.0..FURTHEST).contains(&self.most) && self.most > 0.0 => {
                format!("{:.1} % are above 1", beyond_one * 100.0)
            }
            _ => return Ok(clamped),
        };
        let said = self.meaning.to_possible_value().map_or(String::new(), |v| v.get_name().to_string());
        Err(format!(
            "the images cannot be --pixels {said}: their values go from {} to {}, and {reason}; say what they are",
            self.least, self.most
        ))
    }
}

/// Labels as a file has them.
pub enum Labels {
    /// (N): a class each.
    Hard(Vec<i64>),
    Soft(Soft),
}

/// Soft labels before it is known which classes their columns are.
pub struct Soft {
    pub labels: SoftLabels,
    /// Columns of a row.
    pub classes: usize,
}

/// Reads labels: whole numbers (N), or a probability for each class, (N, classes) or (N, views, classes).
pub fn labels(tensor: Tensor) -> std::result::Result<Labels, String> {
    match tensor.shape[..] {
        [_] if tensor.dtype.is_float() => {
            Err("the labels are floating-point numbers, one for each image; expected whole numbers".into())
        }
        [_] => Ok(Labels::Hard(numbers(tensor, |value| value as i64)?)),
        _ => soft(tensor).map(Labels::Soft),
    }
}

/// Reads soft labels, (N, classes) or (N, views, classes). Whether they are probabilities is checked by whoever knows N.
pub fn soft(tensor: Tensor) -> std::result::Result<Soft, String> {
    let (views, classes) = match tensor.shape[..] {
        [_, classes] if classes > 1 => (1, classes),
        [_, views, classes] if classes > 1 && views > 0 => (views, classes),
        _ => {
            return Err(format!(
                "the labels have shape {:?}, expected (N), or soft ones of shape (N, classes) or (N, views, classes)",
                tensor.shape
            ));
        }
    };
    let values = numbers(tensor, |value| value as f32)?;
    Ok(Soft { labels: SoftLabels { values: Arc::new(values), views }, classes })
}

/// All values of a tensor.
fn numbers<T>(mut tensor: Tensor, convert: impl Fn(f64) -> T) -> std::result::Result<Vec<T>, String> {
    let mut bytes = vec![0; tensor.dtype.width()];
    let mut values = Vec::new(); // grows as they arrive: a header may promise more than there is
    for _ in 0..count(&tensor.shape)? {
        read_exactly(&mut tensor.data, &mut bytes)?;
        values.push(convert(tensor.dtype.value(&bytes)));
    }
    read_end(&mut tensor.data)?;
    Ok(values)
}

/// Fills `bytes`.
fn read_exactly(data: &mut dyn Read, bytes: &mut [u8]) -> std::result::Result<(), String> {
    data.read_exact(bytes).map_err(|e| format!("the values of a tensor cannot be read ({e})"))
}

/// Meets the end of the data, which makes an archive check its sum.
fn read_end(data: &mut dyn Read) -> std::result::Result<(), String> {
    std::io::copy(data, &mut std::io::sink())
        .map(|_| ())
        .map_err(|e| format!("a tensor cannot be read to its end ({e})"))
}

/// The number of values of a shape; an error if no memory could hold them.
pub fn count(shape: &[usize]) -> std::result::Result<usize, String> {
    let product = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n)).filter(|&n| n < 1 << 48);
    product.ok_or_else(|| format!("a tensor claims the shape {shape:?}"))
}

/// Puts a file's name before a sentence about its content.
pub fn in_file(path: &Path) -> impl Fn(String) -> Error {
    let path = path.display().to_string();
    move |what| Error::Failed(format!("{path}: {what}"))
}
