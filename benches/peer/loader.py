"""Times torchvision's pipeline of images for pre-training: decode, RandomResizedCrop, mirror, to a tensor, normalise; one process.

    python loader.py IMAGES [--seconds 10] [--input-size 224]

The peer of `vitmae data bench`, with the same images and work; `cargo xtask bench peers` runs both in turn. Packages:
benches/peer/requirements.txt. Prints one JSON object.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

ENDINGS = {".jpeg", ".jpg", ".png", ".webp"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--input-size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(args.input_size, scale=(0.2, 1.0), interpolation=InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    files = sorted(path for path in args.images.rglob("*") if path.suffix.lower() in ENDINGS)

    def load(path):
        with open(path, "rb") as file:
            return transform(Image.open(file).convert("RGB"))

    load(files[0])
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < args.seconds:
        batch = [load(files[(images + place) % len(files)]) for place in range(16)]
        torch.stack(batch)
        images += len(batch)
    speed = images / (time.perf_counter() - start)
    print(json.dumps({"images_per_second": speed, "images": images}))


main()
