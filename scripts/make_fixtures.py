"""Writes the PyTorch fixtures under tests/fixtures/ that the Rust tests compare with.

Run from the root of the repository, with torch and safetensors installed:

    python scripts/make_fixtures.py          # all of them
    python scripts/make_fixtures.py ops      # some of them

Each file is written by the function of its name, and holds its metadata as one JSON text, torch's version included.
Layouts are those of the Rust ops: NHWC activations, OHWI weights.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from fixtures.networks import UNet, Vae, fill, ours
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
        stored = lambda t: (t.detach().float() if t.is_floating_point() else t).contiguous()
        tensors = {key: stored(self.tensors[key]) for key in sorted(self.tensors)}
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


def learning_rate(step, stage):
    """train::learning_rate."""
    if step < stage["warmup"]:
        return stage["learning_rate"] * (step + 1) / stage["warmup"]
    progress = (step - stage["warmup"]) / (stage["steps"] - stage["warmup"])
    return stage["learning_rate"] * 0.5 * (1 + math.cos(math.pi * progress))


def train(f, network, loss, stage):
    """Stores the weights, all gradients of the first step, each step's loss and gradient norm, and the EMA at the end.

    `stage` is a train::StageConfig; `loss` takes the step. Betas and the EMA's start are those of train::AdamW.
    """
    f.tensors |= {f"weights.{name}": tensor for name, tensor in ours(network.state_dict()).items()}
    average = {name: p.detach().clone() for name, p in network.named_parameters()}
    decay = stage["weight_decay"]
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), eps=1e-8, weight_decay=decay)
    losses, norms = [], []
    for step in range(stage["steps"]):
        optimizer.zero_grad()
        value = loss(step)
        value.backward()
        if step == 0:
            gradients = {name: p.grad for name, p in network.named_parameters()}
            f.tensors |= {f"gradient.{name}": tensor for name, tensor in ours(gradients).items()}
        norms.append(torch.nn.utils.clip_grad_norm_(network.parameters(), stage["clip_norm"]))
        optimizer.param_groups[0]["lr"] = learning_rate(step, stage)
        optimizer.step()
        keep = min(stage["ema_decay"], (1 + step) / (10 + step))
        for name, p in network.named_parameters():
            average[name].lerp_(p.detach(), 1 - keep)
        losses.append(value.detach())
    f.tensors |= {"losses": torch.stack(losses), "gradient_norms": torch.stack(norms)}
    f.tensors |= {f"ema.{name}": tensor for name, tensor in ours(average).items()}


# Ten steps that show every part of the loop: the warm-up ends, and some gradients are clipped, others not.
STAGE = {"steps": 10, "batch_size": 3, "learning_rate": 3e-3, "warmup": 3, "weight_decay": 0.1, "clip_norm": 0.5}


def vae():
    """Moments and reconstruction of the first batch, then ten steps on batches of random pixels."""
    f = Fixture(seed=1)
    config = {"channels": [8, 12], "blocks": 2, "groups": 4, "latent_channels": 2}
    stage, kl_weight = {**STAGE, "ema_decay": 0.3}, 0.05  # a decay that is reached
    network = Vae(config).double()
    fill(network, f.generator)
    images = torch.randint(256, (10, 3, 16, 16, 3), generator=f.generator, dtype=torch.uint8)
    noise = f.normal(10, 3, 8, 8, 2)

    def forward(step):
        x = nchw(images[step].double() / 127.5 - 1)
        moments = network.encoder(x)
        mean, log_variance = moments.chunk(2, dim=1)
        return x, moments, mean + (log_variance / 2).exp() * nchw(noise[step])

    def loss(step):
        x, moments, latents = forward(step)
        mean, log_variance = moments.chunk(2, dim=1)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return F.mse_loss(network.decoder(latents), x) + kl_weight * kl

    _, moments, latents = forward(0)
    outputs = {"moments": moments, "latents": latents, "decoded": network.decoder(latents)}
    f.tensors |= {"images": images, "noise": noise} | {name: nhwc(tensor) for name, tensor in outputs.items()}
    train(f, network, loss, stage)
    f.save("vae", config=config, stage=stage, kl_weight=kl_weight)


def unet():
    """The prediction for the first batch, then ten steps of min-SNR weighted v-prediction on the cosine schedule."""
    f = Fixture(seed=2)
    config = {"channels": 8, "channel_mult": [1, 2], "blocks": 1, "attention_at": [8, 4], "head_dim": 8, "groups": 4}
    stage, classes, gamma = {**STAGE, "ema_decay": 0.999}, 2, 5.0
    network = UNet(config, size=8, channels=2, classes=classes).double()
    fill(network, f.generator)
    latents, noise = f.normal(10, 3, 8, 8, 2), f.normal(10, 3, 8, 8, 2)
    times = torch.randint(1000, (10, 3), generator=f.generator)
    times[1], labels = torch.tensor([0, 999, 500]), torch.arange(30).view(10, 3) % (classes + 1)
    # Nichol and Dhariwal (2021), eq. 17, in its closed form; only the last beta is cut to 0.999.
    alpha_bar = torch.cos((torch.arange(1, 1001).double() / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    alpha_bar /= math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    alpha_bar[-1] = 0.001 * alpha_bar[-2]

    def forward(step):
        a = alpha_bar[times[step]].view(3, 1, 1, 1)
        noisy = a.sqrt() * latents[step] + (1 - a).sqrt() * noise[step]
        return nhwc(network(nchw(noisy), times[step].double(), labels[step]))

    def loss(step):
        a = alpha_bar[times[step]].view(3, 1, 1, 1)
        snr = a / (1 - a)
        target = a.sqrt() * noise[step] - (1 - a).sqrt() * latents[step]
        return (snr.clamp(max=gamma) / (snr + 1) * (forward(step) - target) ** 2).mean()

    f.tensors |= {"latents": latents, "noise": noise, "times": times, "classes": labels, "prediction": forward(0)}
    train(f, network, loss, stage)
    f.save("unet", config=config, stage=stage, classes=classes, gamma=gamma)


WRITERS = {"ops": ops, "vae": vae, "unet": unet}


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
