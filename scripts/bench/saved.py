"""Files of `distill bench --save`, and the networks that they describe in PyTorch."""

import json
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from fixtures.networks import ConvNet, UNet, Vae, conv, load
from torch import nn

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64, "U32": torch.uint32}


def read(path):
    """The metadata and the tensors of a safetensors file: the size of a table in JSON, the table, the elements."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:start])
    metadata = json.loads(table.pop("__metadata__")["distill"])

    def tensor(entry):
        begin, end = entry["data_offsets"]
        elements = torch.frombuffer(bytearray(data[start + begin : start + end]), dtype=TYPES[entry["dtype"]])
        return elements.view(entry["shape"])

    return metadata, {name: tensor(entry) for name, entry in table.items()}


def nchw(t):
    return t.permute(0, 3, 1, 2).contiguous() if t.dim() == 4 else t


class Saved:
    """A file's metadata and tensors, and the network that they describe."""

    def __init__(self, path):
        self.meta, self.tensors = read(path)
        environment = self.meta["environment"]
        self.work, self.dtype = self.meta["work"], environment["dtype"]
        if environment["kernels"] == "cuda" and self.dtype == "f32":
            self.dtype = "tf32"
        self.network, self.forward = WORKS[self.work](self.meta)
        load(self.network, self.part("weights."))
        self.trains = "loss" in self.tensors

    def part(self, prefix):
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}

    def inputs(self):
        """By name, in PyTorch's layout and types."""
        whole = lambda name, t: t.long() if name in ("labels", "classes") else t
        return {name: whole(name, nchw(t)) for name, t in self.part("inputs.").items()}


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


def convolutions(meta):
    weights = OrderedDict((f"conv{i}", conv(*[meta["config"]["unet"]["channels"]] * 2, bias=False)) for i in range(1, 9))
    network = nn.Sequential(weights)

    def forward(x, target):
        output = network(x)
        return output, F.mse_loss(output.float(), target)

    return network, forward


def sample(meta):
    """One prediction, decoded; bench/steps.py has the whole way."""
    network = nn.ModuleDict({"unet": unet(meta), "vae": Vae(meta["config"]["vae"])})
    return network, lambda x, times, classes: (network["vae"].decoder(network["unet"](x, times, classes)), None)


WORKS = {
    "student-epoch": student,
    "vae-train": vae_train,
    "vae-decode": vae_decode,
    "unet-train": unet_train,
    "unet-forward": unet_forward,
    "convolutions": convolutions,
    "sample": sample,
}
