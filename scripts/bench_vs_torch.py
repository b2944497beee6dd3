"""Compares `distill bench` with PyTorch; scripts/bench_vs_torch.sh prepares both and starts this.

For each work `distill bench --save` writes a network, its inputs, outputs and gradients; bench_peer.py builds the same
network in PyTorch, and nothing is timed where the two differ. Then ours and each mode of PyTorch take turns, and the
fastest mode two turns more, each in a process of its own with all cores. A turn's figure is the median of its steps,
and a row's the median of its turns. A ratio above 1 says that ours is faster, or takes less memory. Without PyTorch ours
are timed alone.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Optional

from bench.ours import distill_bench, measured

PEER = Path(__file__).resolve().parent / "bench_peer.py"
# Images in the files of the check: few, so that they stay small.
CHECK_BATCH = 8
# The fastest mode's turns after the first: its figure is a median, as ours is.
MORE_TURNS = 2
# Seconds after which a mode is given up, compilation included.
LIMIT = 1800
# Seconds that ours may take however little time is left.
LEAST = 30.0


class Work(NamedTuple):
    name: str
    # What `distill bench` calls it, and the file in scripts/bench.
    kind: str
    config: str
    # The ratio of times to be reached: in SUITE on two cores with AMX.
    goal: Optional[float]
    # Images at once, where it is not the configuration's number, and more of `distill bench`'s options.
    batch: Optional[int] = None
    options: tuple = ()

    @property
    def trains(self):
        return not self.kind.endswith(("decode", "forward"))


SUITE = [
    Work("student-epoch", "student-epoch", "unet8", 6.0),
    Work("unet-train-8", "unet-train", "unet8", 5.0),
    Work("unet-train-16", "unet-train", "unet16", 3.5),
    Work("unet-sample-8", "unet-forward", "unet8", 2.5),
    Work("vae-train-32", "vae-train", "vae32", 3.0),
    Work("vae-decode-32", "vae-decode", "vae32", 3.0),
    Work("vae-train-64", "vae-train", "vae64", 3.0),
    Work("vae-decode-64", "vae-decode", "vae64", 3.0),
]
MEMORY_GOAL = 1.4
F32_GOAL = 1.3


def say(text):
    print(text, file=sys.stderr, flush=True)


def left(args):
    """Seconds until `args.until`, but enough for one turn of ours; none where there is no end."""
    return None if args.until == math.inf else max(args.until - time.monotonic(), LEAST)


def chosen_modes(args):
    """PyTorch's modes as "precision layout way" (bench/steps.py), with those left out that cannot be."""
    needs = "import torch" if args.device == "cpu" else f"import torch; torch.ones(1, device={args.device!r})"
    if (done := subprocess.run([sys.executable, "-c", needs], capture_output=True, text=True)).returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        say(f"PyTorch is not measured, ours alone: expected {sys.executable} to run `{needs}`, found {reason}")
        return []
    precisions = ["f32"] if args.dtype == "f32" else ["f32", "bf16"]
    ways, layouts = ["eager", "compile"], ["contiguous", "channels_last"]
    if args.device != "cpu":  # where f32 and the layout of before are never the fastest
        precisions, layouts, ways = precisions[-1:], layouts[-1:], ["eager", "graphs", "compile", "autotune"]
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        say("skipped: torch.compile: expected a C++ compiler (c++, g++ or clang++), found none; install one to compare")
        ways = ["eager"]
    modes = [f"{p} {layout} {way}" for way in ways for p in precisions for layout in layouts]
    wanted = [mode for mode in modes if args.modes in mode]
    if not wanted:
        known = ", ".join(modes)
        sys.exit(f"--modes {args.modes}: expected a part of a mode's name, found none with it; there are: {known}")
    return wanted


def check(work, args, folder):
    """Writes the work's network, as it is computed by default and, on the CPU, in f32; the process ends where PyTorch
    disagrees."""
    files = []
    for dtype in dict.fromkeys(["f32", args.dtype] if args.device == "cpu" else [args.dtype]):
        options = ["--only", work.kind, *work.options, "--batch", CHECK_BATCH, "--dtype", dtype, "--save", folder / dtype]
        files += distill_bench(work.config, *options, device=args.device, limit=left(args))
    try:
        agree = subprocess.run([sys.executable, PEER, "check", *files], timeout=left(args)).returncode == 0
    except subprocess.TimeoutExpired:
        sys.exit(f"{work.name}: expected PyTorch's results in time, found none; nothing is timed")
    if not agree:
        sys.exit(f"{work.name}: expected PyTorch's results, found others (above); nothing is timed")
    return files[-1]


def peer(action, file, options, limit=LIMIT):
    """What bench_peer.py prints; none, and a word about it, where it does not work or takes longer than `limit` seconds."""
    options = [str(option) for option in options]
    about = f"  skipped: PyTorch, {action} {' '.join(options)}"
    try:
        command = [sys.executable, PEER, action, file, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return say(f"{about}: expected an end within {limit:.0f} s, found none")
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return say(f"{about}: expected exit code 0, found {done.returncode}: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(work, args, modes, file):
    """What ours and each mode of PyTorch measured, by turns: all modes once, the fastest some times more. No turn begins
    after `args.until`, a time of time.monotonic."""
    ours, theirs = [], {}

    def turn(mode):
        options = ["--only", work.kind, *work.options, "--seconds", args.seconds, "--dtype", args.dtype]
        options += ["--batch", work.batch] if work.batch else []
        ours.append(measured(work.config, *options, device=args.device, limit=left(args)))
        batch, about = ours[-1]["batch"], ours[-1]["environment"]
        say(f"  {work.name}: ours ({about['dtype']}) {ours[-1]['seconds_per_step']:.4f} s")
        if mode is None:
            return
        options = ["--mode", mode, "--batch", batch, "--seconds", args.seconds, "--threads", about["threads"]]
        if found := peer("time", file, [*options, "--device", args.device], left(args) or LIMIT):
            theirs.setdefault(mode, []).append(found)
            say(f"  {work.name}: PyTorch ({mode}) {found['seconds_per_step']:.4f} s")

    for mode in modes or [None]:
        if ours and time.monotonic() >= args.until:
            say(f"  skipped: PyTorch, {mode}: no time is left")
        else:
            turn(mode)
    if theirs:
        fastest = min(theirs, key=lambda mode: theirs[mode][0]["seconds_per_step"])
        for _ in range(MORE_TURNS):
            if time.monotonic() < args.until:
                turn(fastest)
    return ours, theirs


def compare(work, args, modes, folder):
    """The rows of one work; PyTorch's side is null where it was not measured."""
    ours, theirs = take_turns(work, args, modes, check(work, args, folder) if modes else None)
    if modes and not theirs and args.until == math.inf:
        sys.exit(f"{work.name}: expected at least one mode of PyTorch to work, found none; the reasons are above")

    def row(name, field, unit, goal):
        middle = lambda turns: statistics.median(found[field] for found in turns)
        mine = middle(ours)
        found = dict(work=name, ours=mine, peer=None, peer_mode=None, ratio=None, goal=goal, unit=unit)
        if theirs:
            best = min(theirs, key=lambda mode: middle(theirs[mode]))
            other = middle(theirs[best])
            found |= dict(peer=other, peer_mode=best, ratio=other / mine)
        return found | dict(batch=ours[0]["batch"], images=ours[0]["images_per_second"] * ours[0]["seconds_per_step"])

    only_f32 = args.dtype == "f32"
    rows = [row(work.name, "seconds_per_step", "s", F32_GOAL if only_f32 else work.goal)]
    if work.trains and ours[0]["peak_bytes"]:
        rows.append(row(f"{work.name} memory", "peak_bytes", "bytes", None if only_f32 else MEMORY_GOAL))
    return rows


def table(rows):
    """The rows as text."""
    lines = [f"{'work':<22} {'ours':>10} {'peer':>10}  {'mode of the peer':<28} {'ratio':>6} {'goal':>5}"]
    for r in rows:
        show = lambda v: "-" if v is None else f"{1000 * v:.1f} ms" if r["unit"] == "s" else f"{v / 2**20:.0f} MiB"
        goal, ratio = ("-" if r[name] is None else f"{r[name]:.{digits}f}" for name, digits in (("goal", 1), ("ratio", 2)))
        figures = f"{show(r['ours']):>10} {show(r['peer']):>10}"
        lines.append(f"{r['work']:<22} {figures}  {r['peer_mode'] or '-':<28} {ratio:>6} {goal:>5}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="spent on each side of each turn")
    parser.add_argument("--only", default="", metavar="TEXT", help="work whose name contains this")
    parser.add_argument("--modes", default="", metavar="TEXT", help="modes of PyTorch whose name contains this")
    parser.add_argument("--dtype", choices=["auto", "f32"], default="auto", help="f32: both sides in f32 only")
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help="of both sides: cpu or cuda:N")
    parser.set_defaults(until=math.inf)
    args = parser.parse_args()
    suite = [work for work in SUITE if args.only in work.name]
    if not suite:
        names = ", ".join(work.name for work in SUITE)
        parser.error(f"--only {args.only}: expected a part of a work's name, found none with it; there are: {names}")
    modes, rows = chosen_modes(args), []
    if (load := os.getloadavg()[0]) > 0.5:
        say(f"warning: expected an idle machine, found a load of {load:.1f}; stop other programs or distrust the times")
    for work in suite:
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(work, args, modes, Path(folder))
        if args.json:  # after each work: what is measured stays, whatever happens later
            args.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
