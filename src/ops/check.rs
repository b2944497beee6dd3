//! Compares an op with its plain version: the output, and every gradient with the central differences of that version.
//! `distill check` and tests/ops share this.

use candle_core::{DType, Device, Tensor};

use super::{Convolution, Input, Tape, Value, conv2d};
use crate::error::Result;
use crate::fail;
use crate::rng::Rng;

/// An op on the values of its inputs.
pub type Op<'a> = dyn Fn(&Tape, &[Value]) -> Result<Value> + 'a;
/// The plain version of an op, on the elements of its inputs.
pub type Plain<'a> = dyn Fn(&[Vec<f64>]) -> Vec<f64> + 'a;

/// Central differences in f64: an error near STEP^2 from the third derivative and 1e-16 / STEP from rounding.
const STEP: f64 = 1e-5;
/// Elements of each input whose derivative is checked alone; a random direction checks all of them together.
const SAMPLES: usize = 24;

/// How far off one result is.
#[derive(Clone, Debug)]
pub struct Finding {
    /// "output", "gradient 2" (of input 2), or "gradient 2 along a random direction".
    pub of: String,
    /// The largest error, as a part of the largest value beside it; infinite where something is not a number.
    pub error: f64,
    /// The values that differ most, and the place of them.
    pub found: f64,
    pub expected: f64,
    pub place: usize,
}

impl Finding {
    /// Of two arrays; errors are parts of `scale`.
    ///
    /// # Errors
    /// The arrays differ in length.
    pub fn between(of: impl Into<String>, found: &[f64], expected: &[f64], scale: f64) -> Result<Self> {
        let of = of.into();
        if found.len() != expected.len() {
            fail!("{of}: expected {} elements, found {}", expected.len(), found.len());
        }
        let mut worst = Finding { of, error: 0.0, found: 0.0, expected: 0.0, place: 0 };
        for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let difference = (found - expected).abs() / scale;
            let error = if difference.is_finite() { difference } else { f64::INFINITY };
            if error > worst.error {
                worst = Finding { error, found, expected, place, ..worst };
            }
        }
        Ok(worst)
    }
}

/// The largest absolute value, but at least `least`.
pub fn largest(values: &[f64], least: f64) -> f64 {
    values.iter().fold(least, |m, v| m.max(v.abs()))
}

/// A standard normal tensor on the CPU; `name` and `index` make it differ from others.
pub fn normal(name: &str, index: usize, dims: &[usize]) -> Result<Tensor> {
    let values = Rng::stream(1, name, index as u32, 0).normal(dims.iter().product());
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}

/// With values that bf16 holds exactly: what lies on one side of a kink stays there.
pub fn exact_in_bf16(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32)?)
}

/// The elements of a tensor on any device.
pub fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

pub fn doubles(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(floats(tensor)?.into_iter().map(f64::from).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The dot product of `x` with `weights`, which are on the CPU: a loss under which the gradient of `x` is `weights`.
pub fn functional(tape: &Tape, x: &Value, weights: &Tensor) -> Result<Value> {
    let (dtype, device) = (x.tensor().dtype(), x.tensor().device().clone());
    let value = dot(&doubles(x.tensor())?, &doubles(weights)?) as f32;
    // A copy, for the tape adds to gradients in place, of the output's type.
    let weights = weights.to_dtype(dtype)?.copy()?.to_device(&device)?;
    Ok(tape.record(Tensor::new(value, &device)?, &[x], move |_| Ok(vec![Some(weights)])))
}

/// What a convolution reads, as it reads it: through the 1 x 1 kernel that changes nothing.
pub fn seen(tape: &Tape, input: &Input, channels: usize) -> Result<Value> {
    let value = |i: usize| f32::from(u8::from(i / channels == i % channels));
    let values: Vec<f32> = (0..channels * channels).map(value).collect();
    let kernel = Tensor::from_vec(values, (channels, 1, 1, channels), input.parts[0].tensor().device())?;
    let options = Convolution { f32_output: true, ..Default::default() };
    conv2d(tape, input, &Value::constant(kernel), options)
}

/// What an op made of its inputs.
pub struct Outcome {
    pub output: Vec<f64>,
    /// With which the output was multiplied to get the loss.
    weights: Vec<f64>,
    /// Of each input; none for a constant.
    pub gradients: Vec<Option<Vec<f64>>>,
}

impl Outcome {
    /// Of `op` on `inputs`, moved to `device`, of which those that `trains` names are trainable.
    ///
    /// # Errors
    /// The op refuses its inputs, a gradient is missing or of another shape than its input, or a constant got one.
    pub fn of(device: &Device, inputs: &[Tensor], trains: impl Fn(usize) -> bool, op: &Op) -> Result<Self> {
        let inputs = inputs.iter().map(|t| Ok(t.to_device(device)?)).collect::<Result<Vec<Tensor>>>()?;
        let tape = Tape::recording();
        let value = |(i, t): (usize, &Tensor)| if trains(i) { tape.param(t) } else { Value::constant(t.clone()) };
        let values: Vec<Value> = inputs.iter().enumerate().map(value).collect();
        let out = op(&tape, &values)?;
        let weights = normal("functional", 0, out.dims())?;
        let loss = functional(&tape, &out, &weights)?;
        drop(values);
        let found = tape.backward(&loss)?;
        let mut gradients = Vec::new();
        for (i, input) in inputs.iter().enumerate() {
            gradients.push(match (trains(i), found.get(input)) {
                (true, Ok(gradient)) if gradient.dims() == input.dims() => Some(doubles(gradient)?),
                (true, Ok(other)) => fail!("gradient {i}: expected shape {:?}, found {:?}", input.dims(), other.dims()),
                (true, Err(missing)) => return Err(missing),
                (false, Ok(_)) => fail!("gradient {i}: expected none of a constant, found one"),
                (false, Err(_)) => None,
            });
        }
        Ok(Outcome { output: doubles(out.tensor())?, weights: doubles(&weights)?, gradients })
    }

    /// The differences from another outcome of the same op, as parts of each array's largest value.
    pub fn compared(&self, expected: &Outcome) -> Result<Vec<Finding>> {
        let mut all =
            vec![Finding::between("output", &self.output, &expected.output, largest(&expected.output, 1e-6))?];
        for (i, (found, expected)) in self.gradients.iter().zip(&expected.gradients).enumerate() {
            if let (Some(found), Some(expected)) = (found, expected) {
                all.push(Finding::between(format!("gradient {i}"), found, expected, largest(expected, 1e-3))?);
            }
        }
        Ok(all)
    }
}

/// The errors of `op` on `device` beside its plain version: those of the output and of each input's gradient.
pub fn against_plain(device: &Device, inputs: &[Tensor], op: &Op, plain: &Plain) -> Result<Vec<Finding>> {
    let found = Outcome::of(device, inputs, |_| true, op)?;
    let mut exact = inputs.iter().map(doubles).collect::<Result<Vec<_>>>()?;
    let expected = plain(&exact);
    let mut all = vec![Finding::between("output", &found.output, &expected, largest(&expected, 1e-6))?];
    for (i, gradient) in found.gradients.iter().enumerate() {
        let Some(gradient) = gradient else { continue };
        all.extend(of_gradient(i, gradient, &mut exact, |x| dot(&plain(x), &found.weights))?);
    }
    Ok(all)
}

/// Checks single derivatives of `loss` with respect to input `i`, then the one along a random corner of the cube.
fn of_gradient(
    i: usize,
    gradient: &[f64],
    inputs: &mut [Vec<f64>],
    loss: impl Fn(&[Vec<f64>]) -> f64,
) -> Result<[Finding; 2]> {
    let mut rng = Rng::stream(2, "check", i as u32, 0);
    let n = gradient.len();
    let mut derivative = |direction: &dyn Fn(usize) -> f64| {
        let saved = inputs[i].clone();
        let mut moved = |step: f64| {
            inputs[i].iter_mut().zip(&saved).enumerate().for_each(|(k, (x, s))| *x = s + step * direction(k));
            loss(inputs)
        };
        let found = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        inputs[i] = saved;
        found
    };
    let picks: Vec<usize> = if n <= SAMPLES { (0..n).collect() } else { (0..SAMPLES).map(|_| rng.below(n)).collect() };
    let expected: Vec<f64> = picks.iter().map(|&p| derivative(&|k| f64::from(k == p))).collect();
    let found: Vec<f64> = picks.iter().map(|&p| gradient[p]).collect();
    let mut single = Finding::between(format!("gradient {i}"), &found, &expected, largest(gradient, 1e-3))?;
    single.place = picks.get(single.place).copied().unwrap_or(0);
    let signs: Vec<f64> = (0..n).map(|_| f64::from(rng.uniform() < 0.5) * 2.0 - 1.0).collect();
    let sizes = gradient.iter().map(|g| g.abs()).sum::<f64>().max(1e-3);
    let of = format!("gradient {i} along a random direction");
    let whole = Finding::between(of, &[dot(gradient, &signs)], &[derivative(&|k| signs[k])], sizes)?;
    Ok([single, whole])
}

/// Runs `op` again with each input alone trainable: the output and that input's gradient must be the same bits.
pub fn repeated(device: &Device, inputs: &[Tensor], op: &Op) -> Result<Vec<Finding>> {
    let all = Outcome::of(device, inputs, |_| true, op)?;
    let mut found = Vec::new();
    for i in 0..inputs.len() {
        for mut finding in Outcome::of(device, inputs, |j| j == i, op)?.compared(&all)? {
            finding.of += " of another run";
            found.push(finding);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{reference, silu};

    /// The largest error of silu whose output or gradient is `spoilt`.
    fn error(spoilt: impl Fn(&Tape, &Value) -> Result<Value>) -> f64 {
        let inputs = [normal("wrong", 0, &[3, 40]).unwrap()];
        let found = against_plain(&Device::Cpu, &inputs, &|t, v| spoilt(t, &v[0]), &|v| reference::silu(&v[0]));
        found.unwrap().iter().fold(0.0, |m, f| m.max(f.error))
    }

    #[test]
    fn wrong_outputs_and_gradients_are_found() {
        let changed = |t: &Tensor, by: f64| t.affine(1.0 + by, 0.0);
        assert!(error(silu) < 1e-6);
        // The output alone is off.
        let output = |tape: &Tape, x: &Value| {
            let out = silu(tape, x)?;
            Ok(tape.record(changed(out.tensor(), 1e-3)?, &[&out], |g| Ok(vec![Some(g)])))
        };
        assert!((error(output) / 1e-3 - 1.0).abs() < 0.01);
        // The gradient alone is off.
        let gradient = |tape: &Tape, x: &Value| {
            let out = silu(tape, x)?;
            Ok(tape.record(out.tensor().clone(), &[&out], move |g| Ok(vec![Some(changed(&g, 1e-3)?)])))
        };
        assert!(error(gradient) > 5e-4);
        let nothing = |tape: &Tape, x: &Value| Ok(tape.record((x.tensor() * f64::NAN)?, &[x], |g| Ok(vec![Some(g)])));
        assert_eq!(error(nothing), f64::INFINITY);
    }

    #[test]
    fn one_wrong_element_of_many_is_found() {
        let values = vec![1.0; 1000];
        let mut spoilt = values.clone();
        spoilt[700] = 1.5;
        let finding = Finding::between("output", &spoilt, &values, 1.0).unwrap();
        assert_eq!((finding.error, finding.place, finding.found), (0.5, 700, 1.5));
        assert!(Finding::between("output", &spoilt[..999], &values, 1.0).is_err());
    }

    #[test]
    fn gradients_that_are_missing_or_not_asked_for_are_errors() {
        let inputs = [normal("missing", 0, &[4]).unwrap(), normal("missing", 1, &[4]).unwrap()];
        let first_only: &Op = &|tape, v| silu(tape, &v[0]);
        assert!(Outcome::of(&Device::Cpu, &inputs, |_| true, first_only).is_err());
        assert!(Outcome::of(&Device::Cpu, &inputs, |i| i == 0, first_only).is_ok());
    }
}
