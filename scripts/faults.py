#!/usr/bin/env python3
"""Breaks training, sampling and evaluation on purpose, again and again, and compares what they end with to an unbroken
run, byte for byte.

    scripts/faults.py target/release/distill                     # a short version, about a minute
    scripts/faults.py target/release/distill --faults 400 --disks 20 --json faults.json

Ctrl-C ends it with the figures so far. Every stage is one function of (Place, Report); STAGES names them, and --only
picks some. What cannot be done on this machine (no right to mount a small file system, no strace) is said and skipped.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A run of a few seconds with a checkpoint every few steps.
TRAIN = ["--config", str(ROOT / "tests/cli/tiny.toml")]
for key in ("flip=false", "checkpoint_every=4", "sample_every=40", "vae.steps=80", "unet.steps=120"):
    TRAIN += ["--set", f"train.{key}"]
SIGNALS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGINT twice": 130}
# Not the same in each run: the times, the command, the process that held the lock.
VARYING = {"log.txt", "meta.json", ".lock"}


class Report:
    """Counts what was injected and, once the results were compared, survived."""

    def __init__(self):
        self.faults, self.pending, self.skipped, self.renames = {}, [], [], 0
        self.bytes_compared = self.files_compared = self.runs_compared = 0

    def inject(self, fault):
        self.faults.setdefault(fault, {"injected": 0, "survived": 0})["injected"] += 1
        self.pending.append(fault)

    def survived(self, files, size):
        """All faults since the last call led to a result that is the unbroken one."""
        for fault in self.pending:
            self.faults[fault]["survived"] += 1
        self.pending.clear()
        self.files_compared += files
        self.bytes_compared += size
        self.runs_compared += 1
        print(f"{self.total('survived')} faults survived", file=sys.stderr)

    def drop_pending(self):
        """Faults whose result is not known yet count as not injected."""
        for fault in self.pending:
            self.faults[fault]["injected"] -= 1

    def skip(self, what, why):
        self.skipped.append(f"{what}: {why}")
        print(f"skipped: {what}: {why}", file=sys.stderr)

    def total(self, key):
        return sum(counts[key] for counts in self.faults.values())

    def table(self):
        rows = [f"{'fault':<44} {'injected':>8} {'survived':>8}"]
        rows += [f"{name:<44} {c['injected']:>8} {c['survived']:>8}" for name, c in sorted(self.faults.items())]
        rows.append(f"{'all':<44} {self.total('injected'):>8} {self.total('survived'):>8}")
        rows.append(f"{self.runs_compared} results compared: {self.files_compared} files, {self.bytes_compared:,} bytes")
        if self.renames:
            rows.append(f"{self.renames} renames seen: each of synced files, and synced before anything was removed")
        return "\n".join(rows)


class Place:
    """A folder for runs, the program, and the unbroken run that all others are compared with."""

    def __init__(self, binary, folder, rng, faults, disks):
        self.binary, self.folder, self.rng, self.faults, self.disks = binary, folder, rng, faults, disks
        self.unbroken = folder / "unbroken"
        start = time.monotonic()
        self.ok(self.train("unbroken"))
        self.seconds = time.monotonic() - start

    def train(self, name, out=None, command="train"):
        return [self.binary, command, *TRAIN, "--name", name, "--out", str(out or self.folder)]

    def start(self, command):
        # A caller that ignores SIGHUP (nohup) or SIGINT (a background job) would hand that on.
        def default_signals():
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)

        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=default_signals)

    def run(self, command):
        """Runs to the end: the exit code and stderr."""
        process = self.start(command)
        stderr = process.communicate()[1]
        return process.returncode, stderr

    def ok(self, command):
        code, stderr = self.run(command)
        assert code == 0, f"{' '.join(command)}: exit code {code}\n{stderr}"
        return stderr


def content(path):
    """What of a file must be the same in every run."""
    data = path.read_bytes()
    if path.name in ("summary.json", "eval.json"):
        summary = json.loads(data)
        del summary["seconds"]
        data = json.dumps(summary, sort_keys=True).encode()
    elif re.fullmatch(r"run-\d+.json", path.name):
        student = json.loads(data)
        del student["result"]["seconds"], student["sha256"]
        data = json.dumps(student, sort_keys=True).encode()
    elif path.name == "README.md" and (path.parent / "config.toml").exists():
        # The card of a run says its name and its place.
        data = data.replace(str(path.parent).encode(), b"PLACE").replace(path.parent.name.encode(), b"NAME")
    return data


def compare(expected, found, report):
    """Fails unless both folders hold the same files with the same bytes."""
    def files(folder):
        paths = (p for p in folder.rglob("*") if p.is_file() and p.name not in VARYING)
        return {str(p.relative_to(folder)): content(p) for p in paths}

    a, b = files(expected), files(found)
    assert a.keys() == b.keys(), f"{found}: has other files: {sorted(a.keys() ^ b.keys())}"
    differing = [name for name in a if a[name] != b[name]]
    assert not differing, f"{found}: differs from the unbroken run in {differing}"
    report.survived(len(a), sum(map(len, a.values())))


def damage(rng, path):
    """Cuts, flips a bit of, or removes a file; says which."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(["bit flipped", "file cut", "file removed"]) if data else "file removed"
    if kind == "file removed":
        path.unlink()
    elif kind == "file cut":
        path.write_bytes(data[:rng.randrange(len(data))])
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    return kind


def checkpoints(run):
    """Checkpoints of the stage that is being trained, oldest first."""
    return sorted(run.glob("unet/step-*")) or sorted(run.glob("vae/step-*"))


def tear_checkpoint(place, run, report):
    """Damages the newest checkpoint, if there is one before it. Returns what the next start has to say, as patterns."""
    found = checkpoints(run)
    if len(found) < 2:
        return []
    victim = place.rng.choice(sorted(p for p in found[-1].iterdir()))
    kind = damage(place.rng, victim)
    report.inject(f"{kind} in the newest checkpoint")
    return [rf"{found[-1].name}/\S+: is (damaged|missing)",
            rf"goes on from step {int(found[-2].name.removeprefix('step-'))}\b"]


def tear_latents(place, run, report):
    """Damages the cached latents while the UNet is being trained."""
    latents = run / "vae/latents.safetensors"
    if not latents.is_file() or not (run / "vae/latents.sha256").is_file():
        return []
    report.inject(f"{damage(place.rng, latents)} in the latents")
    return []


def tear_weights(place, run, report):
    """Damages the VAE's final weights: refused by name; then a copy is put back, as the message says."""
    weights = run / "vae/final.safetensors"
    if not weights.is_file():
        return []
    whole = weights.read_bytes()
    kind = place.rng.choice(["cut", "flipped"])
    torn = bytearray(whole)
    torn[place.rng.randrange(len(torn))] ^= 1 << place.rng.randrange(8)
    weights.write_bytes(whole[:place.rng.randrange(len(whole))] if kind == "cut" else torn)
    report.inject("final weights damaged (refused by name)")
    code, stderr = place.run(place.train(run.name))
    assert code == 1 and "vae/final.safetensors: is damaged" in stderr, f"exit code {code}\n{stderr}"
    weights.write_bytes(whole)
    return []


def leave_temporaries(place, run, report):
    """Leaves what a process that was killed while writing leaves."""
    for stage in [s for s in ("vae", "unet") if (run / s).is_dir()]:
        (run / stage / ".tmp-Ab3dEf").write_bytes(place.rng.randbytes(1000))
        (run / stage / ".tmp-step").mkdir(exist_ok=True)
        (run / stage / ".tmp-step/model.safetensors").write_bytes(place.rng.randbytes(1000))
        report.inject("unfinished files left behind")
    return []


def interrupt(place, process, name):
    """Sends the signal; a second one follows after a random moment where the name says so."""
    process.send_signal(getattr(signal, name.split()[0]))
    if name.endswith("twice"):
        time.sleep(place.rng.uniform(0, 0.05))
        if process.poll() is None:
            process.send_signal(signal.SIGINT)


def broken_run(place, run, report):
    """Starts a run again and again, stopped at a random moment each time, until it has finished."""
    said = []
    while True:
        process = place.start(place.train(run.name))
        name = place.rng.choice(list(SIGNALS))
        try:
            stderr = process.communicate(timeout=place.rng.uniform(0, 0.7) * place.seconds)[1]
        except subprocess.TimeoutExpired:
            interrupt(place, process, name)
            stderr = process.communicate()[1]
        if "has finished" in stderr:
            return  # killed after the last file was in its place
        # A signal that comes before the program listens ends it as the system does.
        codes = {0, SIGNALS[name], -getattr(signal, name.split()[0])}
        assert process.returncode in codes, f"{name}: exit code {process.returncode}\n{stderr}"
        started = "goes on from step" in stderr
        assert not started or all(re.search(p, stderr) for p in said), f"expected {said} in\n{stderr}"
        if process.returncode == 0:
            return
        report.inject(name)
        if started or not said:
            said = []
            if place.rng.random() < 0.5 and run.is_dir():
                torn = place.rng.choice([tear_checkpoint, tear_checkpoint, tear_latents, tear_weights, leave_temporaries])
                said = torn(place, run, report)


def train(place, report):
    """Runs that are stopped and damaged at random until `faults` were injected."""
    number = 0
    while report.total("injected") < place.faults:
        run = place.folder / f"broken-{number}"
        broken_run(place, run, report)
        compare(place.unbroken, run, report)
        shutil.rmtree(run)
        number += 1


def twice(place, report):
    """A second process on a run that is being trained is refused, also with --overwrite and by `distill run`."""
    run = place.folder / "busy"
    first = place.start(place.train("busy"))
    while not list(run.glob("*/step-*")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    for command in (place.train("busy"), [*place.train("busy"), "--overwrite"], place.train("busy", command="run")):
        first.send_signal(signal.SIGSTOP)  # so that it does not finish meanwhile
        code, stderr = place.run(command)
        first.send_signal(signal.SIGCONT)
        assert code == 1 and f"another process ({first.pid}" in stderr, f"exit code {code}\n{stderr}"
        report.inject("a second process on the run (refused)")
    assert first.wait() == 0
    compare(place.unbroken, run, report)


def mount(folder, size, remount=False):
    options = f"size={size}" + (",remount" if remount else "")
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode == 0


def disk(place, report):
    """Trains on file systems that are too small, by a different number of bytes each; then they get room."""
    folder = place.folder / "disk"
    folder.mkdir()
    whole = sum(p.stat().st_size for p in place.unbroken.rglob("*") if p.is_file())
    for i in range(place.disks):
        size = int(whole * 1.1 * (i + place.rng.random()) / place.disks) // 4096 * 4096 + 8192
        if not mount(folder, size):
            return report.skip("full disk", "no right to mount a tmpfs")
        try:
            command = place.train("full", out=folder)
            code, stderr = place.run(command)
            if code != 0:
                report.inject("disk full")
                assert code == 1 and re.search(r"error: .*full.*: No space left .*run the same command again", stderr), stderr
                assert mount(folder, 4 * whole, remount=True)
                place.ok(command)
            compare(place.unbroken, folder / "full", report)
        finally:
            subprocess.run(["umount", str(folder)], check=True)


def order(place, report):
    """Reads from the system calls of a whole run that nothing is renamed before it was synced, and nothing is removed
    before what takes its place was: then a power loss leaves the old or the new."""
    if not shutil.which("strace"):
        return report.skip("order of syncs", "strace is not installed")
    log = place.folder / "strace.txt"
    calls = "trace=write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,mkdir,unlink,unlinkat,rmdir"
    place.ok(["strace", "-y", "-s", "0", "-e", calls, "-o", str(log), *place.train("traced")])
    dirty, unsynced = set(), {}  # files written since their last sync; new names by the folder that is not synced since
    for line in log.read_text().splitlines():
        name, _, rest = line.partition("(")
        paths = [p for p in re.findall(r'[<"](/[^>"]*)[>"]', rest) if p.startswith(str(place.folder))]
        if not paths or re.search(r"= -1 ", rest):
            continue
        if "write" in name and Path(paths[0]).name not in ("log.txt", ".lock"):
            dirty.add(paths[0])
        elif "sync" in name:
            dirty.discard(paths[0])
            unsynced.pop(paths[0], None)
        elif name == "mkdir" and not Path(paths[0]).name.startswith(".tmp-"):
            unsynced.setdefault(str(Path(paths[0]).parent), set()).add(paths[0])
        elif name.startswith("rename"):
            old, new = paths[0], paths[-1]
            inside = [p for p in [*dirty, *unsynced] if p == old or p.startswith(old + "/")]
            assert not inside, f"renamed before it was synced: {inside}\n{line}"
            if Path(new).name == "final.safetensors":  # the checkpoints, which hold the metrics too, are about to go
                assert str(Path(new).with_name("metrics.jsonl")) not in dirty, f"metrics not synced before\n{line}"
            unsynced.setdefault(str(Path(new).parent), set()).add(new)
            report.renames += 1
        elif name in ("unlink", "unlinkat", "rmdir"):
            assert not unsynced, f"removed something before these names were synced: {unsynced}\n{line}"
    assert not unsynced and not dirty, f"never synced: {unsynced} {dirty}"
    compare(place.unbroken, place.folder / "traced", report)


def stopped(place, command, seconds, report, tear):
    """Starts a command again and again, stopped at a random moment and damaged each time, until it ends by itself."""
    while True:
        process = place.start(command)
        name = place.rng.choice(list(SIGNALS))
        try:
            stderr = process.communicate(timeout=place.rng.uniform(0.1, 0.9) * seconds)[1]
        except subprocess.TimeoutExpired:
            interrupt(place, process, name)
            stderr = process.communicate()[1]
        if "exists and is not empty" in stderr:
            return  # killed after the set was in its place
        codes = {0, SIGNALS[name], -getattr(signal, name.split()[0])}
        assert process.returncode in codes, f"{name}: exit code {process.returncode}\n{stderr}"
        if process.returncode == 0:
            return
        report.inject(f"{name} in distill {command[1]}")
        tear()


def tear_one(place, folder, pattern, what, report):
    """Damages one of the files, half of the times."""
    found = sorted(folder.glob(pattern))
    if found and place.rng.random() < 0.5:
        report.inject(f"{damage(place.rng, place.rng.choice(found))} in {what}")


def sample(place, report):
    """Sets whose drawing is stopped, and whose drawn batches are damaged, until as many faults were injected again."""
    sets = place.unbroken / "distilled"

    def command(name):
        return [place.binary, "sample", "--run", str(place.unbroken), "--ipc", "100", "--name", name]

    start, end = time.monotonic(), report.total("injected") + place.faults
    place.ok(command("whole"))
    seconds = time.monotonic() - start
    while report.total("injected") < end:
        stopped(place, command("broken"), seconds, report,
                lambda: tear_one(place, sets / ".partial-broken", "batch-*", "a drawn batch", report))
        compare(sets / "whole", sets / "broken", report)
        shutil.rmtree(sets / "broken")
        shutil.rmtree(sets / ".partial-broken", ignore_errors=True)  # killed between the last two steps
    shutil.rmtree(sets)


def evaluate(place, report):
    """Evaluations that are stopped, and whose finished students are damaged, until as many faults were injected again."""
    def command(out):
        return [place.binary, "eval", "--on", "random-real", "--dataset", "shapes", "--ipc", "2", "--epochs", "3",
                "--runs", "4", "--out", str(place.folder / out)]

    start, end = time.monotonic(), report.total("injected") + place.faults
    place.ok(command("judged"))
    seconds = time.monotonic() - start
    while report.total("injected") < end:
        broken = place.folder / "broken-eval"
        stopped(place, command("broken-eval"), seconds, report,
                lambda: tear_one(place, broken, "eval/students/*/run-*.json", "a finished student", report))
        compare(place.folder / "judged", broken, report)
        shutil.rmtree(broken)


STAGES = {"train": train, "sample": sample, "eval": evaluate, "twice": twice, "disk": disk, "order": order}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="the program: target/release/distill")
    parser.add_argument("--faults", type=int, default=12, help="faults injected into training, sampling and evaluation each")
    parser.add_argument("--disks", type=int, default=2, help="small disks that are filled")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the kinds of faults")
    parser.add_argument("--only", action="append", choices=list(STAGES), help="one stage; can be repeated")
    parser.add_argument("--json", help="file that the figures are written to")
    args = parser.parse_args()
    report, start = Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(os.path.abspath(args.binary), Path(folder), random.Random(args.seed), args.faults, args.disks)
        try:
            for stage in args.only or STAGES:
                STAGES[stage](place, report)
        except KeyboardInterrupt:
            report.drop_pending()
    print(report.table())
    print(f"in {time.monotonic() - start:.0f} s")
    if args.json:
        figures = {"seed": args.seed, "faults": report.faults, "runs_compared": report.runs_compared,
                   "files_compared": report.files_compared, "renames_checked": report.renames, "bytes_compared": report.bytes_compared,
                   "skipped": report.skipped}
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
