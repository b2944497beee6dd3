"""What PyTorch repeats to be timed: the step of each work, in one mode.

A mode is "precision layout way": f32 or bf16 (autocast); contiguous or channels_last; eager, compile (torch.compile),
graphs (the same with CUDA graphs) or autotune (the same with kernels chosen by measuring them).
"""

import math

import torch

from bench.diffaugment import augment

COMPILERS = {"compile": None, "graphs": "reduce-overhead", "autotune": "max-autotune-no-cudagraphs"}


def training(saved, forward, inputs):
    """A step of train::Trainer: loss, backward, clipping, AdamW and average."""
    params = list(saved.network.parameters())
    average = [p.detach().clone() for p in params]
    optimizer = torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, fused=True)

    def step():
        torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad()
        forward(**inputs)[1].backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - 0.999)

    return step


def gradients(saved, forward, inputs):
    def step():
        torch.compiler.cudagraph_mark_step_begin()
        saved.network.zero_grad()
        forward(**inputs)[1].backward()

    return step


def epoch(saved, forward, inputs, batch, layout):
    """A pass over the student's images, as the challenge's evaluator makes it; a GPU is waited for at its end alone."""
    images, labels = inputs["images"], inputs["labels"]
    recipe = {key: saved.meta["protocol"][key] for key in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(saved.network.parameters(), **recipe, fused=True)

    def step():
        total = 0.0
        for chosen in torch.randperm(len(images)).to(images.device).split(batch):
            torch.compiler.cudagraph_mark_step_begin()
            _, loss = forward(images=layout(augment(images[chosen])), labels=labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()

    return step


def inference(forward, inputs):
    def step():
        torch.compiler.cudagraph_mark_step_begin()
        with torch.inference_mode():
            forward(**inputs)

    return step


def schedule(config):
    """(a_t, a_t of the next step, t) of each step of DDIM: src/diffusion/schedule.rs, cosine."""
    count, steps = config["diffusion"]["steps"], config["sampler"]["steps"]
    level = lambda t: math.cos((t / count + 0.008) / 1.008 * math.pi / 2) ** 2
    alphas, product = [], 1.0
    for t in range(count):
        product *= 1 - min(1 - level(t + 1) / level(t), 0.999)
        alphas.append(product)
    times = [round(i * count / steps) - 1 for i in range(steps, 0, -1)]
    return [(alphas[t], alphas[u] if u is not None else 1.0, t) for t, u in zip(times, [*times[1:], None])]


def sampling(saved, predict, decode, inputs, layout):
    """DDIM under guidance with the prediction v, then the decoder, to bytes on the host."""
    x, classes, null = inputs["x"], inputs["classes"], saved.meta["classes"]
    both = torch.cat([classes % null, torch.full_like(classes, null)])
    steps = [(a, n, torch.full((len(both),), float(t), device=x.device)) for a, n, t in schedule(saved.meta["config"])]
    scale = saved.meta["config"]["sampler"]["guidance"]

    def step():
        with torch.inference_mode():
            z = torch.randn_like(x)
            for a, a_next, times in steps:
                torch.compiler.cudagraph_mark_step_begin()
                v = predict(layout(torch.cat([z, z])), times, both).float()
                v = v[: len(z)] * scale + v[len(z) :] * (1 - scale)
                x0 = a**0.5 * z - (1 - a) ** 0.5 * v
                z = a_next**0.5 * x0 + ((1 - a_next) / (1 - a)) ** 0.5 * (z - a**0.5 * x0)
            ((decode(layout(z)).float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()

    return step


def autocast(forward, device, bf16):
    def cast(*args, **inputs):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return forward(*args, **inputs)

    return cast


def prepared(saved, mode, batch, device):
    """The step that is repeated, on `device`."""
    precision, form, way = mode.split()
    memory_format = getattr(torch, f"{form}_format" if form == "contiguous" else form)
    layout = lambda t: t.contiguous(memory_format=memory_format) if t.dim() == 4 else t
    saved.network.to(device=device, memory_format=memory_format)
    count = saved.meta["images"] if saved.work == "student-epoch" else batch
    repeated = lambda t: t.repeat(-(-count // len(t)), *[1] * (t.dim() - 1))[:count]
    inputs = {name: layout(repeated(t).to(device)) for name, t in saved.inputs().items()}

    def ready(function):
        if way in COMPILERS:
            torch._inductor.config.freezing = not saved.trains  # weights that do not change may be packed beforehand
            function = torch.compile(function, dynamic=False, mode=COMPILERS[way])
        return autocast(function, device, precision == "bf16")

    if saved.work == "sample":
        return sampling(saved, ready(saved.network["unet"]), ready(saved.network["vae"].decoder), inputs, layout)
    forward = ready(saved.forward)
    if not saved.trains:
        return inference(forward, inputs)
    if saved.work == "student-epoch":
        return epoch(saved, forward, inputs, batch, layout)
    return (gradients if saved.work == "convolutions" else training)(saved, forward, inputs)
