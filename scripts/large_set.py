#!/usr/bin/env python3
"""Samples a large set and checks that memory does not grow with it.

    scripts/large_set.py [--ipc 1000] [--classes 100] [--distill target/release/distill] [--json FILE]

Makes an image folder of flat 32 x 32 pictures in so many classes, trains both networks in a tiny configuration for five
steps (the images are worthless, their number is what counts), then samples a fifth of IPC and IPC images a class and evaluates the
large set for one update. Peak memory is the kernel's figure for each process (wait4). The large set may take no more than
the small one plus 64 bytes an image for the lists of labels and indices and 48 MB for what the allocator keeps; its
evaluation no more than the small one's plus the pixels once and 128 MB, since a student has more buffers to keep.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

TINY = """
image_size = 32
[vae]
channels = [8, 8, 16]
groups = 4
latent_channels = 2
[unet]
channels = 16
channel_mult = [1, 2]
blocks = 1
attention_at = [4]
head_dim = 16
groups = 8
[train]
log_every = 5
checkpoint_every = 5
sample_every = 5
[train.vae]
steps = 5
batch_size = 8
[train.unet]
steps = 5
batch_size = 8
[sampler]
steps = 1
batch_size = 100
guidance = 1.0
"""
SIZE = 32
SAMPLE_MARGIN, EVAL_MARGIN = 48 << 20, 128 << 20
LIST_BYTES = 64


def png(color: tuple[int, int, int]) -> bytes:
    """A flat picture."""
    rows = (b"\0" + bytes(color) * SIZE) * SIZE
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def make_folder(root: Path, classes: int) -> None:
    for label in range(classes):
        for split, count in (("train", 2), ("test", 1)):
            folder = root / split / f"class {label:04}"
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.png").write_bytes(png((label % 256, label // 256, 40 * i)))


def run(*args: object) -> tuple[int, float]:
    """Peak memory in bytes and seconds of a command, which must succeed."""
    start = time.monotonic()
    process = subprocess.Popen([str(arg) for arg in args], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, args))}: exit status {status}")
    return usage.ru_maxrss * 1024, time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ipc", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--distill", default=Path(__file__).parent.parent / "target/release/distill", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    distill = args.distill.resolve()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        os.chdir(scratch)
        make_folder(Path("data"), args.classes)
        Path("tiny.toml").write_text(TINY)
        common = ["--data-dir", ".", "-q"]
        run(distill, "train", "--dataset", "folder:data", "--config", "tiny.toml", "--name", "tiny", *common)
        figures = {}
        for name, ipc in (("small", args.ipc // 5), ("large", args.ipc)):
            memory, seconds = run(distill, "sample", "--ipc", ipc, "--name", name, *common)
            judged, _ = run(
                distill, "eval", "--on", f"runs/tiny/distilled/{name}", "--epochs", 1, "--runs", 1, *common
            )
            files = sum(1 for _ in Path(f"runs/tiny/distilled/{name}/train").rglob("*.png"))
            if files != ipc * args.classes:
                sys.exit(f"{name}: {files} PNG files, expected {ipc * args.classes}")
            figures[name] = {"images": files, "sample_bytes": memory, "sample_seconds": seconds, "eval_bytes": judged}
    return report(figures, args.json)


def report(figures: dict, path: Path | None) -> int:
    small, large = figures["small"], figures["large"]
    more = large["images"] - small["images"]
    bounds = {
        "sample_bytes": small["sample_bytes"] + more * LIST_BYTES + SAMPLE_MARGIN,
        "eval_bytes": small["eval_bytes"] + more * (3 * SIZE * SIZE + LIST_BYTES) + EVAL_MARGIN,
    }
    for name, f in figures.items():
        print(
            f"{name}: {f['images']:,} images sampled in {f['sample_seconds']:.1f} s within {f['sample_bytes'] / 1e6:.0f} MB,"
            f" evaluated within {f['eval_bytes'] / 1e6:.0f} MB"
        )
    broken = [key for key, bound in bounds.items() if large[key] > bound]
    for key in broken:
        print(f"{key} is {large[key] / 1e6:.0f} MB, the bound {bounds[key] / 1e6:.0f} MB", file=sys.stderr)
    if path:
        path.write_text(json.dumps(figures | {"bounds": bounds, "held": not broken}, indent=2) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
