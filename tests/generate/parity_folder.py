"""Writes one parity case: a folder with case.json, config.json, weights and tensors.safetensors."""

import json
import shutil
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from safetensors.numpy import save_file

EXACT = {"atol": 0.0, "rtol": 0.0}
FORWARD = {"atol": 1e-5, "rtol": 0.0}
GRADIENTS = {"atol": 1e-5, "rtol": 1e-4}
PIXELS = {"atol": 1e-6, "rtol": 0.0}


def generator():
    """The versions behind a case, without local build tags such as `+cpu`; of what is installed."""
    versions = {}
    for name in ("transformers", "torch", "tensorflow", "numpy", "pillow"):
        try:
            versions[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            pass
    return versions


def write_case(
    out, name, kind, tensors, tolerance, config=None, weights=None, layout="hf", numerics="torch", **fields
):
    """Writes the folder `out/name`; `weights` is a dict of tensors by the names of `layout`, or a function that
    writes a file of them into the folder and returns its name.

    `tensors` holds `input.*` and `expected.*`: torch or NumPy arrays in the type they are to have.
    """
    folder = out / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    case = {"kind": kind, "numerics": numerics}
    if callable(weights):
        case.update(layout=layout, weights=weights(folder))
    elif weights is not None:
        case.update(layout=layout, weights="model.safetensors")
        save_file(arrays(weights), folder / "model.safetensors", metadata={"format": "pt"})
    case.update(tolerance=tolerance, **fields)
    case["generator"] = generator()
    if config is not None:
        write_json(folder / "config.json", config)
    write_json(folder / "case.json", case)
    save_file(arrays(tensors), folder / "tensors.safetensors")
    return folder


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def config_json(config, architecture):
    """What `save_pretrained` would write as config.json."""
    fields = config.to_diff_dict()
    return {"architectures": [architecture], **{k: v for k, v in fields.items() if k != "architectures"}}


def arrays(tensors):
    """Contiguous NumPy arrays; refuses NaN, which would make a case that nothing can pass."""
    result = {}
    for name, value in tensors.items():
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        assert np.isfinite(array).all(), f"{name} is not finite"
        # np.ascontiguousarray would turn a scalar into a vector.
        result[name] = np.array(array, order="C", copy=True)
    return result
