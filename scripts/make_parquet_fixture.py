"""Writes tests/fixtures/images.parquet with Hugging Face's `datasets`: six drawn images under CIFAR-100's column names.

    pip install datasets pillow && python scripts/make_parquet_fixture.py
"""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

SIZE = 4


def picture(i):
    """Pixel (y, x) of image i is (40 i, 60 y, 60 x)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return Picture.fromarray(np.stack([np.full_like(y, 40 * i), 60 * y, 60 * x], axis=-1).astype(np.uint8))


columns = {
    "img": [picture(i) for i in range(6)],
    "fine_label": [2, 0, 1, 2, 0, 1],
    "coarse_label": [1, 1, 1, 0, 0, 0],
    "note": ["a", "b", "c", "d", "e", "f"],
}
features = Features(
    {
        "img": Image(),
        "fine_label": ClassLabel(names=["apple", "bear", "train"]),
        "coarse_label": ClassLabel(names=["alive", "made"]),
        "note": Value("string"),
    }
)
Dataset.from_dict(columns, features=features).to_parquet(Path(__file__).parents[1] / "tests/fixtures/images.parquet")
