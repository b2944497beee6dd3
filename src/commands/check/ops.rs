//! Every op beside its plain version, at small and odd sizes.

use candle_core::Tensor;

use super::{Allowed, Check, OF_OPS};
use crate::error::Result;
use crate::ops::check::{Op, Plain, against_plain, doubles, exact_in_bf16, normal, seen};
use crate::ops::cpu::attention::AttentionShape;
use crate::ops::reference::{self, NormShape, activation};
use crate::ops::{self, Activation, Input, Norm, Tape, Value};

/// Batches of images (B, H, W, C): single pixels, odd sides, few channels and many.
const SIZES: [[usize; 4]; 4] = [[1, 2, 3, 1], [3, 4, 6, 5], [2, 5, 7, 16], [5, 3, 3, 33]];
/// Without products of matrices: a GPU's f32 is exact as well.
const EXACT: Allowed = Allowed { tf32: 1e-5, ..OF_OPS };

pub fn checks() -> Result<Vec<Check>> {
    Ok([elementwise()?, sampling()?, losses()?, attention()?, resampling()?, activations()?]
        .into_iter()
        .flatten()
        .collect())
}

/// Standard normal inputs of the given shapes.
pub fn normals(name: &str, shapes: &[&[usize]]) -> Result<Vec<Tensor>> {
    shapes.iter().enumerate().map(|(i, dims)| exact_in_bf16(&normal(name, i, dims)?)).collect()
}

/// "3x4x6x5, 5", of tensors.
pub fn shapes(tensors: &[Tensor]) -> String {
    let one = |tensor: &Tensor| tensor.dims().iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    tensors.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Check {
    /// `op` on `inputs` beside its plain version.
    pub fn plain(name: &str, inputs: Vec<Tensor>, op: Box<Op<'static>>, plain: Box<Plain<'static>>) -> Self {
        let shapes = shapes(&inputs);
        let run = Box::new(move |device: &_| against_plain(device, &inputs, &op, &plain));
        Check { name: name.into(), shapes, allowed: OF_OPS, run }
    }

    fn exact(self) -> Self {
        Check { allowed: EXACT, ..self }
    }
}

fn elementwise() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for dims in [&[1][..], &[3, 5, 7], &[70_001]] {
        let two = || normals("two", &[dims, dims]);
        let one = || normals("one", &[dims]);
        all.push(Check::plain(
            "silu",
            one()?,
            Box::new(|t, v| ops::silu(t, &v[0])),
            Box::new(|v| reference::silu(&v[0])),
        ));
        let sum: Box<Plain> = Box::new(|v| reference::add(&v[0], &v[1]));
        all.push(Check::plain("add", two()?, Box::new(|t, v| ops::add(t, &v[0], &v[1])), sum));
    }
    let doubled: Box<Plain> = Box::new(|v| reference::add(&v[0], &v[0]));
    all.push(Check::plain(
        "add, to itself",
        normals("x", &[&[3, 5]])?,
        Box::new(|t, v| ops::add(t, &v[0], &v[0])),
        doubled,
    ));
    for (rows, a, b) in [(1, 1, 1), (30, 3, 16), (14, 5, 1)] {
        let inputs = normals("concat", &[&[rows, a], &[rows, b]])?;
        let joined: Box<Plain> = Box::new(move |v| reference::concat(&v[0], &v[1], a, b));
        all.push(Check::plain("concat", inputs, Box::new(|t, v| ops::concat(t, &v[0], &v[1])), joined));
    }
    let same: Box<Plain> = Box::new(|v| v[0].clone());
    let reshaped = normals("reshape", &[&[2, 3, 4]])?;
    all.push(Check::plain("reshape", reshaped, Box::new(|t, v| ops::reshape(t, &v[0], &[6, 4])), same));
    for indices in [&[0u32][..], &[2, 0, 2, 2, 4]] {
        let rows: Box<Plain> = Box::new(|v| reference::embedding(&v[0], 7, indices));
        let op: Box<Op> = Box::new(|t, v| ops::embedding(t, &v[0], indices));
        all.push(Check::plain(&format!("embedding, {} rows", indices.len()), normals("table", &[&[5, 7]])?, op, rows));
    }
    Ok(all.into_iter().map(Check::exact).collect())
}

fn sampling() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for (rows, c) in [(1, 1), (30, 4)] {
        let noise = normal("noise", 0, &[rows, c])?;
        let exact = doubles(&noise)?;
        let mut check = |name: &str, moments: Tensor| {
            let (noise, exact) = (noise.clone(), exact.clone());
            let op: Box<Op> =
                Box::new(move |t, v| ops::gaussian_sample(t, &v[0], &noise.to_device(v[0].tensor().device())?));
            let plain: Box<Plain> = Box::new(move |v| reference::gaussian_sample(&v[0], &exact, c));
            all.push(Check::plain(name, vec![moments], op, plain).exact());
        };
        let moments = normals("moments", &[&[rows, 2 * c]])?.remove(0);
        check("gaussian_sample", moments.clone());
        // Some log-variances beyond their range on both sides.
        check("gaussian_sample, clamped", exact_in_bf16(&moments.affine(9.0, -6.0)?)?);
    }
    Ok(all)
}

fn losses() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for (dims, weights) in [(&[1, 1][..], None), (&[3, 5, 4, 2], None), (&[3, 5, 4, 2], Some(&[0.5f32, 2.0, 0.0][..]))]
    {
        let target = normal("target", 0, dims)?;
        let exact = doubles(&target)?;
        let doubles = weights.map_or(vec![1.0; dims[0]], |w| w.iter().map(|&v| f64::from(v)).collect());
        let op: Box<Op> =
            Box::new(move |t, v| ops::squared_error(t, &v[0], &target.to_device(v[0].tensor().device())?, weights));
        let plain: Box<Plain> = Box::new(move |v| vec![reference::squared_error(&v[0], &exact, &doubles)]);
        let name = if weights.is_some() { "squared_error, weighted" } else { "squared_error" };
        all.push(Check::plain(name, normals("prediction", &[dims])?, op, plain));
    }
    for (rows, c) in [(1, 1), (30, 4)] {
        let plain: Box<Plain> = Box::new(move |v| vec![reference::gaussian_kl(&v[0], c)]);
        let inputs = normals("moments", &[&[rows, 2 * c]])?;
        all.push(Check::plain("gaussian_kl", inputs, Box::new(|t, v| ops::gaussian_kl(t, &v[0])), plain));
    }
    for (batch, classes) in [(1, 2), (7, 10), (33, 200)] {
        let labels: Vec<u16> = (0..batch).map(|i| (i * 7 % classes) as u16).collect();
        let (inputs, again) = (normals("logits", &[&[batch, classes]])?, labels.clone());
        let op: Box<Op> = Box::new(move |t, v| ops::cross_entropy(t, &v[0], &again));
        let plain: Box<Plain> = Box::new(move |v| vec![reference::cross_entropy(&v[0], classes, &labels)]);
        all.push(Check::plain("cross_entropy", inputs, op, plain));
    }
    let probabilities = [0.7f32, 0.2, 0.1, 0.0];
    let op: Box<Op> = Box::new(move |t, v| ops::distillation_loss(t, &v[0], &probabilities, 4.0));
    let plain: Box<Plain> =
        Box::new(move |v| vec![reference::distillation_loss(&v[0], 4, &probabilities.map(f64::from), 4.0)]);
    all.push(Check::plain("distillation_loss", normals("logits", &[&[1, 4]])?, op, plain));
    let weighted: Box<Op> = Box::new(|t, v| {
        let (a, b) = (ops::gaussian_kl(t, &v[0])?, ops::gaussian_kl(t, &v[1])?);
        ops::weighted_sum(t, &[(&a, 0.5), (&b, -3.0), (&a, 2.0)])
    });
    let plain: Box<Plain> =
        Box::new(|v| vec![2.5 * reference::gaussian_kl(&v[0], 2) - 3.0 * reference::gaussian_kl(&v[1], 2)]);
    all.push(Check::plain("weighted_sum", normals("terms", &[&[3, 4], &[3, 4]])?, weighted, plain));
    Ok(all.into_iter().map(Check::exact).collect())
}

fn attention() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for (batch, tokens, heads, head_dim) in [(1, 1, 1, 4), (2, 7, 1, 5), (5, 13, 4, 3), (1, 33, 3, 16), (1, 65, 1, 40)]
    {
        let s = AttentionShape { batch, tokens, heads, head_dim };
        let inputs = normals("attention", &[&[batch, tokens, 3 * heads * head_dim]])?;
        let plain: Box<Plain> = Box::new(move |v| reference::attention(&s, &v[0]));
        let name = format!("attention, {heads} of {head_dim}");
        all.push(Check::plain(&name, inputs, Box::new(move |t, v| ops::attention(t, &v[0], heads)), plain).exact());
    }
    Ok(all)
}

/// Seen through a convolution that changes nothing.
fn resampling() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for dims @ [b, h, w, c] in SIZES {
        let op: Box<Op> = Box::new(move |t, v| seen(t, &Input::of(&v[0]).upsampled(), c));
        let plain: Box<Plain> = Box::new(move |v| reference::upsample2x(&v[0], (b, h, w, c)));
        all.push(Check::plain("upsample", normals("upsample", &[&dims])?, op, plain));
    }
    Ok(all)
}

/// Activations, poolings and batch norm as ops of their own.
fn activations() -> Result<Vec<Check>> {
    let mut all = Vec::new();
    for dims @ [b, h, w, c] in SIZES {
        let x = || normals("activate", &[&dims]);
        for act in [Activation::Relu, Activation::Silu, Activation::Gelu] {
            let op: Box<Op> = Box::new(move |t, v| ops::activate(t, &Input::of(&v[0]), None, act));
            let plain: Box<Plain> = Box::new(move |v| v[0].iter().map(|&u| activation(act, u)).collect());
            all.push(Check::plain(&format!("activate, {act:?}").to_lowercase(), x()?, op, plain));
        }
        let both: Box<Plain> =
            Box::new(|v| reference::add(&v[0], &v[1]).into_iter().map(|u| activation(Activation::Silu, u)).collect());
        let op: Box<Op> = Box::new(|t, v| ops::activate(t, &Input::of(&v[0]), Some(&v[1]), Activation::Silu));
        all.push(Check::plain("activate, a sum", normals("sum", &[&dims, &dims])?, op, both));
        let largest: Box<Plain> = Box::new(move |v| reference::max_pool2x(&v[0], (b, h, w, c)));
        all.push(Check::plain("max_pool", x()?, Box::new(|t, v| ops::max_pool(t, &v[0])), largest));
        let mean: Box<Plain> = Box::new(move |v| reference::mean_pixels(&v[0], h * w, c));
        all.push(Check::plain("mean_pixels", x()?, Box::new(|t, v| ops::mean_pixels(t, &v[0])), mean));
        let norm = NormShape { batch: 1, pixels: b * h * w, channels: c, groups: c };
        let plain: Box<Plain> = Box::new(move |v| {
            reference::group_norm(&norm, &v[0], &v[1], &v[2], None, Activation::Silu, f64::from(1e-5f32))
        });
        let inputs = normals("batch norm", &[&dims, &[c], &[c]])?;
        all.push(Check::plain("batch_norm", inputs, Box::new(move |t, v| normalized_batch(t, v, c)), plain));
        let same: Box<Plain> = Box::new(|v| v[0].clone());
        all.push(Check::plain("flatten", x()?, Box::new(|t, v| ops::flatten(t, &v[0])), same));
    }
    Ok(all)
}

/// silu of the batch norm of `v`: images, gamma and beta.
fn normalized_batch(tape: &Tape, v: &[Value], channels: usize) -> Result<Value> {
    let found = ops::batch_norm(tape, &v[0], &v[1], &v[2], 1e-5)?;
    let (gamma, beta, act) = (found.factor, found.offset, Activation::Silu);
    let norm = Norm { gamma, beta, scale_shift: None, groups: 0, act, eps: 0.0 };
    seen(tape, &Input::of(&v[0]).normalized(norm), channels)
}
