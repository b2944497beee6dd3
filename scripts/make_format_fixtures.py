#!/usr/bin/env python3
"""Writes tests/fixtures/formats/: sets as other programs write them, for `distill import` to read.

Run from the root of the repository: python scripts/make_format_fixtures.py
Needs: pip install torch numpy safetensors datasets webdataset pillow

Six images of 2 x 2 in three classes: the pixel at (image i, channel c, row y, column x) is 40 i + 12 c + 4 y + x + 5.
"""

from pathlib import Path

import datasets
import numpy as np
import torch
import webdataset
from PIL import Image
from safetensors.torch import save_file

FOLDER = Path("tests/fixtures/formats")
NAMES = ["blue jay", "crane", "été"]
LABELS = [0, 0, 1, 1, 2, 2]


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    i, c, y, x = np.indices((6, 3, 2, 2))
    pixels = (40 * i + 12 * c + 4 * y + x + 5).astype(np.uint8)
    tensor, labels = torch.from_numpy(pixels), torch.tensor(LABELS)
    unit = tensor.float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    torch.save(unit, FOLDER / "images_best.pt")
    torch.save(labels, FOLDER / "labels_best.pt")
    torch.save((unit - mean[:, None, None]) / std[:, None, None], FOLDER / "normalized.pt")
    strided = tensor.repeat(2, 1, 1, 1)[6:].contiguous(memory_format=torch.channels_last)
    torch.save({"data": strided[1:], "targets": labels.int()[1:], "classes": NAMES}, FOLDER / "strided.pt")
    torch.save((unit.half(), labels), FOLDER / "half.pt", pickle_protocol=4)
    torch.save({"images": torch.nn.Parameter(unit), "labels": labels}, FOLDER / "parameter.pt", pickle_protocol=5)
    # Learned soft labels, images in no order; and a teacher's, for two views of each image.
    soft = 0.7 * torch.eye(3)[labels] + torch.tensor([0.05, 0.1, 0.15])
    torch.save((unit.flip(0), soft.flip(0)), FOLDER / "soft.pt")
    views = torch.stack([soft, soft.roll(1, 1)], 1).numpy()
    save_file({"images": unit, "labels": labels, "extra": unit[:1].clone()}, FOLDER / "tensors.safetensors")
    names = np.array(NAMES)
    np.savez(FOLDER / "soft_views.npz", images=pixels, labels=np.array(LABELS), soft_labels=views, class_names=names)
    torch.save({"images": pixels, "labels": LABELS}, FOLDER / "numpy.pt")
    accuracies = {"ConvNet": [0.25, np.float64(0.5)]}
    torch.save({"data": [[unit, labels], [1 - unit, labels]], "accs_all_exps": accuracies}, FOLDER / "experiments.pt")

    last = pixels.transpose(0, 2, 3, 1)
    np.savez_compressed(FOLDER / "compressed.npz", x=last, y=np.array(LABELS, np.uint8), class_names=np.array(NAMES))
    np.savez(FOLDER / "objects.npz", images=pixels, labels=np.array(LABELS), class_names=np.array(NAMES, object))

    pictures = [Image.fromarray(image) for image in last]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    table = datasets.Dataset.from_dict({"img": pictures, "label": LABELS}, features=features)
    table.to_parquet(FOLDER / "hub.parquet")
    with webdataset.TarWriter(str(FOLDER / "samples.tar"), mtime=0) as tar:
        for number, (picture, label) in enumerate(zip(pictures, LABELS)):
            tar.write({"__key__": f"birds/{number:04}", "png": picture, "cls": label})


main()
