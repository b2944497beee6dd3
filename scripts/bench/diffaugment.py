"""The augmentations of the challenge's evaluator for PyTorch tensors: one kind a batch, parameters for each image.

This is what src/eval/augment.rs does, as the evaluator has it (DSA of Zhao and Bilen 2021), but with the matrices of a
whole batch made at once: image by image they would cost PyTorch more than the sampling itself.
"""

import math

import torch
import torch.nn.functional as F

CROP_SHIFT, CUTOUT_SIDE, MAX_SCALE, MAX_ANGLE = 0.125, 0.5, 1.2, math.radians(15)


def uniform(x, low, high):
    """A number for each image of x, to be broadcast over it."""
    return torch.rand(len(x), 1, 1, 1, device=x.device) * (high - low) + low


def color(x):
    x = x + uniform(x, -0.5, 0.5)
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * uniform(x, 0, 2) + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * uniform(x, 0.5, 1.5) + mean


def grid(x, *sizes):
    """The indices of a box, where x is: a tensor for each of its sides."""
    return torch.meshgrid(*(torch.arange(size, device=x.device) for size in sizes), indexing="ij")


def pixel_grid(x):
    """(image, row, column) of every pixel, as three tensors."""
    batch, _, height, width = x.shape
    return grid(x, batch, height, width)


def crop(x):
    size = x.shape[2]
    shift = int(size * CROP_SHIFT + 0.5)
    image, row, column = pixel_grid(x)
    moved = lambda at: (at + torch.randint(-shift, shift + 1, (len(x), 1, 1), device=x.device) + 1).clamp(0, size + 1)
    padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
    return padded[image, moved(row), moved(column)].permute(0, 3, 1, 2)


def cutout(x):
    size = x.shape[2]
    side = int(size * CUTOUT_SIDE + 0.5)
    image, row, column = grid(x, len(x), side, side)
    centre = lambda: torch.randint(0, size + 1 - side % 2, (len(x), 1, 1), device=x.device)
    placed = lambda at: (at + centre() - side // 2).clamp(0, size - 1)
    mask = torch.ones(len(x), size, size, device=x.device)
    mask[image, placed(row), placed(column)] = 0
    return x * mask.unsqueeze(1)


def flip(x):
    return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)


def resample(x, a, b, c, d):
    """Samples at the grid [[a, b], [c, d]] (x, y) of each image."""
    zero = torch.zeros_like(a)
    theta = torch.stack([a, b, zero, c, d, zero], dim=1).view(-1, 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def scale(x):
    factor = lambda: uniform(x, 1 / MAX_SCALE, MAX_SCALE).flatten()
    zero = torch.zeros(len(x), device=x.device)
    return resample(x, factor(), zero, zero, factor())


def rotate(x):
    angle = uniform(x, -MAX_ANGLE, MAX_ANGLE).flatten()
    return resample(x, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


KINDS = [color, crop, cutout, flip, scale, rotate]


def augment(x):
    """Images (N, 3, H, W) through one kind, drawn uniformly."""
    return KINDS[torch.randint(len(KINDS), ())](x)
