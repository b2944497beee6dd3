//! conv2d and linear.

use candle_core::Tensor;
use distill::ops::cpu::conv::ConvShape;
use distill::ops::{Tape, Value, conv2d, linear, reference};

use crate::check::{check, normals};

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
        |tape, v| conv2d(tape, &v[0], &v[1], bias.map(|i| &v[i]), residual.map(|i| &v[i]), s.stride, s.padding),
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

/// Checks a linear layer with (bias?, residual?) on `x` (leading..., I).
fn check_linear(leading: &[usize], in_channels: usize, out_channels: usize, with_bias: bool, with_residual: bool) {
    let x = [leading, &[in_channels]].concat();
    let out = [leading, &[out_channels]].concat();
    let (weight, bias) = ([out_channels, in_channels], [out_channels]);
    let inputs: Vec<Tensor> = normals("linear", &[&x, &weight, &bias, &out]);
    let used = |v: &[Value]| (with_bias.then(|| v[2].clone()), with_residual.then(|| v[v.len() - 1].clone()));
    let op = |tape: &Tape, v: &[Value]| {
        let (bias, residual) = used(v);
        linear(tape, &v[0], &v[1], bias.as_ref(), residual.as_ref())
    };
    let keep = |i: &usize| (*i != 2 || with_bias) && (*i != 3 || with_residual);
    let inputs: Vec<Tensor> = (0..4).filter(keep).map(|i| inputs[i].clone()).collect();
    check(&("linear", &x, out_channels, with_bias, with_residual), &inputs, op, |v| {
        let bias = with_bias.then(|| &v[2][..]);
        let residual = with_residual.then(|| &v[v.len() - 1][..]);
        reference::linear(in_channels, &v[0], &v[1], bias, residual)
    });
}

#[test]
fn linear_agrees() {
    for (with_bias, with_residual) in [(false, false), (true, false), (false, true), (true, true)] {
        check_linear(&[1], 1, 3, with_bias, with_residual);
        check_linear(&[3, 5], 16, 33, with_bias, with_residual);
        check_linear(&[2, 3, 3], 33, 5, with_bias, with_residual);
    }
    check_linear(&[], 4, 2, true, true);
    check_linear(&[40_001], 3, 2, true, true); // several tasks in each loop
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let tape = Tape::inference();
    let value = |dims: &[usize]| Value::constant(normals("refused", &[dims]).remove(0));
    let x = value(&[2, 4, 4, 3]);
    let weight = value(&[5, 3, 3, 3]);
    assert!(conv2d(&tape, &x, &value(&[5, 3, 3, 2]), None, None, 1, 1).is_err());
    assert!(conv2d(&tape, &x, &value(&[5, 3, 2, 3]), None, None, 1, 1).is_err());
    assert!(conv2d(&tape, &x, &value(&[5, 5, 5, 3]), None, None, 1, 0).is_err());
    assert!(conv2d(&tape, &x, &weight, None, None, 0, 1).is_err());
    assert!(conv2d(&tape, &x, &weight, Some(&value(&[4])), None, 1, 1).is_err());
    assert!(conv2d(&tape, &x, &weight, None, Some(&value(&[2, 4, 5, 4])), 1, 1).is_err());
    assert!(linear(&tape, &x, &value(&[5, 4]), None, None).is_err());
}
