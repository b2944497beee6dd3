"""Runs `distill bench` for the scripts that make tables of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def program():
    """The binary that DISTILL_BIN names, else the one that cargo built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = Path(os.environ.get("DISTILL_BIN", target / "release" / "distill"))
    if not path.is_file():
        sys.exit(f"{path}: expected the program, found no file; run cargo build --release, or set DISTILL_BIN")
    return path


def distill_bench(config, *args, device="cpu", limit=None):
    """`distill bench` with a configuration of scripts/bench, for at most `limit` seconds; returns what it prints, parsed."""
    command = [program(), "bench", "--quiet", "--json", "--device", device]
    command += ["--config", ROOT / "scripts" / "bench" / f"{config}.toml", *map(str, args)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit)
    except subprocess.TimeoutExpired:
        sys.exit(f"{' '.join(map(str, command))}: expected an end within {limit:.0f} s, found none")
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: expected exit code 0, found {done.returncode}; the reason is above")
    return json.loads(done.stdout)


def measured(config, *args, **options):
    """The one work that the arguments name."""
    (result,) = distill_bench(config, *args, **options)
    return result
