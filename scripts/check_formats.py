#!/usr/bin/env python3
"""Checks that a distilled set means the same to every program that its formats are made for.

    python scripts/check_formats.py FOLDER [EXPORTS]

FOLDER is a distilled folder; EXPORTS a folder of what `distill export` made of it (distilled.pt, distilled.npz,
train.parquet, webdataset/, imagefolder/ and perhaps the challenge's tensor). Opens each with its own reader and compares
pixels, labels and class names image by image. Needs: pip install numpy pillow safetensors datasets webdataset; PyTorch and
torchvision are used where they are installed.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import webdataset
from datasets import load_dataset
from safetensors import safe_open

try:
    import torch
except ImportError:
    torch = None
try:
    from torchvision.datasets import ImageFolder
except ImportError:
    ImageFolder = None


class Set:
    """What the tensor file says, which everything else is compared with."""

    def __init__(self, folder: Path):
        with safe_open(folder / "distilled.safetensors", "np") as file:
            self.images, self.labels = file.get_tensor("images"), file.get_tensor("labels")
            header = json.loads(file.metadata()["distill"])
        self.classes = header["classes"]
        self.names = [c["name"] for c in self.classes]
        self.mean, self.std = (np.float32(header["normalization"][key]) for key in ("mean", "std"))
        self.whole = len(set(self.labels.tolist())) == len(self.classes)
        self.problems, self.checked = [], []

    def expect(self, reader: str, what: str, holds: bool):
        if not holds:
            self.problems.append(f"{reader}: {what} differ from the tensor file's")

    def tensors(self, reader: str, images, labels, names):
        self.checked.append(reader)
        self.expect(reader, "pixels", np.array_equal(images, self.images) and images.dtype == np.uint8)
        self.expect(reader, "labels", np.array_equal(labels, self.labels) and labels.dtype == np.int64)
        self.expect(reader, "class names", list(names) == self.names)

    def pairs(self, reader: str, pairs):
        """Compares (picture, label) pairs in the set's order."""
        pairs = list(pairs)
        self.checked.append(reader)
        self.expect(reader, "numbers of images", len(pairs) == len(self.images))
        for i, (picture, label) in enumerate(pairs[: len(self.images)]):
            pixels = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
            self.expect(reader, f"pixels of image {i}", np.array_equal(pixels, self.images[i]))
            self.expect(reader, f"label {label} of image {i}", label == self.labels[i])

    def folders(self, reader: str, pairs, names):
        """Compares pairs whose labels number the folders found; the folders' own numbers are ours."""
        numbers = [int(name.split("_")[0]) for name in names]
        self.pairs(reader, ((picture, numbers[label]) for picture, label in pairs))
        self.expect(reader, "numbers of folders", not self.whole or numbers == list(range(len(numbers))))


def image_folder(expected: Set, folder: Path):
    by_folder = load_dataset("imagefolder", data_dir=str(folder), split="train")
    rows = ((row["image"], row["label"]) for row in by_folder)
    expected.folders(f"datasets, {folder.name} as an imagefolder", rows, by_folder.features["label"].names)
    by_card = load_dataset(str(folder), split="train")
    rows = ((row["image"], row["label"]) for row in by_card)
    expected.folders(f"datasets, {folder.name} by its card", rows, by_card.features["label"].names)
    if ImageFolder is not None:
        pictures = ImageFolder(folder / "train")
        expected.folders(f"torchvision, {folder.name}", pictures, pictures.classes)
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    found = sorted(str(path.relative_to(folder)) for path in (folder / "train").rglob("*.png"))
    expected.expect(f"{folder.name}/manifest.jsonl", "files", [line["file"] for line in lines] == found)
    expected.expect(f"{folder.name}/manifest.jsonl", "labels", [line["label"] for line in lines] == expected.labels.tolist())


def exports(expected: Set, folder: Path):
    npz = np.load(folder / "distilled.npz", allow_pickle=False)
    expected.tensors("numpy, distilled.npz", npz["images"], npz["labels"], npz["class_names"].tolist())
    expected.expect("numpy, distilled.npz", "mean and std", np.array_equal(np.float32(npz["mean"]), expected.mean)
                    and np.array_equal(np.float32(npz["std"]), expected.std))

    table = load_dataset("parquet", data_files=str(folder / "train.parquet"), split="train")
    expected.pairs("datasets, train.parquet", ((row["image"], row["label"]) for row in table))
    typed = isinstance(table.features["image"], datasets.Image) and isinstance(table.features["label"], datasets.ClassLabel)
    expected.expect("datasets, train.parquet", "types of columns", typed)
    called = [name.removesuffix(f" ({c['id']})") for name, c in zip(table.features["label"].names, expected.classes)]
    expected.expect("datasets, train.parquet", "class names", called == expected.names)

    shards = sorted(str(path) for path in (folder / "webdataset").glob("train-*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "cls", "json"))
    expected.pairs("webdataset", ((picture, label) for picture, label, _ in samples))
    about = [sample[2]["class_name"] for sample in samples]
    expected.expect("webdataset", "class names", about == [expected.names[label] for label in expected.labels])
    rows = load_dataset(str(folder / "webdataset"), split="train")
    expected.pairs("datasets, webdataset by its card", ((row["png"], row["cls"]) for row in rows))

    image_folder(expected, folder / "imagefolder")
    if torch is None:
        return
    for mmap in (False, True):
        file = torch.load(folder / "distilled.pt", weights_only=True, mmap=mmap)
        reader = f"torch, distilled.pt, mmap={mmap}"
        expected.tensors(reader, file["images"].numpy(), file["labels"].numpy(), file["classes"])
    for path in sorted(folder.glob("*.pt")):
        if path.name != "distilled.pt":
            tensor = torch.load(path, weights_only=True).numpy()
            shape = (3, 1, 1)
            normal = (expected.images / np.float32(255) - expected.mean.reshape(shape)) / expected.std.reshape(shape)
            expected.checked.append(f"torch, {path.name}")
            expected.expect(f"torch, {path.name}", "values", tensor.dtype == np.float32 and np.abs(tensor - normal).max() < 1e-6)


def main(arguments: list[str]) -> int:
    expected = Set(Path(arguments[0]))
    image_folder(expected, Path(arguments[0]))
    if len(arguments) > 1:
        exports(expected, Path(arguments[1]))
    packages = ["numpy", "datasets", "webdataset"]
    for package, module in (("torch", torch), ("torchvision", ImageFolder)):
        if module is None:
            print(f"{package} is not installed: its checks were skipped")
        else:
            packages.append(package)
    print(", ".join(f"{package} {version(package)}" for package in packages))
    for reader in expected.checked:
        print(f"read by {reader}")
    for problem in expected.problems[:20]:
        print(problem, file=sys.stderr)
    print(f"{len(expected.images)} images, {len(expected.names)} classes: {len(expected.problems)} problems")
    return 1 if expected.problems else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
