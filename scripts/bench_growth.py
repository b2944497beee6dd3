#!/usr/bin/env python3
"""How the time and memory of a UNet training step grow with its batch, its width and its resolution.

    python3 scripts/bench_growth.py [--seconds 5] [--dtype f32]

Prints a Markdown table. The program is target/release/distill, or the one that DISTILL_BIN names. Needs nothing but
Python's standard library.
"""

import argparse

from bench.ours import measured

# At both resolutions the same two levels, both with attention.
SAME_LEVELS = ["--set", "unet.channel_mult=[1,2]", "--set", "unet.attention_at=[16,8]"]
ROWS = [
    *(("batch", n, "unet8", ["--batch", n]) for n in (16, 32, 64, 128)),
    *(("channels", n, "unet8", ["--set", f"unet.channels={n}"]) for n in (64, 128, 192)),
    ("resolution", "8 x 8", "unet8", []),
    ("resolution", "16 x 16", "unet16", SAME_LEVELS),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="spent on each row")
    parser.add_argument("--dtype", default="auto", help="as that of distill: auto, f32 or bf16")
    args = parser.parse_args()
    print("| grows | to | ms a step | images/s | times the one before | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    before = (None, 0.0)
    for what, value, config, options in ROWS:
        result = measured(config, "--only", "unet-train", "--seconds", args.seconds, "--dtype", args.dtype, *options)
        seconds, peak = result["seconds_per_step"], result["peak_bytes"]
        factor = f"{seconds / before[1]:.2f}" if before[0] == what else ""
        memory = f"{peak / 2**20:.0f}" if peak else "-"
        speed = f"{result['images_per_second']:.1f}"
        print(f"| {what} | {value} | {1000 * seconds:.1f} | {speed} | {factor} | {memory} |", flush=True)
        before = (what, seconds)


if __name__ == "__main__":
    main()
