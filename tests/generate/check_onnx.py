"""Runs what `vitmae export-onnx` writes in ONNX Runtime, on the inputs of parity cases.

    python check_onnx.py CASES RESULT.json

Every case of CASES in Hugging Face's names and with PyTorch's numbers is exported and run: pre-training with removed
patches, encoders, classifiers. Files pass onnx's checker, with shapes inferred, and outputs are compared with the case's
expected values, which the reference wrote. RESULT.json gets the hash of each file and the largest difference of each
output. Stops where a difference is above the case's tolerance. Packages: requirements-onnx.txt.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

COMMAND = ["cargo", "run", "--quiet", "--release", "--package", "vitmae-cli", "--", "export-onnx"]
GRAPHS = {"pretraining": "reconstruction", "encoder": "encoder", "classification": "classifier"}
OUTPUTS = ["last_hidden_state", "logits", "mask", "ids_restore", "loss"]


def exportable(case, config, tensors):
    """Whether the case is one image size, one mask ratio, and something that a graph has."""
    pixels = tensors.get("input.pixel_values")
    if case["kind"] not in GRAPHS or case["numerics"] != "torch" or case["layout"] not in ["hf", "hf-bare"]:
        return False
    if pixels is None or case.get("interpolate_pos_encoding"):
        return False
    ratio = config.get("mask_ratio", 0.75)
    removes = case["kind"] == "classification" or "input.noise" in tensors
    return removes and (case["kind"] != "pretraining" or 0 < ratio < 1)


def run(path, case, tensors):
    """The outputs that a case knows, by name."""
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {"pixel_values": tensors["input.pixel_values"].astype(np.float32)}
    if case["kind"] != "classification":
        inputs["noise"] = tensors["input.noise"].astype(np.float32)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


def main():
    cases, result = Path(sys.argv[1]), Path(sys.argv[2])
    found = {}
    for folder in sorted(cases.iterdir()):
        if not (folder / "case.json").is_file():
            continue
        case = json.loads((folder / "case.json").read_text())
        if case["kind"] not in GRAPHS:
            continue
        config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "tensors.safetensors")
        if not exportable(case, config, tensors):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model.onnx"
            graph = GRAPHS[case["kind"]]
            subprocess.run([*COMMAND, str(folder), "--what", graph, "--out", str(path), "--quiet"],
                           check=True, stdout=subprocess.DEVNULL)
            outputs = run(path, case, tensors)
            differences = {}
            for name in OUTPUTS:
                expected = tensors.get(f"expected.{name}")
                if expected is None or name not in outputs:
                    continue
                value = outputs[name].astype(np.float64)
                assert value.shape == expected.shape, (folder.name, name, value.shape, expected.shape)
                difference = np.abs(value - expected)
                bound = case["tolerance"]["atol"] + case["tolerance"]["rtol"] * np.abs(expected)
                assert (difference <= bound).all(), (folder.name, name, difference.max())
                differences[name] = float(difference.max())
            assert differences, folder.name
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[folder.name] = {"graph": graph, "sha256": digest, "max_abs_error": differences}
            print(folder.name, differences, flush=True)
    assert found
    result.write_text(json.dumps({
        "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__, "cases": found,
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
