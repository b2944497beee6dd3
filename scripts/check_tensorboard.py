#!/usr/bin/env python3
"""Reads the event files of runs with TensorBoard's own reader and compares them with metrics.jsonl and the pictures:
check_tensorboard.py RUN... (needs the packages tensorboard and numpy)."""
import json, pathlib, sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

for run in map(pathlib.Path, sys.argv[1:]):
    for folder in sorted((run / "tensorboard").iterdir()):
        files = list(folder.iterdir())
        assert len(files) == 1, f"{folder}: {len(files)} files, expected one"
        reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
        reader.Reload()
        expected = {}
        for line in map(json.loads, open(run / folder.name / "metrics.jsonl")):
            step = line.pop("step")
            for name, value in line.items():
                if value is not None:
                    expected.setdefault(name, []).append((step, float(np.float32(value))))
        found = {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
        assert found == expected, f"{folder}: its scalars are not those of metrics.jsonl"
        times = [e.wall_time for tag in found for e in reader.Scalars(tag)]
        assert min(times) > 1.5e9, f"{folder}: an event has no time"
        pictures = {int(p.stem.split("-")[1]): p.read_bytes() for p in (run / "samples").glob(f"{folder.name}-*.png")}
        images = [(e.step, e.encoded_image_string) for e in reader.Images("samples")]
        assert images == sorted(pictures.items()), f"{folder}: its images are not those of samples/"
        print(f"{folder}: {sum(map(len, found.values()))} scalars of {len(found)} tags and {len(images)} images as written")
