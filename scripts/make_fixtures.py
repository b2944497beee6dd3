"""Writes the PyTorch fixtures under tests/fixtures/ that the Rust tests compare with.

Run from the root of the repository, with torch and safetensors installed:

    python scripts/make_fixtures.py          # all of them
    python scripts/make_fixtures.py ops      # some of them

Each file is written by the function of its name, and holds its metadata as one JSON text, torch's version included.
Layouts are those of the Rust ops: NHWC activations, OHWI weights.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "fixtures"


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


class Fixture:
    """Tensors of one file, named `case.tensor`, `case.out` and `case.grad.tensor`."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors = {}

    def normal(self, *shape):
        """Standard normal values that f32 holds exactly, as f64."""
        return torch.randn(shape, generator=self.generator).double()

    def case(self, name, function, **inputs):
        """Runs `function` on the inputs in f64; the loss is the dot product of its output with `case.cotangent`."""
        leaves = {key: value.requires_grad_() for key, value in inputs.items()}
        out = function(**leaves)
        cotangent = self.normal(*out.shape)
        (out * cotangent).sum().backward()
        self.tensors |= {f"{name}.{key}": value for key, value in leaves.items()}
        self.tensors |= {f"{name}.grad.{key}": value.grad for key, value in leaves.items()}
        self.tensors |= {f"{name}.out": out, f"{name}.cotangent": cotangent}

    def save(self, name, **notes):
        tensors = {key: self.tensors[key].detach().float().contiguous() for key in sorted(self.tensors)}
        notes = {"torch": torch.__version__, **notes}
        save_file(tensors, FOLDER / f"{name}.safetensors", {"notes": json.dumps(notes, sort_keys=True)})


def conv2d(stride, padding):
    def function(x, weight, bias):
        return nhwc(F.conv2d(nchw(x), nchw(weight), bias, stride, padding))

    return function


def group_norm(groups, activation, eps=1e-5):
    def function(x, gamma, beta, scale_shift=None):
        out = F.group_norm(nchw(x), groups, gamma, beta, eps)
        if scale_shift is not None:
            scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
            out = out * (1 + scale) + shift
        return nhwc(activation(out))

    return function


def attention(heads):
    def function(qkv):
        batch, tokens, width = qkv.shape
        q, k, v = qkv.view(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width // 3)

    return function


def ops():
    """One small case or two of each op that PyTorch has."""
    f = Fixture(seed=0)
    conv = lambda o, k, i: {"x": f.normal(2, 6, 5, i), "weight": f.normal(o, k, k, i), "bias": f.normal(o)}
    f.case("conv2d_k3", conv2d(stride=1, padding=1), **conv(4, 3, 3))
    f.case("conv2d_k3_stride2", conv2d(stride=2, padding=1), **conv(3, 3, 5))
    f.case("conv2d_k1", conv2d(stride=1, padding=0), **conv(5, 1, 4))
    f.case("conv2d_k4_stride2", conv2d(stride=2, padding=1), **conv(2, 4, 3))
    f.case("linear", F.linear, x=f.normal(3, 7, 6), weight=f.normal(5, 6), bias=f.normal(5))
    norm = lambda c: {"x": f.normal(2, 4, 3, c), "gamma": f.normal(c), "beta": f.normal(c)}
    f.case("group_norm", group_norm(2, lambda x: x), **norm(6))
    f.case("group_norm_relu", group_norm(4, F.relu), **norm(4))
    f.case("group_norm_scale_shift_silu", group_norm(3, F.silu), **norm(6), scale_shift=f.normal(2, 12))
    f.case("attention_1_head", attention(1), qkv=f.normal(2, 7, 3 * 5))
    f.case("attention_2_heads", attention(2), qkv=f.normal(2, 5, 3 * 8))
    f.case("avg_pool2x", lambda x: nhwc(F.avg_pool2d(nchw(x), 2)), x=f.normal(2, 5, 6, 3))
    f.case("upsample2x", lambda x: nhwc(F.interpolate(nchw(x), scale_factor=2, mode="nearest")), x=f.normal(2, 3, 4, 3))
    labels = torch.tensor([3, 0, 9, 3])
    f.case("cross_entropy", lambda logits: F.cross_entropy(logits, labels), logits=f.normal(4, 10))
    f.save("ops", labels=labels.tolist())


WRITERS = {"ops": ops}


def main():
    parser = argparse.ArgumentParser(description="Writes the PyTorch fixtures under tests/fixtures/.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to write: {', '.join(WRITERS)} (default: all)")
    names = parser.parse_args().names or list(WRITERS)
    if unknown := sorted(set(names) - set(WRITERS)):
        parser.error(f"no such fixture: {', '.join(unknown)}; there are: {', '.join(WRITERS)}")
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        WRITERS[name]()


if __name__ == "__main__":
    main()
