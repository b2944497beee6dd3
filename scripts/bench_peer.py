"""PyTorch's side of bench_vs_torch.sh: the networks of `distill bench --save` files, checked and timed.

    python scripts/bench_peer.py check FILE ...          # outputs and gradients against ours
    python scripts/bench_peer.py time FILE --mode "f32 contiguous eager" --batch 64

`check` computes in f32 and fails where our file is further off than its precision allows. `time` prints a JSON object.
A mode is a precision (f32, or bf16: autocast), a layout (contiguous, channels_last) and a way to run (eager, compile).
Needs torch and safetensors.
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
import torch.nn.functional as F
from bench.diffaugment import augment
from fixtures.networks import ConvNet, UNet, Vae, load, ours
from safetensors import safe_open

# Largest error allowed, as a part of the tensor's largest value, by what our matrix products are computed in. With bf16
# gradients may also be as far off as PyTorch's own bf16 makes them, with some room: a ReLU that a rounding switches
# changes them more than any rounding does.
TOLERANCES, ROOM = {"f32": 1e-4, "bf16": 3e-2}, 1.5
# A gradient that is zero but for rounding (of a bias before an instance norm) has no scale of its own: no scale is less
# than this part of the network's largest gradient.
FLOOR = 1e-2


class Saved:
    """A file of `distill bench --save`: its metadata and tensors, and the network that they describe."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.meta = json.loads(file.metadata()["distill"])
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
        self.work, self.dtype = self.meta["work"], self.meta["environment"]["dtype"]
        self.network, self.forward = WORKS[self.work](self.meta)
        load(self.network, self.part("weights."))
        self.trains = "loss" in self.tensors

    def part(self, prefix):
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}

    def inputs(self):
        """By name, in PyTorch's layout and types."""
        whole = lambda name, t: t.long() if name in ("labels", "classes") else t
        return {name: whole(name, nchw(t)) for name, t in self.part("inputs.").items()}


def nchw(t):
    return t.permute(0, 3, 1, 2).contiguous() if t.dim() == 4 else t


def nhwc(t):
    return t.permute(0, 2, 3, 1) if t.dim() == 4 else t


def student(meta):
    network = ConvNet(**meta["protocol"]["convnet"], size=32, classes=meta["classes"])

    def forward(images, labels):
        logits = network(images)
        return logits, F.cross_entropy(logits, labels)

    return network, forward


def vae_train(meta):
    network, kl_weight = Vae(meta["config"]["vae"]), meta["config"]["train"]["kl_weight"]

    def forward(images, noise):
        mean, log_variance = network.encoder(images).float().chunk(2, dim=1)
        output = network.decoder(mean + (log_variance / 2).exp() * noise)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return output, F.mse_loss(output.float(), images) + kl_weight * kl

    return network, forward


def vae_decode(meta):
    network = Vae(meta["config"]["vae"])
    return network, lambda latents: (network.decoder(latents), None)


def unet(meta):
    config = meta["config"]
    size = config["image_size"] >> (len(config["vae"]["channels"]) - 1)
    return UNet(config["unet"], size, config["vae"]["latent_channels"], meta["classes"])


def unet_train(meta):
    network = unet(meta)

    def forward(x, times, classes, target):
        output = network(x, times, classes)
        return output, F.mse_loss(output.float(), target)

    return network, forward


def unet_forward(meta):
    network = unet(meta)
    return network, lambda x, times, classes: (network(x, times, classes), None)


WORKS = {
    "student-epoch": student,
    "vae-train": vae_train,
    "vae-decode": vae_decode,
    "unet-train": unet_train,
    "unet-forward": unet_forward,
}


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
    if saved.dtype == "f32" or not saved.trains:
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


def training(saved, forward, inputs):
    """A step of train::Trainer: loss, backward, clipping, AdamW and average."""
    params = list(saved.network.parameters())
    average = [p.detach().clone() for p in params]
    optimizer = torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, fused=True)

    def step():
        optimizer.zero_grad()
        forward(**inputs)[1].backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - 0.999)

    return step


def epoch(saved, forward, inputs, batch, layout):
    """A pass over the student's images, as the challenge's evaluator makes it."""
    images, labels = inputs["images"], inputs["labels"]
    recipe = {key: saved.meta["protocol"][key] for key in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(saved.network.parameters(), **recipe, fused=True)

    def step():
        for chosen in torch.randperm(len(images)).split(batch):
            _, loss = forward(images=layout(augment(images[chosen])), labels=labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return step


def inference(forward, inputs):
    def step():
        with torch.inference_mode():
            forward(**inputs)

    return step


def autocast(forward, bf16):
    def cast(**inputs):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return forward(**inputs)

    return cast


def prepared(saved, mode, batch):
    """The step that is repeated."""
    precision, form, way = mode.split()
    memory_format = getattr(torch, f"{form}_format" if form == "contiguous" else form)
    layout = lambda t: t.contiguous(memory_format=memory_format) if t.dim() == 4 else t
    saved.network.to(memory_format=memory_format)
    count = saved.meta["images"] if saved.work == "student-epoch" else batch
    repeated = lambda t: t.repeat(-(-count // len(t)), *[1] * (t.dim() - 1))[:count]
    inputs = {name: layout(repeated(t)) for name, t in saved.inputs().items()}
    forward = saved.forward
    if way == "compile":
        torch._inductor.config.freezing = not saved.trains  # weights that do not change may be packed beforehand
        forward = torch.compile(forward, dynamic=False)
    forward = autocast(forward, precision == "bf16")
    if not saved.trains:
        return inference(forward, inputs)
    if saved.work == "student-epoch":
        return epoch(saved, forward, inputs, batch, layout)
    return training(saved, forward, inputs)


def measure(path, mode, batch, seconds, threads):
    """Prints the median time of a step and the memory it takes, as `distill bench` measures them."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    idle = status("VmRSS")
    step = prepared(Saved(path), mode, batch)
    for _ in range(2):  # the second compiles nothing and has the optimizer's state
        step()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    start, times = time.perf_counter(), []
    while not times or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    peak = status("VmHWM")
    peak = peak and peak - idle  # what `import torch` takes is not the network's
    print(json.dumps({"seconds_per_step": statistics.median(times), "peak_bytes": peak}))


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
    args = parser.parse_args()
    if args.action == "time":
        measure(args.file, args.mode, args.batch, args.seconds, args.threads)
    elif wrong := [problem for problem in map(check, args.files) if problem]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
