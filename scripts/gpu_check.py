"""The parts of gpu_check.sh, each with its own limit of time; a part that fails does not stop the others."""

import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import bench_vs_torch
from bench_vs_torch import Work, say

# Seconds that a part may take, and all of them: the table has what the parts before it leave, and half a minute at most.
LIMITS, ALL = {"check": 120, "run": 90}, 500
PARTS = ("check", "run", "table")
SECONDS = 2.0
# Steps of DDIM, and what a CPU takes instead.
STEPS, FEW_STEPS = 50, 3
# (work, images at once on a card, on a CPU, its part of the time). The goals are a card's, in bf16.
TABLE = [
    (Work("unet-train-8", "unet-train", "unet8", 1.2), 512, 16, 5),
    (Work("unet-train-16", "unet-train", "unet16", 1.2), 512, 4, 5),
    (Work("sample-32", "sample", "unet8", 1.5), 1000, 4, 4),
    (Work("student-epoch", "student-epoch", "unet8", 3.0), 256, 256, 3),
    (Work("convolutions-16", "convolutions", "unet16", None), 512, 4, 1),
]
# Of single figures: images a second when sampling at 32 x 32, seconds of a student's whole training.
IMAGES_GOAL, STUDENT_GOAL, EPOCHS = 1000.0, 30.0, 1000


def distill(args, options, limit, out):
    """Runs the program and returns what it prints as JSON, with `error` where it did not end well."""
    command = [args.binary, *options, "--device", args.device, "--json", "--quiet"]
    said = out / f"{options[0]}.log"
    with said.open("w") as log:
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=limit)
            problem = None if done.returncode == 0 else f"expected exit code 0, found {done.returncode}"
            printed = done.stdout
        except subprocess.TimeoutExpired:
            problem, printed = f"expected an end within {limit} s, found none", ""
    try:
        found = json.loads(printed)
    except ValueError:
        found = {}
    if problem:
        lines = said.read_text().strip().splitlines()
        found["error"] = f"{problem}: {lines[-1]}" if lines else problem
    return found


def check(args):
    found = distill(args, ["check"], LIMITS["check"], args.out)
    wrong = [line for line in found.get("checks", []) if line["outcome"] == "FAILED"]
    for line in wrong:
        say(f"  FAILED: {line['name']} ({line['shapes']}) in {line['dtype']}: {line['reason']}")
    return found


def run(args):
    on_cpu = args.device == "cpu"
    options = ["run", "--max-time", "10s" if on_cpu else "25s", "--epochs", "5" if on_cpu else "100", "--ipc", "10"]
    options += ["--out", str(args.out / "runs"), "--name", "check", "--overwrite"]
    found = distill(args, options, LIMITS["run"], args.out)
    evaluations = found.get("evaluations", [])
    if evaluations and not on_cpu and evaluations[0]["accuracy_mean"] <= found["chance"]:
        found["error"] = f"expected a student better than chance, found {evaluations[0]['accuracy_mean']:.2f} %"
    return found


def table(args):
    """The rows of the table, and what the card reaches at most."""
    options = SimpleNamespace(device=args.device, dtype="auto", seconds=SECONDS, modes="bf16", until=args.until)
    modes, rows, limit = bench_vs_torch.chosen_modes(options), [], None
    for place, (work, on_card, on_cpu, part) in enumerate(TABLE):
        work = work._replace(batch=on_cpu if args.device == "cpu" else on_card, options=sampler(args))
        left = args.until - time.monotonic()
        options.until = time.monotonic() + left * part / sum(part for *_, part in TABLE[place:])
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = bench_vs_torch.compare(work, options, modes, Path(folder))
                rows += [row for row in found if row["unit"] == "s"]
                if modes and work.kind in ("unet-train", "convolutions"):
                    file = Path(folder) / "auto" / f"{work.kind}.safetensors"
                    if most := bench_vs_torch.peer("limit", file, ["--device", args.device], 60):
                        share(rows[-1], most)
                        limit = most["flops_per_second"]
            except (SystemExit, Exception) as problem:  # the other works still have something to say
                rows.append(dict(work=work.name, error=str(problem)))
                say(f"  FAILED: {problem}")
    wrong = sum("error" in row for row in rows)
    return {"rows": rows, "flops_per_second": limit} | ({"error": f"{wrong} of them failed"} if wrong else {})


def sampler(args):
    steps = FEW_STEPS if args.device == "cpu" else STEPS
    return ("--set", f"sampler.steps={steps}", "--set", "sampler.guidance=2.0")


def share(row, most):
    """Adds the share of the device's limit in bf16 that ours and PyTorch reach."""
    flops = most["flops_per_image"] * row["batch"] / most["flops_per_second"]
    row |= {"share": flops / row["ours"], "peer_share": row["peer"] and flops / row["peer"]}


def asked(command):
    """The first line that a program prints; none where there is none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def machine(args):
    def card(what):
        number = args.device.partition(":")[2] or "0"
        return asked(["nvidia-smi", "-i", number, "--format=csv,noheader", f"--query-gpu={what}"])

    on_cpu = args.device == "cpu"
    found = {"device": args.device, "card": None if on_cpu else card("name"), 
             "driver": None if on_cpu else card("driver_version")}
    return found | {"pytorch": asked([sys.executable, "-c", "import torch; print(torch.__version__)"])}


def write(path, report):
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(temporary, path)


def figures(report):
    """Single figures; on a CPU no goal is set."""

    def beside(what, figure, goal=None, least=True):
        goal = None if report["machine"]["device"] == "cpu" else goal
        reached = None if goal is None else figure >= goal if least else figure <= goal
        return dict(what=what, figure=figure, goal=goal, reached=reached)

    for row in report.get("table", {}).get("rows", []):
        if "error" in row:
            continue
        if row["work"] == "sample-32":
            yield beside("sampled images a second", row["images"] / row["ours"], IMAGES_GOAL)
        if row["work"] == "student-epoch":
            what = f"seconds of {EPOCHS} student epochs, extrapolated"
            yield beside(what, EPOCHS * row["ours"], STUDENT_GOAL, least=False)
        if row.get("share"):
            yield beside(f"{row['work']}, % of the limit in bf16", 100 * row["share"])
        if row["ratio"]:
            yield beside(f"{row['work']}, PyTorch / ours", row["ratio"], row["goal"])


def part(name, report, what):
    """A line about a part that ran."""
    found = report.get(name)
    return [] if found is None else [f"{name:<10} {what(found)}  " + (f"FAILED: {found['error']}" if "error" in found else "ok")]


def summary(report):
    about, where = report.get("check", {}).get("environment", {}), report["machine"]
    lines = [f"{name:<10} {value}" for name, value in where.items() if value]
    lines.append(f"{'distill':<10} {about.get('version', 'not known')}, commit {about.get('commit')}, {about.get('device')}")
    if where["device"] == "cpu":
        batches = ", ".join(f"{work.name} {on_cpu}" for work, _, on_cpu, _ in TABLE)
        lines.append(f"on a CPU   batches of {batches}; {FEW_STEPS} steps of sampling; the goals below are a card's")
    counts = lambda found: ", ".join(f"{found.get(name, '?')} {name}" for name in ("passed", "failed"))
    named = lambda found, on: "distilled" if on == found["distilled"] else on
    accuracies = lambda found: ", ".join(
        f"{named(found, e['on'])} {e['accuracy_mean']:.1f} %" for e in found.get("evaluations", []))
    lines += part("check", report, counts) + part("run", report, accuracies)
    rows = report.get("table", {}).get("rows", [])
    lines += part("table", report, lambda _: f"{len(rows)} works")
    lines += [f"  {row['work']}  FAILED: {row['error']}" for row in rows if "error" in row]
    if timed := [row for row in rows if "error" not in row]:
        lines += ["", bench_vs_torch.table(timed), ""]
    for what, figure, goal, reached in map(dict.values, report["figures"]):
        verdict = "" if goal is None else f"  goal {goal:g}: {'reached' if reached else 'not reached'}"
        lines.append(f"{what:<52} {figure:>9.2f}{verdict}")
    return "\n".join(lines)


def failed(report):
    """Whether something computes wrongly or did not run."""
    return any("error" in report.get(name, {}) for name in PARTS)


def main():
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__)
    parser.add_argument("binary", type=Path, help="distill, built for this machine")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu: the same way with small batches")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), metavar="DIR", help="where everything is written")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    args = parser.parse_args()
    args.until = time.monotonic() + ALL
    args.binary = args.binary.resolve()
    if not os.access(args.binary, os.X_OK):
        parser.error(f"{args.binary}: expected the program, found no file that can be run; build it, see docs/cuda.md")
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["DISTILL_BIN"] = str(args.binary)
    libraries = [folder for place in sys.path for folder in glob.glob(f"{place}/nvidia/*/lib")]  # of PyTorch's wheels
    if libraries:
        os.environ["LD_LIBRARY_PATH"] = ":".join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]).strip(":")
    report, path = {"machine": machine(args)}, args.out / "gpu_check.json"
    for name, work in (("check", check), ("run", run), ("table", table)):
        if args.only not in (None, name):
            continue
        say(f"{name} ...")
        before = time.monotonic()
        try:
            report[name] = work(args)
        except Exception as problem:  # the other parts still have something to say
            report[name] = {"error": f"{type(problem).__name__}: {problem}"}
        report[name]["seconds_taken"] = time.monotonic() - before
        report |= {"figures": list(figures(report)), "failed": failed(report)}
        write(path, report)
    print(summary(report))
    print(f"\n{'FAILED' if report['failed'] else 'ok'}: {path}")
    sys.exit(1 if report["failed"] else 0)


if __name__ == "__main__":
    main()
