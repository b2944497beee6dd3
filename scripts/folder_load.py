#!/usr/bin/env python3
"""Checks the memory that a large image folder needs: writes one, reads and trains on it, and fails above the bound.

    python3 scripts/folder_load.py [--distill target/release/distill] [--classes 1000] [--images 200] [--size 32]

The bound is that of docs/data.md. Needs nothing but Python's standard library.
"""
import argparse
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
import zlib

MIB = 1 << 20
# What the program needs without any image: code, threads' stacks, decoders' buffers, networks of the tiny configuration.
BASE = 160 * MIB
# For each file its path and label, in `verify` the digest that finds duplicates, in training its (small) latent.
PER_FILE = 512

# Sizes that train in seconds: latents of 4 x 4 x 2 numbers, a few steps, one latent an image.
TINY = """
dataset = "folder:{folder}"
image_size = {size}
[vae]
channels = [8, 8, 16, 16]
groups = 4
latent_channels = 2
[unet]
channels = 16
channel_mult = [1, 2]
blocks = 1
attention_at = [{attention}]
head_dim = 16
groups = 8
[train]
flip = false
[train.vae]
steps = 3
batch_size = 16
[train.unet]
steps = 3
batch_size = 16
"""


def png(size, number):
    """A size x size RGB picture of two colours, which the number decides."""
    colours = [bytes((number * factor >> shift) & 255 for factor in (1, 7, 31)) for shift in (0, 3)]
    row = b"\0" + colours[0] * (size // 2) + colours[1] * (size - size // 2)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * size, 1)),
        (b"tEXt", b"number\0" + str(number).encode()),
        (b"IEND", b""),
    ]
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return out


def write_folder(root, classes, images, size):
    """root/train and root/test: `images` a class to train on, one to test on."""
    for part, count in (("train", images), ("test", 1)):
        for label in range(classes):
            folder = root / part / f"class {label:04}"
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index:04}.png").write_bytes(png(size, label * (images + 1) + index))


def peak(command):
    """Runs a command to its end: its seconds, and its largest resident size in bytes."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - start, usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distill", default="target/release/distill", help="the program")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--images", type=int, default=200, help="a class")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels, a multiple of 16")
    args = parser.parse_args()
    program = pathlib.Path(args.distill).resolve()

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / "pictures"
        write_folder(folder, args.classes, args.images, args.size)
        config = scratch / "tiny.toml"
        config.write_text(TINY.format(folder=folder, size=args.size, attention=args.size // 16))
        data = ["--dataset", f"folder:{folder}"]
        commands = {
            "verify": [program, "data", "verify", *data, "--image-size", str(args.size), "--json"],
            "train": [program, "train", "--config", config, "--out", scratch / "runs", "--quiet"],
        }
        files = args.classes * args.images
        images = files * args.size * args.size * 3
        bound = images + files * PER_FILE + BASE
        print(f"{files} files in {args.classes} classes, {images / MIB:.0f} MiB of pixels; bound {bound / MIB:.0f} MiB")
        failed = False
        for name, command in commands.items():
            seconds, used = peak(command)
            print(f"{name}: {seconds:.1f} s, peak {used / MIB:.0f} MiB")
            failed |= used > bound
        if failed:
            sys.exit("above the bound")


if __name__ == "__main__":
    main()
