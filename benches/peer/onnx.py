"""Times the encoder on all patches (features) in ONNX Runtime or OpenVINO, on the graph that `vitmae export-onnx` writes.

    python onnx.py [--runtime onnxruntime] [--precision f32] [--batch-size 8] [--steps 5] [--threads 2]

The peer of `vitmae bench --task features`; `cargo xtask bench peers` runs both in turn. The model is transformers' ViTMAE of the
base size with its first values; the graph has a fixed batch. bf16 is OpenVINO's hint. Prints one JSON object as
pytorch.py does. Packages: benches/peer/requirements.txt. Needs target/release/vitmae.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def graph(folder, batch_size):
    """Writes the graph in a process of its own, whose memory does not count."""
    make = (
        "import sys; from transformers import ViTMAEConfig, ViTMAEForPreTraining; "
        "ViTMAEForPreTraining(ViTMAEConfig()).save_pretrained(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", make, str(folder)], check=True, stdout=subprocess.DEVNULL)
    path = folder / "features.onnx"
    export = ["target/release/vitmae", "export-onnx", str(folder), "--what=features", "--quiet"]
    subprocess.run([*export, f"--batch-size={batch_size}", f"--out={path}"], check=True, stdout=subprocess.DEVNULL)
    return path


def onnxruntime_session(path, args):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return (lambda pixels: session.run(["last_hidden_state"], {"pixel_values": pixels})), onnxruntime.__version__


def openvino_session(path, args):
    import openvino

    core = openvino.Core()
    precision = {"f32": "f32", "bf16": "bf16"}[args.precision]
    hints = {"INFERENCE_NUM_THREADS": args.threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(str(path), "CPU", hints).create_infer_request()
    return (lambda pixels: request.infer({"pixel_values": pixels})), openvino.__version__


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", choices=["onnxruntime", "openvino"], default="onnxruntime")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.runtime == "onnxruntime" and args.precision == "bf16":
        parser.error("ONNX Runtime has no bf16 on a CPU")
    with tempfile.TemporaryDirectory() as temporary:
        path = graph(Path(temporary), args.batch_size)
        session = {"onnxruntime": onnxruntime_session, "openvino": openvino_session}[args.runtime]
        run, version = session(path, args)
        pixels = np.random.default_rng(0).standard_normal((args.batch_size, 3, 224, 224)).astype(np.float32)
        for _ in range(2):
            run(pixels)
        times = []
        for _ in range(args.steps):
            start = time.perf_counter()
            run(pixels)
            times.append(time.perf_counter() - start)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    median = statistics.median(times)
    print(json.dumps({
        "runtime": args.runtime, "version": version, "task": "features", "precision": args.precision,
        "batch_size": args.batch_size, "threads": args.threads, "steps": args.steps,
        "ms_per_image": 1e3 * median / args.batch_size,
        "ms_per_image_best": 1e3 * min(times) / args.batch_size,
        "images_per_second": args.batch_size / median,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "machine": platform.machine(),
    }))


if __name__ == "__main__":
    main()
