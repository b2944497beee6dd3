"""Writes tests/fixtures/eval_quality.safetensors: numpy's and scipy's answers in f64 for tests/eval/quality.rs.

Needs numpy, scipy and safetensors. From the repository's root: python3 scripts/make_quality_fixtures.py
"""

import numpy as np
import scipy.linalg
from safetensors.numpy import save_file
from scipy.spatial.distance import cdist


def features(rng, n, dims, shift):
    """Clusters on a curved surface: correlated, of unequal spread, with repeats."""
    centres = np.random.default_rng(7).normal(size=(6, dims)) * 2
    hidden = rng.normal(size=(n, dims // 2)) @ np.random.default_rng(8).normal(size=(dims // 2, dims)) / 4
    out = centres[rng.integers(0, 6, n)] + hidden + 0.1 * rng.normal(size=(n, dims)) + shift
    out[n // 2] = out[0]
    return np.maximum(out, -0.5).astype(np.float32)


def frechet(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2)
    root = root[0] if isinstance(root, tuple) else root
    distance = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real
    return distance, np.trace(s1) + np.trace(s2)


def overlap(real, fake, k):
    """As in Naeem et al. (2020), figure 2."""
    radii = lambda x: np.sort(cdist(x, x), axis=1)[:, k]  # place 0 is the point itself
    between = cdist(real, fake)
    r, f = radii(real), radii(fake)
    inside = between < r[:, None]
    return [
        inside.any(0).mean(),
        (between < f[None, :]).any(1).mean(),
        inside.sum(0).mean() / k,
        (between.min(1) < r).mean(),
    ]


def k_center(x, n):
    chosen = [int(np.argmin(np.linalg.norm(x - x.mean(0), axis=1)))]
    while len(chosen) < n:
        near = cdist(x, x[chosen]).min(1)
        near[chosen] = -1
        chosen.append(int(np.argmax(near)))
    return chosen


def herding(x, n):
    chosen = []
    for i in range(n):
        off = np.linalg.norm(x.mean(0) - (x[chosen].sum(0) + x) / (i + 1), axis=1)
        off[chosen] = np.inf
        chosen.append(int(np.argmin(off)))
    return chosen


def main():
    rng = np.random.default_rng(0)
    out = {}
    for name, n, m, dims in [("wide", 150, 120, 16), ("few", 12, 20, 32), ("copies", 90, 80, 12), ("twins", 96, 60, 12)]:
        real, fake = features(rng, n, dims, 0.0), features(rng, m, dims, 0.3)
        if name == "copies":
            fake[::2] = real[: len(fake[::2])]
        if name == "twins":
            real = np.repeat(real[::6], 6, axis=0)
        out[f"{name}.real"], out[f"{name}.generated"] = real, fake
        out[f"{name}.frechet"] = np.array(frechet(real, fake))
        out[f"{name}.overlap"] = np.array([overlap(real.astype(np.float64), fake.astype(np.float64), k) for k in (1, 3, 5)])
        between = cdist(fake.astype(np.float64), real.astype(np.float64))
        out[f"{name}.nearest"] = between.argmin(1).astype(np.int64)
        out[f"{name}.distance"] = between.min(1)
    labels = rng.integers(0, 3, len(out["wide.real"]))
    out["labels"] = labels.astype(np.int64)
    for name, choose in [("k_center", k_center), ("herding", herding)]:
        members = [np.flatnonzero(labels == c) for c in range(3)]
        chosen = [m[choose(out["wide.real"][m].astype(np.float64), 7)] for m in members]
        out[name] = np.concatenate(chosen).astype(np.int64)
    save_file(out, "tests/fixtures/eval_quality.safetensors")


if __name__ == "__main__":
    main()
