"""PyTorch's side of bench_vs_torch.sh: the networks of `distill bench --save` files, checked and timed.

    python scripts/bench_peer.py check FILE ...          # outputs and gradients against ours
    python scripts/bench_peer.py time FILE --mode "f32 contiguous eager" --batch 64 [--device cuda:0]
    python scripts/bench_peer.py limit FILE [--device cuda:0]

`check` computes in f32 on the CPU and fails where our file is further off than its precision allows. `time` prints a JSON
object; its modes are those of bench/steps.py. `limit` prints the floating-point operations of an image's forward and
backward pass, as PyTorch counts them, and those a second of a large product in bf16. Needs torch.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from bench.saved import Saved
from bench.steps import prepared
from fixtures.networks import ours
from torch.utils.flop_counter import FlopCounterMode

# Largest error allowed, as a part of the tensor's largest value, by what our matrix products are computed in. With bf16
# gradients may also be as far off as PyTorch's own bf16 makes them, with some room: a ReLU that a rounding switches
# changes them more than any rounding does.
TOLERANCES, ROOM = {"f32": 1e-4, "tf32": 1e-2, "bf16": 3e-2}, 1.5
# A gradient that is zero but for rounding (of a bias before an instance norm) has no scale of its own: no scale is less
# than this part of the network's largest gradient.
FLOOR = 1e-2
# Seconds between two waits for a GPU, as in src/commands/bench.rs.
BETWEEN_WAITS = 0.2


def nhwc(t):
    return t.permute(0, 2, 3, 1) if t.dim() == 4 else t


def results(saved, bf16):
    """What PyTorch computes, by the names of the file and in its layouts."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output, loss = saved.forward(**saved.inputs())
    found = {"output": nhwc(output).detach().float()}
    if saved.trains:
        saved.network.zero_grad()
        loss.backward()
        gradients = ours({name: p.grad for name, p in saved.network.named_parameters()})
        found |= {"loss": loss.detach(), **{f"gradients.{name}": g for name, g in gradients.items()}}
    return found


def errors(found, expected):
    """The largest error of each tensor, as a part of its largest value."""
    largest = {name: t.abs().max().item() for name, t in expected.items()}
    floor = FLOOR * max((v for name, v in largest.items() if name.startswith("gradients.")), default=0.0)
    scale = lambda name: max(largest[name], floor if name.startswith("gradients.") else 1e-30)
    error = lambda name: (found[name].view(expected[name].shape) - expected[name]).abs().max().item() / scale(name)
    return {name: e if math.isfinite(e := error(name)) else math.inf for name in expected}


def tolerances(saved, expected):
    """The largest error allowed of outputs and loss, and of gradients."""
    usual = TOLERANCES[saved.dtype]
    if saved.dtype != "bf16" or not saved.trains:
        return usual, usual
    peers = errors(results(saved, bf16=True), expected)
    return usual, max(usual, ROOM * max(error for name, error in peers.items() if name.startswith("gradients.")))


def check(path):
    """Compares a file with PyTorch in f32, prints the largest errors, and returns what is wrong, if anything."""
    saved = Saved(path)
    expected = results(saved, bf16=False)
    found = errors(saved.tensors, expected)
    of_outputs, of_gradients = tolerances(saved, expected)
    said, wrong = [], []
    for kind, allowed in (("output", of_outputs), ("loss", of_outputs), ("gradients.", of_gradients)):
        names = [name for name in found if name.startswith(kind)]
        if names:
            worst = max(names, key=found.get)
            said.append(f"{worst} {found[worst]:.1e} (allowed {allowed:.1e})")
            wrong += [said[-1]] if found[worst] > allowed else []
    print(f"{saved.work} in {saved.dtype}, largest errors: {', '.join(said)}", file=sys.stderr)
    if wrong:
        return (
            f"{saved.work} in {saved.dtype}: expected PyTorch's f32 results, found errors of {', '.join(wrong)}, as "
            "parts of the largest values; mend src/ops or scripts/fixtures/networks.py before anything is timed"
        )


def status(field):
    """A size in bytes from /proc/self/status, as `distill bench` reads it; none where there is no such file."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return 1024 * int(line.split()[1])


def measure(path, mode, batch, seconds, threads, device):
    """Prints the median time of a step and the memory it takes, as `distill bench` measures them."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    idle = status("VmRSS")
    step = prepared(Saved(path), mode, batch, device)

    def timed(steps):
        """The mean time of so many steps, to the end of the GPU's work."""
        before = time.perf_counter()
        for _ in range(steps):
            step()
        if on_gpu:
            torch.cuda.synchronize(device)
        return (time.perf_counter() - before) / steps

    for _ in range(4 if on_gpu else 2):  # the second compiles nothing, the fourth records no graph
        timed(1)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    steps = min(max(int(BETWEEN_WAITS / timed(1)), 1), 32) if on_gpu else 1
    start, times = time.perf_counter(), []
    while not times or time.perf_counter() - start < seconds:
        times.append(timed(steps))
    peak = None if on_gpu else status("VmHWM")
    peak = peak and peak - idle  # what `import torch` takes is not the network's
    print(json.dumps({"seconds_per_step": statistics.median(times), "peak_bytes": peak}))


def limit(path, device):
    """Prints the operations of an image's forward and backward pass, and those a second of a large product in bf16."""
    saved = Saved(path)
    inputs = saved.inputs()
    with FlopCounterMode(display=False) as counter:
        output, loss = saved.forward(**inputs)
        (output.sum() if loss is None else loss).backward()
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in "ab")
    best = math.inf
    for _ in range(10):
        before = time.perf_counter()
        for _ in range(5):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - before) / 5)
    images = len(next(iter(inputs.values())))
    print(json.dumps({"flops_per_image": counter.get_total_flops() / images, "flops_per_second": 2 * size**3 / best}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    checking = actions.add_parser("check", help="compare files with PyTorch")
    checking.add_argument("files", nargs="+", metavar="FILE")
    timing = actions.add_parser("time", help="time one work in one mode")
    timing.add_argument("file", metavar="FILE")
    timing.add_argument("--mode", required=True)
    timing.add_argument("--batch", type=int, required=True)
    timing.add_argument("--seconds", type=float, default=5.0)
    timing.add_argument("--threads", type=int, default=os.cpu_count())
    limiting = actions.add_parser("limit", help="what the device reaches at most, and what one image needs")
    limiting.add_argument("file", metavar="FILE")
    for action in (timing, limiting):
        action.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    if args.action == "time":
        measure(args.file, args.mode, args.batch, args.seconds, args.threads, args.device)
    elif args.action == "limit":
        limit(args.file, args.device)
    elif wrong := [problem for problem in map(check, args.files) if problem]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
