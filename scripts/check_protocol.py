#!/usr/bin/env python3
"""Checks the judge against a second one: random real images of CIFAR-100, students here in PyTorch and there in ours.

    python scripts/check_protocol.py target/release/distill --data DIR --ipc 1 10 --runs 5

DIR holds cifar-100-binary/train.bin and test.bin. For each number of images a class, a random subset of the train set is
written as an .npz file, which `distill eval` judges, and on which this script trains as many students by the same
protocol: the recipe below is written from the challenge's own evaluator, with the augmentations of bench/diffaugment.py,
and shares no line with ours but the numbers of the protocol's file. Initializations and draws differ, so accuracies agree
within their spread: the script fails where the means are further apart than three standard errors of their difference
(or --slack points where spreads are tiny). Needs torch and numpy; fixtures compare single steps (tests/eval/pytorch.rs).

A whole check takes hours on two cores; `--epochs 3 --test-images 1000` tries the script itself.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from bench.diffaugment import augment
from torch import nn

MEAN, STD = [0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]
CLASSES, SIDE = 100, 32


def cifar100(path):
    """(images u8 (N, 3, 32, 32), fine labels) of a binary file: coarse label, fine label, then the planes."""
    rows = np.fromfile(path, np.uint8).reshape(-1, 2 + 3 * SIDE * SIDE)
    return rows[:, 2:].reshape(-1, 3, SIDE, SIDE), rows[:, 1].astype(np.int64)


def subset(labels, ipc, rng):
    """Indices of `ipc` random images of each class, in order of class."""
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:ipc] for c in range(CLASSES)])


def normalized(images):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (torch.from_numpy(images).float() / 255 - mean) / std


def convnet(depth, width):
    """PyTorch's default initialization is the evaluator's."""
    layers, channels = [], 3
    for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (SIDE >> depth) ** 2, CLASSES))


def train(protocol, images, labels, seed):
    """A student after the protocol's last update."""
    torch.manual_seed(seed)
    network = convnet(protocol["convnet"]["depth"], protocol["convnet"]["width"])
    fresh = lambda lr: torch.optim.SGD(
        network.parameters(), lr=lr, momentum=protocol["momentum"], weight_decay=protocol["weight_decay"])
    optimizer = fresh(protocol["lr"])
    for epoch in range(protocol["length"]["epochs"]):
        if epoch == protocol["drop_after"]:
            optimizer = fresh(protocol["lr"] * protocol["drop_factor"])
        for batch in torch.randperm(len(images)).split(protocol["batch_size"]):
            x = augment(images[batch]) if protocol["augment"] else images[batch]
            loss = F.cross_entropy(network(x), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network


@torch.no_grad()
def accuracy(network, images, labels):
    right = sum((network(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500)))
    return 100 * right / len(images)


def ours(args, file, folder):
    """The result of `distill eval` on a file."""
    command = [args.binary, "eval", "--on", file, "--dataset", "cifar100", "--data-dir", args.data, "--out", folder,
               "--protocol", args.protocol, "--runs", str(args.runs), "--dtype", args.dtype, "--json"]
    if args.epochs:
        command += ["--epochs", str(args.epochs)]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def spread(values):
    return f"{statistics.mean(values):6.2f} +- {statistics.stdev(values) if len(values) > 1 else math.nan:.2f} %"


def compare(args, ipc, folder):
    """Whether both judges agree on a random subset."""
    images, labels = cifar100(args.data / "cifar-100-binary/train.bin")
    chosen = subset(labels, ipc, np.random.default_rng(args.seed + ipc))
    file = folder / f"random-ipc{ipc}.npz"
    np.savez(file, images=images[chosen], labels=labels[chosen])
    result = ours(args, file, folder)
    protocol, rust = result["protocol_settings"], result["runs"]
    x, y = normalized(images[chosen]), torch.from_numpy(labels[chosen])
    images, labels = cifar100(args.data / "cifar-100-binary/test.bin")
    test = normalized(images[: args.test_images]), torch.from_numpy(labels[: args.test_images])
    torches = []
    for run in range(args.runs):
        torches.append(accuracy(train(protocol, x, y, args.seed + run), *test))
        print(f"  PyTorch student {run + 1}/{args.runs}: {torches[-1]:.2f} %", file=sys.stderr, flush=True)
    print(f"IPC {ipc}, protocol {result['protocol']}, {args.runs} students each, ours in {result['environment']['dtype']}")
    print(f"  ours     {spread(rust)}\n  PyTorch  {spread(torches)}", flush=True)
    if args.runs < 2 or args.test_images:
        print("  not judged: that takes two students or more, and all test images")
        return True
    error = math.sqrt((statistics.variance(rust) + statistics.variance(torches)) / args.runs)
    difference = abs(statistics.mean(rust) - statistics.mean(torches))
    allowed = max(3 * error, args.slack)
    print(f"  difference {difference:.2f}, allowed {allowed:.2f}: {'agree' if difference <= allowed else 'DISAGREE'}")
    return difference <= allowed


def check_file(protocol):
    """How the protocol's file differs from what the challenge's evaluator does; `quick` is a fifth of its length."""
    path = Path(__file__).parent.parent / f"configs/protocols/{protocol}.toml"
    recipe = tomllib.loads(path.read_text())
    epochs, drop_after = {"challenge": (1001, 502), "quick": (200, 100)}[protocol]
    published = {"length": {"epochs": epochs}, "drop_after": drop_after, "drop_factor": 0.1, "batch_size": 256, "lr": 0.01,
                 "momentum": 0.9, "weight_decay": 5e-4, "augment": True, "convnet": {"depth": 3, "width": 128}}
    stated = {key: value for key, value in recipe.items() if key not in ("name", "runs")}
    return sorted(key for key in published | stated if published.get(key) != stated.get(key))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--protocol", choices=["quick", "challenge"], default="quick")
    parser.add_argument("--epochs", type=int, help="instead of the protocol's")
    parser.add_argument("--dtype", default="f32", help="what our students compute in; PyTorch's compute in f32")
    parser.add_argument("--test-images", type=int, help="test PyTorch's students on the first so many only")
    parser.add_argument("--slack", type=float, default=0.3, help="points that means may differ by in any case")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if wrong := check_file(args.protocol):
        sys.exit(f"configs/protocols/{args.protocol}.toml differs from the challenge's evaluator in {', '.join(wrong)}")
    with tempfile.TemporaryDirectory() as folder:
        agree = [compare(args, ipc, Path(folder)) for ipc in args.ipc]
    sys.exit(0 if all(agree) else 1)


if __name__ == "__main__":
    main()
