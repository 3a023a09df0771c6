"""Writes the fixture of mixup, CutMix, label smoothing, random erasing and random crops: timm's and torchvision's results for given draws.

    python mixing.py OUT_DIR          (packages: requirements-parity.txt, and requirements-timm.txt without dependencies)

Every generator that they ask is replaced by a list of uniform numbers, so that parameters are the same on both sides: `uniform(a, b)`
is a + (b - a) u, `randint` below n is the integer part of u n, a value of Beta is given. `mixing.json`:

- `mix`: pixels and labels of a batch, λ and the uniforms behind it, and the pixels and targets that `Mixup` makes in batch mode.
  Pixel i of the batch is sin(0.37 i).
- `erase`: sizes, uniforms, and the rectangle that `RandomErasing` fills in mode `pixel`, or none.
- `crop`: sizes, scales, uniforms, and the rectangle of torchvision's `RandomResizedCrop.get_params`.
"""

import importlib.util
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import RandomResizedCrop

UNIFORMS = np.random.RandomState(7)


def timm_module(name):
    """A module of timm's data package, without the rest of timm."""
    timm = Path(importlib.util.find_spec("timm").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(name, timm / "data" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Draws:
    """Uniform numbers, of which the first `used` were asked for. In halves of 2⁻²⁰ they are exact in f32."""

    def __init__(self, count=40):
        self.all = (UNIFORMS.randint(0, 1 << 20, count) / float(1 << 20)).tolist()
        self.used = 0

    def next(self):
        self.used += 1
        return self.all[self.used - 1]

    def taken(self):
        return self.all[: self.used]


def mix(module):
    cases = []
    np_random = np.random.rand, np.random.beta, np.random.randint
    plans = [("mixup", 4, 0.1, lam) for lam in (0.0, 0.25, 0.7, 1.0)]
    plans += [("cutmix", batch, smoothing, lam)
              for batch, smoothing, lam in [(4, 0.1, 0.0), (4, 0.0, 0.3), (2, 0.2, 0.5), (6, 0.1, 0.85), (4, 0.1, 1.0), (4, 0.1, 0.6)]]
    for kind, batch, smoothing, lam in plans:
        draws = Draws()
        np.random.beta = lambda a, b: lam
        np.random.randint = lambda low, high, size=None: low + int(draws.next() * (high - low))
        np.random.rand = lambda: 0.0
        alphas = {"mixup_alpha": 0.8, "cutmix_alpha": 0.0} if kind == "mixup" else {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}
        mixer = module.Mixup(**alphas, prob=1.0, label_smoothing=smoothing, num_classes=5)
        pixels = torch.sin(0.37 * torch.arange(batch * 2 * 7 * 5, dtype=torch.float64)).float().reshape(batch, 2, 7, 5)
        labels = torch.tensor([int(label) for label in UNIFORMS.randint(0, 5, batch)])
        mixed, targets = mixer(pixels.clone(), labels)
        cases.append({
            "kind": kind, "shape": list(pixels.shape), "labels": labels.tolist(), "classes": 5, "smoothing": smoothing,
            "lambda": lam, "draws": draws.taken(), "pixels": mixed.flatten().tolist(), "targets": targets.flatten().tolist(),
        })
    np.random.rand, np.random.beta, np.random.randint = np_random
    return cases


def erase(module):
    cases = []
    kept = random.random, random.uniform, random.randint
    for height, width in [(224, 224), (32, 32), (16, 40), (5, 9), (2, 64)] * 6:
        draws = Draws()
        random.random = draws.next
        random.uniform = lambda a, b: a + (b - a) * draws.next()
        random.randint = lambda a, b: a + int(draws.next() * (b - a + 1))
        image = torch.full((3, height, width), 9.0)
        module.RandomErasing(probability=0.75, mode="pixel", device="cpu")(image)
        rows, columns = (image[0] != 9.0).any(1).nonzero().flatten(), (image[0] != 9.0).any(0).nonzero().flatten()
        area = None
        if len(rows):
            area = [int(rows[0]), int(columns[0]), len(rows), len(columns)]
            top, left, h, w = area
            assert (image[:, top : top + h, left : left + w] != 9.0).all() and (image != 9.0).sum() == 3 * h * w
        cases.append({"height": height, "width": width, "draws": draws.taken(), "area": area})
    random.random, random.uniform, random.randint = kept
    assert {case["area"] is None for case in cases} == {True, False}
    return cases


def crop():
    cases = []
    kept = torch.Tensor.uniform_, torch.randint
    sizes = [((375, 500), (0.2, 1.0)), ((64, 20), (0.2, 1.0)), ((30, 40), (0.08, 1.0)), ((300, 40), (0.9, 1.0)), ((7, 5), (0.2, 1.0))]
    for (height, width), scale in sizes * 6:
        draws = Draws()
        torch.Tensor.uniform_ = lambda self, a, b: self.fill_(float(a) + (float(b) - float(a)) * draws.next())
        torch.randint = lambda low, high, size: torch.tensor([low + int(draws.next() * (high - low))])
        top, left, h, w = RandomResizedCrop.get_params(torch.empty(3, height, width), scale, (3 / 4, 4 / 3))
        cases.append({"height": height, "width": width, "scale": scale, "draws": draws.taken(), "area": [top, left, h, w]})
    torch.Tensor.uniform_, torch.randint = kept
    # Some are the central crop that twenty draws in vain leave.
    assert any(len(case["draws"]) == 20 for case in cases) and any(len(case["draws"]) == 6 for case in cases)
    return cases


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    cases = {"mix": mix(timm_module("mixup")), "erase": erase(timm_module("random_erasing")), "crop": crop()}
    (out / "mixing.json").write_text(json.dumps(cases, indent=1) + "\n")


main(Path(sys.argv[1]))
