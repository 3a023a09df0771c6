"""Writes small labelled sets in the forms that vitmae-trainer reads, by the libraries that people write them with.

    python sets.py OUT_DIR          (packages: requirements-sets.txt)

The same twelve images in three classes: `folder/CLASS/NN.png`, `shards/set-NNNN.tar` (webdataset), `set.parquet` and `parts/`
(datasets: image and ClassLabel, small row groups, Snappy; `parts` in two files, Zstandard, texts as labels), `cifar/` and `idx/` (the
formats' own descriptions, by NumPy, of 32×32 and 5×4 pixels).
"""

import gzip
import io
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import webdataset
from PIL import Image

CLASSES = ["zebra", "ant", "mole"]
COUNT = 12


def pixels(index, height, width):
    random = np.random.default_rng(index)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(index):
    out = io.BytesIO()
    Image.fromarray(pixels(index, 6 + index % 3, 7)).save(out, "PNG")
    return out.getvalue()


def folder(out):
    for index in range(COUNT):
        path = out / CLASSES[index % 3] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(index))


def shards(out):
    out.mkdir()
    with webdataset.ShardWriter(f"{out}/set-%04d.tar", maxcount=7, mtime=0, verbose=0) as writer:
        for index in range(COUNT):
            label = CLASSES[index % 3]
            writer.write({"__key__": f"{index:02}", "png": png(index), "cls": label, "json": {"index": index}})


def parquet(out):
    images = [{"bytes": png(index), "path": f"{index:02}.png"} for index in range(COUNT)]
    labels = [index % 3 for index in range(COUNT)]
    features = datasets.Features(
        {"id": datasets.Value("int64"), "image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    whole = datasets.Dataset.from_dict({"id": list(range(COUNT)), "image": images, "label": labels}, features=features)
    whole.to_parquet(out / "set.parquet", batch_size=5)
    parts = out / "parts" / "data"
    parts.mkdir(parents=True)
    texts = pyarrow.table({"label": [CLASSES[label] for label in labels], "img": [image["bytes"] for image in images]})
    for part, (first, count) in enumerate([(0, 8), (8, 4)]):
        name = parts / f"train-{part:05}-of-00002.parquet"
        pyarrow.parquet.write_table(texts.slice(first, count), name, compression="zstd", row_group_size=3)
    pyarrow.parquet.write_table(texts.slice(0, 2), parts / "test-00000-of-00001.parquet", compression="none")


def cifar(out):
    out.mkdir()
    (out / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    for name, images in [("data_batch_1", range(0, 2)), ("data_batch_2", range(2, 4)), ("test_batch", range(4, 5))]:
        with open(out / f"{name}.bin", "wb") as file:
            for index in images:
                file.write(bytes([index % 3]) + pixels(index, 32, 32).transpose(2, 0, 1).tobytes())


def idx(out):
    out.mkdir()
    grey = np.stack([pixels(index, 5, 4)[:, :, 0] for index in range(3)])
    sizes = np.array([0x803, *grey.shape], ">u4").tobytes()
    labels = np.array([0x801, 3], ">u4").tobytes() + bytes([7, 0, 10])
    (out / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(sizes + grey.tobytes(), mtime=0))
    (out / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, mtime=0))


def main():
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    folder(out / "folder")
    shards(out / "shards")
    parquet(out)
    cifar(out / "cifar")
    idx(out / "idx")


main()
