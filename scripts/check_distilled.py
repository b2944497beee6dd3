#!/usr/bin/env python3
"""Checks that a distilled folder means the same to every reader.

    python scripts/check_distilled.py FOLDER

Opens it with Hugging Face's datasets (as an image folder and by its card), torchvision's ImageFolder and safetensors, and
compares labels and pixels image by image. Needs: pip install datasets torch torchvision safetensors pillow
"""

import json
import sys
from pathlib import Path

import numpy as np
from datasets import load_dataset
from safetensors import safe_open
from torchvision.datasets import ImageFolder


def main(folder: Path) -> int:
    with safe_open(folder / "distilled.safetensors", "np") as file:
        images = file.get_tensor("images").transpose(0, 2, 3, 1)
        labels = file.get_tensor("labels")
        header = json.loads(file.metadata()["distill"])
    whole = len(set(labels.tolist())) == len(header["classes"])
    problems = []

    def compare(reader: str, pairs, names, numbers_are_ours: bool):
        pairs = list(pairs)
        if len(pairs) != len(images):
            problems.append(f"{reader}: {len(pairs)} images, expected {len(images)}")
            return
        for i, (image, label) in enumerate(pairs):
            if not np.array_equal(np.asarray(image.convert("RGB")), images[i]):
                problems.append(f"{reader}: the pixels of image {i} differ")
            if int(names[label].split("_")[0]) != labels[i]:
                problems.append(f"{reader}: image {i} is in class {names[label]}, expected label {labels[i]}")
            if numbers_are_ours and label != labels[i]:
                problems.append(f"{reader}: image {i} has number {label}, expected {labels[i]}")

    by_folder = load_dataset("imagefolder", data_dir=str(folder), split="train")
    compare("datasets, imagefolder", ((r["image"], r["label"]) for r in by_folder), by_folder.features["label"].names, whole)
    by_card = load_dataset(str(folder), split="train")
    compare("datasets, by the card", ((r["image"], r["label"]) for r in by_card), by_card.features["label"].names, whole)
    torchvision = ImageFolder(folder / "train")
    compare("torchvision", torchvision, torchvision.classes, whole)

    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    if [Path(line["file"]) for line in manifest] != [Path(path).relative_to(folder) for path, _ in torchvision.samples]:
        problems.append("manifest.jsonl: its files are not those of train/, in their order")
    if [line["label"] for line in manifest] != labels.tolist():
        problems.append("manifest.jsonl: its labels differ from the tensor file's")

    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    print(f"{len(images)} images, {len(header['classes'])} classes: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
