//! conv2d and linear.

use distill::ops::cpu::conv::ConvShape;
use distill::ops::reference::NormShape;
use distill::ops::{Activation, Convolution, Input, Norm, Tape, Value, conv2d, linear, reference};

use crate::check::{check, normal, normals};

/// Checks a convolution with (bias?, residual?).
fn check_conv(s: ConvShape, with_bias: bool, with_residual: bool) {
    let out_dims = [s.batch, s.out_height(), s.out_width(), s.out_channels];
    let mut shapes: Vec<&[usize]> = vec![];
    let (x, w) = ([s.batch, s.height, s.width, s.in_channels], [s.out_channels, s.kernel, s.kernel, s.in_channels]);
    let bias = [s.out_channels];
    shapes.extend([&x[..], &w]);
    shapes.extend(with_bias.then_some(&bias[..]));
    shapes.extend(with_residual.then_some(&out_dims[..]));
    let residual = with_residual.then_some(shapes.len() - 1);
    let bias = with_bias.then_some(2);
    check(
        &(s, with_bias, with_residual),
        &normals("conv", &shapes),
        |tape, v| {
            let (bias, residual) = (bias.map(|i| &v[i]), residual.map(|i| &v[i]));
            let options =
                Convolution { stride: s.stride, padding: s.padding, bias, residual, f32_output: s.batch == 1 };
            conv2d(tape, &Input::of(&v[0]), &v[1], options)
        },
        |v| reference::conv2d(&s, &v[0], &v[1], bias.map(|i| &v[i][..]), residual.map(|i| &v[i][..])),
    );
}

#[test]
fn conv2d_agrees_for_every_kernel_stride_and_padding() {
    for kernel in [1, 2, 3, 4] {
        for stride in [1, 2] {
            for padding in [0, 1] {
                for (batch, height, width, in_channels, out_channels) in [(1, 5, 7, 3, 5), (3, 8, 4, 5, 1)] {
                    check_conv(
                        ConvShape { batch, height, width, in_channels, out_channels, kernel, stride, padding },
                        padding == 1,
                        stride == 1,
                    );
                }
            }
        }
    }
}

#[test]
fn conv2d_agrees_for_every_number_of_channels() {
    for (in_channels, out_channels) in [(1, 33), (33, 1), (16, 16), (3, 16), (33, 5), (16, 33)] {
        let shape =
            ConvShape { batch: 2, height: 6, width: 5, in_channels, out_channels, kernel: 3, stride: 1, padding: 1 };
        check_conv(shape, true, false);
        check_conv(ConvShape { stride: 2, ..shape }, false, true);
        check_conv(ConvShape { kernel: 1, padding: 0, ..shape }, true, true);
    }
}

/// Images as small as the kernel, strides that leave pixels out, and padding wider than the image.
#[test]
fn conv2d_agrees_at_the_edges() {
    let shape =
        ConvShape { batch: 2, height: 1, width: 1, in_channels: 2, out_channels: 3, kernel: 3, stride: 1, padding: 1 };
    check_conv(shape, false, false);
    check_conv(ConvShape { height: 3, width: 3, padding: 0, ..shape }, true, true);
    check_conv(ConvShape { height: 7, width: 4, kernel: 2, stride: 3, padding: 0, ..shape }, true, false);
    check_conv(ConvShape { height: 2, width: 1, kernel: 4, stride: 2, padding: 3, ..shape }, false, true);
}

/// Many bands an image and a batch that no number of threads divides.
#[test]
fn conv2d_agrees_for_any_number_of_threads() {
    let shape = ConvShape {
        batch: 7,
        height: 17,
        width: 16,
        in_channels: 3,
        out_channels: 4,
        kernel: 3,
        stride: 1,
        padding: 1,
    };
    for threads in [1, 2, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| check_conv(shape, true, true));
        pool.install(|| check_conv(ConvShape { stride: 2, ..shape }, true, false));
    }
}

fn check_linear(rows: usize, in_channels: usize, out_channels: usize, with_bias: bool) {
    let mut shapes: Vec<&[usize]> = vec![];
    let (x, weight, bias) = ([rows, in_channels], [out_channels, in_channels], [out_channels]);
    shapes.extend([&x[..], &weight]);
    shapes.extend(with_bias.then_some(&bias[..]));
    check(
        &("linear", rows, in_channels, out_channels, with_bias),
        &normals("linear", &shapes),
        |tape, v| linear(tape, &v[0], &v[1], v.get(2)),
        |v| reference::linear(in_channels, &v[0], &v[1], v.get(2).map(|b| &b[..]), None),
    );
}

#[test]
fn linear_agrees() {
    for with_bias in [false, true] {
        check_linear(1, 1, 3, with_bias);
        check_linear(15, 16, 33, with_bias);
        check_linear(18, 33, 5, with_bias);
    }
    check_linear(20_001, 3, 2, true); // several tasks in each loop
}

/// Every way that leads into a convolution, before kernels of every kind.
#[test]
fn conv2d_agrees_behind_joins_norms_and_resampling() {
    for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 1, 0), (2, 2, 0)] {
        for with_scale_shift in [false, true] {
            check_normalized(&[3, 9, 6, 4], 8, (kernel, stride, padding), with_scale_shift, false);
            check_normalized(&[2, 6, 8, 20], 16, (kernel, stride, padding), with_scale_shift, false);
        }
        check_normalized(&[2, 7, 9, 20], 16, (kernel, stride, padding), false, true);
        check_upsampled(&[2, 3, 4, 5], (kernel, stride, padding));
        check_upsampled(&[1, 4, 4, 33], (kernel, stride, padding));
    }
    check_normalized(&[2, 24, 20, 4], 4, (3, 1, 1), false, true); // several bands an image
    check_normalized(&[1, 24, 24, 4], 12, (3, 1, 1), true, false);
    check_normalized(&[5, 8, 8, 8], 0, (4, 4, 0), false, true); // the head of a ConvNet
}

/// A convolution of `dims` joined with `extra` channels more, normalized, then as it is or pooled.
fn check_normalized(
    dims: &[usize; 4],
    extra: usize,
    (kernel, stride, padding): (usize, usize, usize),
    with_scale_shift: bool,
    pooled: bool,
) {
    let [batch, h, w, c] = *dims;
    let (channels, act, groups) = (c + extra, if pooled { Activation::Relu } else { Activation::Silu }, 4);
    let groups = if pooled { channels } else { groups };
    let mut inputs = normals("normalized", &[dims, &[channels], &[channels], &[7, kernel, kernel, channels]]);
    let joined = (extra > 0).then_some(inputs.len());
    inputs.extend((extra > 0).then(|| normal("normalized", 5, &[batch, h, w, extra])));
    let scaled = with_scale_shift.then_some(inputs.len());
    inputs.extend(with_scale_shift.then(|| normal("normalized", 6, &[batch, 2 * channels])));
    let (height, width) = if pooled { (h / 2, w / 2) } else { (h, w) };
    let s = ConvShape { batch, height, width, in_channels: channels, out_channels: 7, kernel, stride, padding };
    check(
        &(s, with_scale_shift, pooled),
        &inputs,
        |tape, v| {
            let input = joined.map_or(Input::of(&v[0]), |i| Input::of(&v[0]).join(&v[i]));
            let (gamma, beta, scale_shift) = (v[1].clone(), v[2].clone(), scaled.map(|i| v[i].clone()));
            let input = input.normalized(Norm { gamma, beta, scale_shift, groups, act, eps: 1e-5 });
            let input = if pooled { input.pooled() } else { input };
            conv2d(tape, &input, &v[3], Convolution { stride, padding, ..Default::default() })
        },
        |v| {
            let x = joined.map_or(v[0].clone(), |i| reference::concat(&v[0], &v[i], c, extra));
            let norm = NormShape { batch, pixels: h * w, channels, groups };
            let scale_shift = scaled.map(|i| &v[i][..]);
            let x = reference::group_norm(&norm, &x, &v[1], &v[2], scale_shift, act, 1e-5);
            let x = if pooled { reference::avg_pool2x(&x, (batch, h, w, channels)) } else { x };
            reference::conv2d(&s, &x, &v[3], None, None)
        },
    );
}

fn check_upsampled(dims: &[usize; 4], (kernel, stride, padding): (usize, usize, usize)) {
    let [batch, h, w, in_channels] = *dims;
    let s = ConvShape { batch, height: 2 * h, width: 2 * w, in_channels, out_channels: 7, kernel, stride, padding };
    check(
        &("upsampled", s),
        &normals("upsampled", &[dims, &[7, kernel, kernel, in_channels]]),
        |tape, v| {
            let options = Convolution { stride, padding, ..Default::default() };
            conv2d(tape, &Input::of(&v[0]).upsampled(), &v[1], options)
        },
        |v| reference::conv2d(&s, &reference::upsample2x(&v[0], (batch, h, w, in_channels)), &v[1], None, None),
    );
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::inference();
    let value = |dims: &[usize]| Value::constant(normals("refused", &[dims]).remove(0));
    let x = Input::of(&value(&[2, 4, 4, 3]));
    let weight = value(&[5, 3, 3, 3]);
    let conv = |input: &Input, weight: &Value, stride, padding, bias: Option<&Value>, residual: Option<&Value>| {
        conv2d(&tape, input, weight, Convolution { stride, padding, bias, residual, f32_output: true })
    };
    assert!(conv(&x, &weight, 1, 1, None, None).is_ok());
    assert!(conv(&x, &value(&[5, 3, 3, 2]), 1, 1, None, None).is_err());
    assert!(conv(&x, &value(&[5, 3, 2, 3]), 1, 1, None, None).is_err());
    assert!(conv(&x, &value(&[5, 5, 5, 3]), 1, 0, None, None).is_err());
    assert!(conv(&x, &weight, 0, 1, None, None).is_err());
    assert!(conv(&x, &weight, 1, 1, Some(&value(&[4])), None).is_err());
    assert!(conv(&x, &weight, 1, 1, None, Some(&value(&[2, 4, 5, 5]))).is_err());
    assert!(conv(&x.clone().join(&value(&[2, 4, 5, 1])), &value(&[5, 3, 3, 4]), 1, 1, None, None).is_err());
    assert!(conv(&x.clone().pooled(), &weight, 1, 1, None, None).is_err());
    assert!(linear(&tape, &value(&[2, 3]), &value(&[5, 4]), None).is_err());
}
