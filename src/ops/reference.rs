//! The plain version of every op: forward passes as obvious loops in f64, which the tests compare the fast ones with.
//! Gradients need no plain version: central differences of these are exact to about ten digits.
//!
//! All arrays are row-major; the shapes are those of the ops of the same names.

use super::cpu::attention::AttentionShape;
use super::cpu::conv::ConvShape;
use super::cpu::norm::Activation;
use super::elementwise::LOG_VARIANCE_RANGE;

/// `x` (B, H, W, I) with `weight` (O, K, K, I), `bias` (O) and `residual` (B, OH, OW, O): (B, OH, OW, O).
pub fn conv2d(s: &ConvShape, x: &[f64], weight: &[f64], bias: Option<&[f64]>, residual: Option<&[f64]>) -> Vec<f64> {
    let mut out = Vec::new();
    for n in 0..s.batch {
        for oy in 0..s.out_height() {
            for ox in 0..s.out_width() {
                for o in 0..s.out_channels {
                    let added = bias.map_or(0.0, |b| b[o]) + residual.map_or(0.0, |r| r[out.len()]);
                    out.push(added + conv2d_output(s, x, weight, (n, oy, ox, o)));
                }
            }
        }
    }
    out
}

/// One output of a convolution: a sum over the taps that lie inside the image.
fn conv2d_output(s: &ConvShape, x: &[f64], weight: &[f64], (n, oy, ox, o): (usize, usize, usize, usize)) -> f64 {
    let mut sum = 0.0;
    for ky in 0..s.kernel {
        for kx in 0..s.kernel {
            let (y, x_) = (oy * s.stride + ky, ox * s.stride + kx); // counted from the padded corner
            let inside = |v: usize, size: usize| (s.padding..s.padding + size).contains(&v);
            if inside(y, s.height) && inside(x_, s.width) {
                let pixel = (n * s.height + y - s.padding) * s.width + x_ - s.padding;
                let tap = (o * s.kernel + ky) * s.kernel + kx;
                for i in 0..s.in_channels {
                    sum += x[pixel * s.in_channels + i] * weight[tap * s.in_channels + i];
                }
            }
        }
    }
    sum
}

/// `x` (rows, I) with `weight` (O, I), `bias` (O) and `residual` (rows, O): (rows, O).
pub fn linear(
    in_channels: usize,
    x: &[f64],
    weight: &[f64],
    bias: Option<&[f64]>,
    residual: Option<&[f64]>,
) -> Vec<f64> {
    let mut out = Vec::new();
    for x in x.chunks(in_channels) {
        for (o, weight) in weight.chunks(in_channels).enumerate() {
            let product: f64 = x.iter().zip(weight).map(|(x, w)| x * w).sum();
            out.push(product + bias.map_or(0.0, |b| b[o]) + residual.map_or(0.0, |r| r[out.len()]));
        }
    }
    out
}

/// The sizes of one normalization over (batch, pixels, channels).
#[derive(Clone, Copy, Debug)]
pub struct NormShape {
    pub batch: usize,
    pub pixels: usize,
    pub channels: usize,
    /// 0 for x_hat = x.
    pub groups: usize,
}

/// `x` (B, pixels, C), `gamma` and `beta` (C), `scale_shift` (B, 2C): (B, pixels, C).
pub fn group_norm(
    s: &NormShape,
    x: &[f64],
    gamma: &[f64],
    beta: &[f64],
    scale_shift: Option<&[f64]>,
    act: Activation,
    eps: f64,
) -> Vec<f64> {
    let c = s.channels;
    let width = c / s.groups.max(1);
    let mut out = vec![0.0; x.len()];
    for n in 0..s.batch {
        for group in 0..s.groups.max(1) {
            let members: Vec<usize> =
                (0..s.pixels * width).map(|i| (n * s.pixels + i / width) * c + group * width + i % width).collect();
            let mean = members.iter().map(|&i| x[i]).sum::<f64>() / members.len() as f64;
            let variance = members.iter().map(|&i| (x[i] - mean).powi(2)).sum::<f64>() / members.len() as f64;
            let (mean, std) = if s.groups == 0 { (0.0, 1.0) } else { (mean, (variance + eps).sqrt()) };
            for i in members {
                let ch = i % c;
                let (scale, shift) = scale_shift.map_or((0.0, 0.0), |v| (v[n * 2 * c + ch], v[n * 2 * c + c + ch]));
                let normalized = (x[i] - mean) / std;
                out[i] = activation(act, (normalized * gamma[ch] + beta[ch]) * (1.0 + scale) + shift);
            }
        }
    }
    out
}

/// act(u).
pub fn activation(act: Activation, u: f64) -> f64 {
    match act {
        Activation::Identity => u,
        Activation::Relu => u.max(0.0),
        Activation::Silu => u / (1.0 + (-u).exp()),
        Activation::Gelu => {
            let z = (2.0 / std::f64::consts::PI).sqrt() * (u + 0.044715 * u.powi(3));
            0.5 * u * (1.0 + z.tanh())
        }
    }
}

/// `qkv` (B, tokens, 3C), queries, keys and values each head by head: (B, tokens, C).
pub fn attention(s: &AttentionShape, qkv: &[f64]) -> Vec<f64> {
    let (c, d) = (s.heads * s.head_dim, s.head_dim);
    let mut out = vec![0.0; s.batch * s.tokens * c];
    let row = |n: usize, token: usize, part: usize, head: usize| {
        &qkv[(n * s.tokens + token) * 3 * c + part * c + head * d..][..d]
    };
    for n in 0..s.batch {
        for head in 0..s.heads {
            for i in 0..s.tokens {
                let score = |j| dot(row(n, i, 0, head), row(n, j, 1, head)) / (d as f64).sqrt();
                let weights: Vec<f64> = (0..s.tokens).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in weights.iter().enumerate() {
                    for (k, v) in row(n, j, 2, head).iter().enumerate() {
                        out[(n * s.tokens + i) * c + head * d + k] += weight / total * v;
                    }
                }
            }
        }
    }
    out
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `x` (B, H, W, C): (B, 2H, 2W, C).
pub fn upsample2x(x: &[f64], (b, h, w, c): (usize, usize, usize, usize)) -> Vec<f64> {
    let mut out = Vec::new();
    for n in 0..b {
        for y in 0..2 * h {
            for x_ in 0..2 * w {
                out.extend_from_slice(&x[((n * h + y / 2) * w + x_ / 2) * c..][..c]);
            }
        }
    }
    out
}

/// `x` (B, H, W, C): (B, H/2, W/2, C), rounded down.
pub fn avg_pool2x(x: &[f64], (b, h, w, c): (usize, usize, usize, usize)) -> Vec<f64> {
    let mut out = Vec::new();
    for n in 0..b {
        for y in 0..h / 2 {
            for x_ in 0..w / 2 {
                for ch in 0..c {
                    let at = |dy, dx| x[((n * h + 2 * y + dy) * w + 2 * x_ + dx) * c + ch];
                    out.push((at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0);
                }
            }
        }
    }
    out
}

/// `x` (B, H, W, C): (B, H/2, W/2, C), rounded down.
pub fn max_pool2x(x: &[f64], (b, h, w, c): (usize, usize, usize, usize)) -> Vec<f64> {
    let mut out = Vec::new();
    for n in 0..b {
        for y in 0..h / 2 {
            for x_ in 0..w / 2 {
                for ch in 0..c {
                    let at = |dy, dx| x[((n * h + 2 * y + dy) * w + 2 * x_ + dx) * c + ch];
                    out.push(at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1)));
                }
            }
        }
    }
    out
}

/// `x` (B, pixels, C): (B, C).
pub fn mean_pixels(x: &[f64], pixels: usize, c: usize) -> Vec<f64> {
    let images = x.chunks(pixels * c);
    images
        .flat_map(|image| (0..c).map(move |ch| (0..pixels).map(|p| image[p * c + ch]).sum::<f64>() / pixels as f64))
        .collect()
}

pub fn silu(x: &[f64]) -> Vec<f64> {
    x.iter().map(|&v| activation(Activation::Silu, v)).collect()
}

pub fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `a` (rows, ca) and `b` (rows, cb): (rows, ca + cb).
pub fn concat(a: &[f64], b: &[f64], ca: usize, cb: usize) -> Vec<f64> {
    a.chunks(ca).zip(b.chunks(cb)).flat_map(|(a, b)| [a, b].concat()).collect()
}

/// Rows `indices` of `table` (N, channels).
pub fn embedding(table: &[f64], channels: usize, indices: &[u32]) -> Vec<f64> {
    indices.iter().flat_map(|&i| table[i as usize * channels..][..channels].to_vec()).collect()
}

/// `moments` (rows, 2C), `noise` (rows, C): (rows, C).
pub fn gaussian_sample(moments: &[f64], noise: &[f64], c: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for (m, e) in moments.chunks(2 * c).zip(noise.chunks(c)) {
        for i in 0..c {
            out.push(m[i] + (clamped(m[c + i]) / 2.0).exp() * e[i]);
        }
    }
    out
}

/// `moments` (rows, 2C): the mean over rows and C.
pub fn gaussian_kl(moments: &[f64], c: usize) -> f64 {
    let mut sum = 0.0;
    for m in moments.chunks(2 * c) {
        for i in 0..c {
            let log_variance = clamped(m[c + i]);
            sum += (m[i].powi(2) + log_variance.exp() - 1.0 - log_variance) / 2.0;
        }
    }
    sum / (moments.len() / 2) as f64
}

fn clamped(log_variance: f64) -> f64 {
    log_variance.clamp(f64::from(LOG_VARIANCE_RANGE.0), f64::from(LOG_VARIANCE_RANGE.1))
}

/// `logits` (B, classes), `labels` (B): the mean over B.
pub fn cross_entropy(logits: &[f64], classes: usize, labels: &[u16]) -> f64 {
    let mut sum = 0.0;
    for (z, &label) in logits.chunks(classes).zip(labels) {
        sum += z.iter().map(|v| v.exp()).sum::<f64>().ln() - z[label as usize];
    }
    sum / labels.len() as f64
}

/// `logits` and `probabilities` (B, classes): temperature^2 KL(q || softmax(logits / temperature)) with q the probabilities
/// to the power of 1 / temperature, made to sum to 1; the mean over B.
pub fn distillation_loss(logits: &[f64], classes: usize, probabilities: &[f64], temperature: f64) -> f64 {
    let mut sum = 0.0;
    for (z, p) in logits.chunks(classes).zip(probabilities.chunks(classes)) {
        let softened: Vec<f64> = p.iter().map(|p| p.powf(1.0 / temperature)).collect();
        let (total, partition) = (softened.iter().sum::<f64>(), z.iter().map(|z| (z / temperature).exp()).sum::<f64>());
        for (q, z) in softened.iter().zip(z).filter(|(q, _)| **q > 0.0) {
            sum += q / total * ((q / total).ln() - (z / temperature).exp().ln() + partition.ln());
        }
    }
    temperature * temperature * sum / (logits.len() / classes) as f64
}

/// `prediction` and `target` (B, ...), `weights` (B): the mean over all elements.
pub fn squared_error(prediction: &[f64], target: &[f64], weights: &[f64]) -> f64 {
    let image = prediction.len() / weights.len();
    let term = |(i, (p, t)): (usize, (&f64, &f64))| weights[i / image] * (p - t).powi(2);
    prediction.iter().zip(target).enumerate().map(term).sum::<f64>() / prediction.len() as f64
}
