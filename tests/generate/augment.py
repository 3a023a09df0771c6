"""Writes the fixtures of RandAugment: what timm's operations on Pillow make of given images.

    python augment.py OUT_DIR          (packages: requirements-images.txt, and requirements-timm.txt without dependencies)

`operations.csv`: operation, level from 0 to 10, whether its sign is turned, the image by kind and seed (`pattern` of
images.py), and the hash (FNV-1a, 64 bits) of the result's bytes. Only the file `auto_augment.py` of timm is loaded.
"""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MASK = (1 << 64) - 1
FILL = (124, 116, 104)  # ImageNet's mean, as create_transform gives it


def timm_policies():
    """timm's module of augmentations, without the rest of timm, which asks for torchvision."""
    timm = Path(importlib.util.find_spec("timm").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("auto_augment", timm / "data" / "auto_augment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fnv(data):
    hash = 0xCBF29CE484222325
    for byte in data:
        hash = ((hash ^ byte) * 0x100000001B3) & MASK
    return f"{hash:016x}"


def splitmix(seed, index):
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.asarray(index, np.uint64) + np.uint64(1)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def pattern(kind, seed, width, height):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    if kind == "noise":
        return (splitmix(seed, (y * width + x) * 3 + c) >> np.uint64(56)).astype(np.uint8)
    wave = (x * (1 + seed % 5) + y * (1 + seed // 5 % 7) + c * 85 + seed % 512) % 512
    return np.where(wave < 256, wave, 511 - wave).astype(np.uint8)


def main(out):
    policies = timm_policies()
    parameters = {"img_mean": FILL, "interpolation": Image.BICUBIC, "translate_const": 100}
    images = [("noise", 3, 31, 23), ("smooth", 7, 48, 40), ("smooth", 11, 7, 5), ("noise", 5, 1, 1), ("noise", 8, 2, 9)]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "operations.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow("operation level turned kind seed width height hash".split())
        for name in policies._RAND_INCREASING_TRANSFORMS:
            for level in (0.0, 0.7, 3.3, 5.0, 8.61, 9.0, 10.0):
                if name == "PosterizeIncreasing" and level == 10.0:
                    continue  # 0 bits: black before, an error since Pillow 12
                for turned in (0, 1):
                    # timm turns the sign where its draw is above one half.
                    policies.random.random = lambda: 0.9 if turned else 0.1
                    operation = policies.AugmentOp(name, 1.0, level, parameters)
                    for kind, seed, width, height in images:
                        image = Image.fromarray(pattern(kind, seed, width, height))
                        result = fnv(operation(image).tobytes())
                        rows.writerow([name, level, turned, kind, seed, width, height, result])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python augment.py OUT_DIR")
    main(Path(sys.argv[1]))
