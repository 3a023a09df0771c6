"""Writes the files from which fuzzing starts, fuzz/seeds: small, one for each way that a format can be written.

    python seeds.py fuzz/seeds

Each run writes the formats whose libraries its environment has: PyTorch 2.15 with safetensors 0.8 for one, h5py for the
other (TensorFlow's environment of `cargo xtask fixtures`). The JSON files are those of parity cases.
"""

import argparse
import gzip
import io
import json
import shutil
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np

CASES = Path(__file__).parent.parent / "fixtures/parity"
SETS = Path(__file__).parent.parent / "fixtures/sets"


def values(*shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) / 8


def from_torch(out):
    import torch
    from safetensors.torch import save_file

    tensors = {
        "vit.embeddings.cls_token": torch.from_numpy(values(1, 1, 4)),
        "vit.layernorm.weight": torch.from_numpy(values(4)),
        "decoder.mask_token": torch.from_numpy(values(1, 1, 2)),
    }
    (out / "safetensors").mkdir(exist_ok=True)
    save_file(tensors, out / "safetensors/f32.safetensors", {"format": "pt"})
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64):
        name = str(dtype).removeprefix("torch.")
        save_file({"x": torch.zeros(2, 3).to(dtype), "empty": torch.zeros(0, 4)}, out / f"safetensors/{name}.safetensors")

    folder = out / "torch"
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "state-dict.bin")
    base = torch.from_numpy(values(4, 6))
    views = {"transposed": base.t(), "column": base[:, 2], "half": base.half(), "bf16": base.bfloat16(), "double": base.double()}
    torch.save(views, folder / "views.bin")
    torch.save({"w": torch.nn.Parameter(base), "n": torch.tensor(3)}, folder / "parameter.bin")
    args = argparse.Namespace(lr=0.5, norm_pix_loss=True, model="mae", none=None, betas=(0.9, 0.95))
    checkpoint = {"model": tensors, "epoch": 3, "args": args, "scaler": {"scale": 65536.0},
                  "optimizer": {"state": {0: {"step": 1, "exp_avg": base}}, "param_groups": [{"params": [0]}]}}
    torch.save(checkpoint, folder / "checkpoint.pth")
    (out / "pickle").mkdir(exist_ok=True)
    for path in folder.iterdir():
        program = zipfile.ZipFile(path).read(f"{path.stem}/data.pkl")
        (out / f"pickle/{path.stem}.pkl").write_bytes(program)


def from_h5py(out):
    import h5py

    folder = out / "hdf5"
    folder.mkdir(exist_ok=True)
    for version in ("earliest", "latest"):
        with h5py.File(folder / f"{version}.h5", "w", libver=version) as file:
            file.attrs["backend"] = "tensorflow"
            file.attrs["keras_version"] = "2.19.0"
            file.attrs["layer_names"] = [b"vit", b"decoder"]
            for layer, name, shape in (("vit", "vit/embeddings/cls_token:0", (1, 1, 4)), ("decoder", "decoder/mask_token:0", (1, 1, 2))):
                group = file.create_group(layer)
                group.attrs["weight_names"] = [f"m/{name}".encode()]
                group[f"m/{name}"] = values(*shape)
        with h5py.File(folder / f"chunks-{version}.h5", "w", libver=version) as file:
            options = {"chunks": (4, 4)}
            file.create_dataset("vit/plain", data=values(6, 6), **options)
            file.create_dataset("vit/zipped", data=values(6, 6), compression="gzip", shuffle=True, fletcher32=True, **options)
            file.create_dataset("vit/szip", data=values(6, 6), scaleoffset=3, **options)
            file.create_dataset("vit/growing", data=values(6, 6), maxshape=(None, None), **options)
            file.create_dataset("vit/half", data=values(3).astype(np.float16))
            file.create_dataset("vit/unstored", shape=(3, 3), dtype="f4")
    # What claims more than it holds: 8 MiB of zeros in one packed chunk, and 1 GiB that was never written.
    with h5py.File(folder / "bomb.h5", "w") as file:
        file.create_dataset("vit/x", data=np.zeros(2 << 20, np.float32), chunks=(2 << 20,), compression="gzip", compression_opts=9)
    for name, options in (("unstored", {}), ("unstored-chunks", {"chunks": (1 << 20,)})):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("vit/x", shape=(1 << 28,), dtype="f4", fillvalue=1.0, **options)


def json_files(out):
    for folder, name in (("config", "config.json"), ("processor", "preprocessor_config.json")):
        (out / folder).mkdir(exist_ok=True)
        known = set()
        for path in sorted(CASES.glob(f"*/{name}")):
            keys = frozenset(json.loads(path.read_text()))
            if keys not in known:
                known.add(keys)
                shutil.copy(path, out / folder / f"{path.parent.name}.json")
    (out / "shards").mkdir(exist_ok=True)
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weights = {"vit.embeddings.cls_token": shards[0], "vit.layernorm.weight": shards[0], "decoder.mask_token": shards[1]}
    index = {"metadata": {"total_size": 40}, "weight_map": weights}
    (out / "shards/index.json").write_text(json.dumps(index, indent=2) + "\n")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def packed_set(images, classes):
    """A packed set by its description in crates/vitmae-trainer/src/data/packed.rs; images are (name, width, height, class)."""
    magic = b"VMPACK1\n"
    data, index = magic, b""
    for name, width, height, label in images:
        content = name.encode() + bytes(7 * i % 256 for i in range(width * height * 3))
        index += struct.pack("<Q6I", len(data), len(name), width, height, 3, label, crc32c(content))
        data += content
    about = json.dumps({"images": len(images), "classes": classes, "source": "seeds"}).encode()
    return data + index + about + struct.pack("<QII", len(data), len(about), crc32c(index + about)) + magic


def image_sets(out):
    images = [(SETS / "folder" / path).read_bytes() for path in ("ant/01.png", "zebra/00.png")]
    for name, form in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        (out / "tar").mkdir(exist_ok=True)
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            # Names above 100 bytes are where the forms differ.
            for member, data in (("a/1.png", images[0]), ("a/1.cls", b"ant"), ("b/" + "n" * 120 + "/2.png", images[1])):
                about = tarfile.TarInfo(member)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
            end = tar.offset
        # Without most of the zeros that fill the last record.
        (out / f"tar/{name}.tar").write_bytes(file.getvalue()[: end + 1024])
    pixels = struct.pack(">4I", 0x803, 2, 2, 3) + bytes(range(0, 240, 20))
    labels = struct.pack(">2I", 0x801, 2) + bytes([9, 4])
    for folder in ("idx", "idx-gz", "cifar", "packed"):
        (out / folder).mkdir(exist_ok=True)
    (out / "idx/images").write_bytes(pixels)
    (out / "idx/labels").write_bytes(labels)
    (out / "idx-gz/images").write_bytes(pixels)
    (out / "idx-gz/images.gz").write_bytes(gzip.compress(pixels, mtime=0))
    planes = bytes(i % 251 for i in range(3072))
    (out / "cifar/ten.bin").write_bytes(b"\3" + planes + b"\7" + planes)
    (out / "cifar/hundred.bin").write_bytes(b"\3\x63" + planes)
    none = 0xFFFFFFFF
    (out / "packed/set.vmpack").write_bytes(packed_set([("a", 3, 2, 0), ("bb", 2, 2, none), ("", 1, 1, 1)], ["x", "y"]))


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    json_files(out)
    image_sets(out)
    for write in (from_torch, from_h5py):
        try:
            write(out)
        except ImportError as error:
            print(f"left out: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
