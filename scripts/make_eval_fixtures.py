"""Writes tests/fixtures/eval_{augment,convnet,students}.safetensors: PyTorch's answers for tests/eval.

Needs torch, numpy and safetensors. From the repository's root: python3 scripts/make_eval_fixtures.py

Images are u8 (N, H, W, 3), as in an ImageSet. Weights have the names and layouts of the Rust network.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from fixtures.networks import ConvNet, ours
from fixtures.students import FULL, STUDENTS
from safetensors.numpy import save_file

MEAN = torch.tensor([0.5071, 0.4866, 0.4409]).view(1, 3, 1, 1)
STD = torch.tensor([0.2673, 0.2564, 0.2762]).view(1, 3, 1, 1)


def random_images(rng, n, size):
    """Noise over a smooth ground, so that neighbours are alike but never equal."""
    y, x = np.mgrid[0:size, 0:size] / size
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1, 3))
    ground = 110 + 70 * np.sin(5 * x[None, :, :, None] + phase) + 40 * np.cos(7 * y[None, :, :, None] - phase)
    return np.clip(ground + rng.normal(0, 15, ground.shape), 0, 255).astype(np.uint8)


def normalized(images):
    """u8 (N, H, W, 3) to normalized (N, 3, H, W)."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def color(x, brightness, saturation, contrast):
    per_image = lambda v: torch.tensor(v).view(-1, 1, 1, 1)
    x = x + per_image(brightness)
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * per_image(saturation) + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * per_image(contrast) + mean


def crop(x, down, right):
    """Pad by 8 zeros on each side and cut the shifted window."""
    size, padded = x.shape[2], F.pad(x, (8, 8, 8, 8))
    return torch.stack([p[:, 8 + d:8 + d + size, 8 + r:8 + r + size] for p, d, r in zip(padded, down, right)])


def cutout(x, centre_y, centre_x):
    half = x.shape[2] // 4
    x = x.clone()
    for image, cy, cx in zip(x, centre_y, centre_x):
        image[:, max(cy - half, 0):cy + half, max(cx - half, 0):cx + half] = 0
    return x


def resample(x, theta):
    """In double precision: at 64 x 64, single-precision coordinates are off by up to 1e-5 pixels themselves."""
    theta = torch.tensor(theta, dtype=torch.float64)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x.double(), grid, mode="bilinear", padding_mode="zeros", align_corners=False).float()


def scale(x, sx, sy):
    return resample(x, [[[a, 0.0, 0.0], [0.0, b, 0.0]] for a, b in zip(sx, sy)])


def rotate(x, angles):
    return resample(x, [[[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0]] for a in angles])


def augment_fixture(rng):
    """Three images; the parameters reach the ends of their ranges."""
    small, large = random_images(rng, 3, 32), random_images(rng, 1, 64)
    x = normalized(small)
    brightness, saturation, contrast = [-0.5, 0.31, 0.49], [0.0, 1.9, 0.7], [1.4, 0.5, 0.83]
    down, right = [-4, 4, 1], [4, 0, -3]
    centre_y, centre_x = [0, 32, 13], [5, 32, 20]
    sx, sy = [1 / 1.2, 1.199, 0.97], [1.19, 0.84, 1.13]
    angles = [math.radians(v) for v in (-15.0, 14.9, 3.3)]
    large_angle = [math.radians(-11.0)]
    outputs = {
        "color": color(x, brightness, saturation, contrast),
        "crop": crop(x, down, right),
        "cutout": cutout(x, centre_y, centre_x),
        "flip": torch.stack([x[0].flip(2), x[1], x[2].flip(2)]),
        "scale": scale(x, sx, sy),
        "rotate": rotate(x, angles),
        "rotate64": rotate(normalized(large), large_angle),
    }
    tensors = {f"out.{name}": out.permute(0, 2, 3, 1) for name, out in outputs.items()}
    tensors |= {
        "images": small,
        "images64": large,
        "color": np.float32([brightness, saturation, contrast]),
        "crop": np.int64([down, right]),
        "cutout": np.int64([centre_y, centre_x]),
        "flip": np.uint8([1, 0, 1]),
        "scale": np.float32([sx, sy]),
        "rotate": np.float32(angles),
        "rotate64": np.float32(large_angle),
    }
    return tensors


def augmented_updates(rng, network, x, labels, lr):
    """Six updates of 8 images each, through each kind of augmentation in turn, with the protocol's SGD."""
    uniform = lambda low, high: rng.uniform(low, high, 8).astype(np.float32)
    whole = lambda low, high: rng.integers(low, high + 1, 8)
    parameters = {
        "color": [uniform(-0.5, 0.5), uniform(0, 2), uniform(0.5, 1.5)],
        "crop": [whole(-4, 4), whole(-4, 4)],
        "cutout": [whole(0, 32), whole(0, 32)],
        "flip": [whole(0, 1)],
        "scale": [uniform(1 / 1.2, 1.2), uniform(1 / 1.2, 1.2)],
        "rotate": [uniform(-math.pi / 12, math.pi / 12)],
    }
    flip = lambda x, turned: torch.stack([image.flip(2) if t else image for image, t in zip(x, turned)])
    kinds = {"color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate}
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    losses, batches = [], []
    for name, values in parameters.items():
        batch = rng.permutation(12)[:8]
        plain = [v.tolist() for v in values]
        loss = F.cross_entropy(network(kinds[name](x[batch], *plain)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        batches.append(batch)
    tensors = {f"augmented.{name}": np.stack(values).astype(np.float32) for name, values in parameters.items()}
    return tensors | {"augmented.losses": np.float32(losses), "augmented.batches": np.uint8(batches)}


def soft_updates(rng, network, x, classes, temperature=4.0):
    """Eight updates with soft labels: AdamW under half a cosine, and the temperature's square times KL."""
    logits = torch.from_numpy(rng.normal(0, 3, (12, classes)).astype(np.float32))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    losses, batches = [], [rng.permutation(12)[:8] for _ in range(8)]
    for batch in batches:
        student = F.log_softmax(network(x[batch]) / temperature, dim=1)
        teacher = F.log_softmax(logits[batch] / temperature, dim=1)
        loss = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return {
        "soft.labels": logits.softmax(dim=1),
        "soft.losses": np.float32(losses),
        "soft.batches": np.uint8(batches),
    }


def convnet_fixture(rng):
    """A forward pass, then ten updates of 8 of 12 images; after five of them lr x 0.1 and a fresh optimizer. From the first
    weights again: updates with augmentation, and with soft labels."""
    classes, lr = 5, 0.05  # five times the protocol's lr: ten steps must show a difference
    network = ConvNet(depth=3, width=8, size=32, classes=classes)
    with torch.no_grad():  # factors unlike 1 and 0, as after some training
        for block in network.blocks():
            block["norm"].weight.uniform_(0.5, 1.5)
            block["norm"].bias.uniform_(-0.3, 0.3)
    images = random_images(rng, 12, 32)
    labels = torch.from_numpy(rng.integers(0, classes, 12))
    batches = np.stack([rng.permutation(12)[:8] for _ in range(10)])
    tensors = {f"weights.{name}": tensor for name, tensor in ours(network.state_dict()).items()}
    x = normalized(images)
    tensors["logits"] = network(x).detach()

    first = copy.deepcopy(network)
    losses = []
    for step, batch in enumerate(batches):
        if step in (0, 5):
            rate = lr if step == 0 else lr * 0.1
            optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
        loss = F.cross_entropy(network(x[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tensors |= {f"trained.{name}": tensor for name, tensor in ours(network.state_dict()).items()}
    tensors |= {
        "images": images,
        "labels": labels.numpy().astype(np.uint8),
        "batches": batches.astype(np.uint8),
        "losses": np.float32(losses),
    }
    tensors |= augmented_updates(rng, copy.deepcopy(first), x, labels, lr)
    tensors |= soft_updates(rng, first, x, classes)
    return tensors


def hashed(n, salt):
    """n values in [-1, 1) that tests/eval/architectures.rs computes as well, so that no weights need be stored."""
    x = (np.arange(n, dtype=np.uint64) * 2654435761 + salt * 40503 + 12345) % 2**32
    x = ((x ^ (x >> 15)) * 2246822519) % 2**32
    x = ((x ^ (x >> 13)) * 3266489917) % 2**32
    return (((x ^ (x >> 16)) >> 8).astype(np.float64) / 2**23 - 1).astype(np.float32)


def set_hashed(network):
    """Sets every parameter, in the order of names, from hashes in our layout; norms' factors are near 1."""
    with torch.no_grad():
        for salt, (name, p) in enumerate(sorted(network.named_parameters())):
            values = torch.from_numpy(hashed(p.numel(), salt))
            if p.dim() == 1:
                values = 0.2 * values + float("norm" in name and name.endswith("weight"))
            elif name == "positions":
                values = 0.2 * values
            else:
                values = values * (3 / p[0].numel()) ** 0.5
            if p.dim() == 4:
                o, i, h, w = p.shape
                values = values.view(o, h, w, i).permute(0, 3, 1, 2)
            p.copy_(values.view(p.shape))


def students_fixture(rng):
    """For each student: logits, gradients as their norms and their products with hashes, the losses of four updates of the
    same images, and a test's logits before these. The numbers of parameters of the full sizes."""
    images, labels = random_images(rng, 4, 32), torch.tensor([0, 3, 1, 4])
    x = normalized(images)
    tensors = {"images": images, "labels": labels.numpy().astype(np.uint8)}
    for name, (network, sizes) in STUDENTS.items():
        network = network(32, 5, **sizes)
        set_hashed(network)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
        losses = []
        for step in range(4):
            logits = network(x)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            if step == 0:
                tensors[f"{name}.logits"] = logits.detach()
                tensors[f"{name}.tested"] = network.eval()(x).detach()
                network.train()
                found = sorted(ours({n: p.grad for n, p in network.named_parameters()}).items())
                gradients = [g.double().flatten() for _, g in found]
                hashes = [torch.from_numpy(hashed(len(g), 1000 + i)).double() for i, g in enumerate(gradients)]
                sums = [[g.norm(), g @ h] for g, h in zip(gradients, hashes)]
                tensors[f"{name}.gradients"] = torch.tensor(sums).float()
            optimizer.step()
            losses.append(loss.item())
        tensors[f"{name}.losses"] = np.float32(losses)
    for name, network in FULL.items():
        tensors[f"{name}.count"] = np.int64([sum(p.numel() for p in network(32, 10).parameters())])
    return tensors


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    fixtures = [("augment", augment_fixture), ("convnet", convnet_fixture), ("students", students_fixture)]
    for name, make in fixtures:
        tensors = make(rng)
        arrays = {k: np.ascontiguousarray(v.numpy() if torch.is_tensor(v) else v) for k, v in tensors.items()}
        save_file(arrays, f"tests/fixtures/eval_{name}.safetensors")


if __name__ == "__main__":
    main()
