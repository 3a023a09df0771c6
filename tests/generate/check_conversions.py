"""Loads every file that `vitmae convert` wrote of one model, in the library that it is for.

    python check_conversions.py ORIGINAL FILES RESULT.json

ORIGINAL is a parity case with the weights under transformers 4's names, FILES holds what `cargo xtask fixtures` had
written of it: folders `hf`, `hf-bare`, `hf5`, `tf-h5`, `tf-safetensors`, `timm` and the file `fb.pth`. Each run adds what its
environment's library says to RESULT.json: missing and unexpected names, and whether every value is equal. Run it
with transformers 4.57.6 and PyTorch, with 5.23.0, with 4.57.6 and TensorFlow, and, with `--timm` behind the three
arguments, with timm. Stops where anything differs.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

WEIGHTS = {
    "hf": "hf/model.safetensors",
    "hf-bare": "hf-bare/model.safetensors",
    "hf5": "hf5/model.safetensors",
    "fb": "fb.pth",
    "tf-h5": "tf-h5/tf_model.h5",
    "tf-safetensors": "tf-safetensors/model.safetensors",
    "timm": "timm/model.safetensors",
}


def in_pytorch(files, original):
    """Targets that PyTorch's classes of this version read: names and values against the original's."""
    import transformers
    from transformers import ViTMAEForPreTraining, ViTMAEModel

    def old_names(model):
        sys.path.insert(0, str(Path(__file__).parent))
        from parity5 import old_name
        return {old_name(name): value.numpy() for name, value in model.state_dict().items()}

    targets = {"hf": ViTMAEForPreTraining, "hf-bare": ViTMAEModel}
    if transformers.__version__.startswith("5"):
        targets["hf5"] = ViTMAEForPreTraining
    found = {}
    for target, of_class in targets.items():
        model, info = of_class.from_pretrained(files / target, output_loading_info=True)
        bare = target == "hf-bare"
        values = old_names(model)
        if bare:
            values = {f"vit.{name.replace('layers.', 'encoder.layer.', 1) if name.startswith('layers.') else name}": value
                      for name, value in values.items()}
        expected = {name: value for name, value in original.items() if not bare or name.startswith("vit.")}
        found[target] = report(info, values, expected)
    return found


def original_pth(files, original):
    """The original's file: its own set of names, and the joined query, key and value."""
    import torch
    from parity_layouts import original as original_names

    state = torch.load(files / "fb.pth", weights_only=True)
    assert list(state) == ["model"]
    values = {name: value.numpy() for name, value in state["model"].items()}
    expected = {
        name: value.numpy()
        for name, value in original_names({k: torch.from_numpy(v) for k, v in original.items()}).items()
    }
    info = {"missing_keys": expected.keys() - values.keys(), "unexpected_keys": values.keys() - expected.keys()}
    encoder = {name: value for name, value in expected.items() if not name.startswith(("decoder", "mask_token"))}
    timm = load_file(files / "timm/model.safetensors")
    timm_info = {"missing_keys": encoder.keys() - timm.keys(), "unexpected_keys": timm.keys() - encoder.keys()}
    return {"fb": report(info, values, expected), "timm": report(timm_info, timm, encoder)}


def in_timm(files, original):
    """timm's `VisionTransformer` of the same sizes without a head, loaded by its own function for files; and that it computes
    what transformers' encoder computes, so that no tensor is in another's place."""
    import timm
    import torch
    from timm.models import VisionTransformer, load_checkpoint

    config = json.loads((files / "timm/config.json").read_text())
    model = VisionTransformer(
        img_size=config["image_size"], patch_size=config["patch_size"], embed_dim=config["hidden_size"],
        depth=config["num_hidden_layers"], num_heads=config["num_attention_heads"],
        mlp_ratio=config["intermediate_size"] / config["hidden_size"], num_classes=0, global_pool="token",
    )
    names = load_checkpoint(model, str(files / "timm/model.safetensors"), strict=False)
    info = {"missing_keys": names.missing_keys, "unexpected_keys": names.unexpected_keys}
    stored = load_file(files / "timm/model.safetensors")
    values = {name: value.numpy() for name, value in model.state_dict().items()}
    found = report(info, values, stored)

    from transformers import ViTMAEConfig, ViTMAEModel
    encoder = ViTMAEModel(ViTMAEConfig(**{**config, "mask_ratio": 0.0}))
    encoder.load_state_dict(
        {name.removeprefix("vit."): torch.from_numpy(v) for name, v in original.items() if name.startswith("vit.")}
    )
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)):
        norm.eps = config["layer_norm_eps"]
    side = config["image_size"]
    pixels = torch.from_numpy(np.random.default_rng(7).standard_normal((2, 3, side, side), dtype=np.float32))
    with torch.no_grad():
        tokens = model.eval().forward_features(pixels)
        # The order of the patches is the noise's.
        noise = torch.arange(tokens.shape[1] - 1).repeat(2, 1) / tokens.shape[1]
        expected = encoder.eval()(pixels, noise=noise).last_hidden_state
    difference = (tokens - expected).abs().max().item()
    assert difference < 1e-5, difference
    return {"timm": found}, f"timm {timm.__version__}"


def in_tensorflow(files, original):
    """The TensorFlow classes; their variables in PyTorch's order of axes."""
    from parity_tf import to_torch, torch_name
    from transformers import TFViTMAEForPreTraining

    found = {}
    for target in ("tf-h5", "tf-safetensors"):
        model, info = TFViTMAEForPreTraining.from_pretrained(files / target, output_loading_info=True)
        values = {torch_name(v): to_torch(v, v.numpy()) for v in model.weights}
        found[target] = report(info, values, original)
    return found


def report(info, values, expected):
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    equal = values.keys() == expected.keys() and all(np.array_equal(values[n], expected[n]) for n in expected)
    assert not missing and not unexpected and equal, (missing, unexpected, values.keys() ^ expected.keys())
    return {"tensors": len(expected), "missing": missing, "unexpected": unexpected, "equal": equal}


def of_this_environment(files, expected):
    """What the library installed here says, and which it is."""
    import transformers
    try:
        import tensorflow
        library = f"transformers {transformers.__version__}, tensorflow {tensorflow.__version__}"
        return in_tensorflow(files, expected), library
    except ImportError:
        import torch
        library = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
        found = in_pytorch(files, expected)
        if transformers.__version__.startswith("4"):
            found |= original_pth(files, expected)
        return found, library


def main(original, files, result, *which):
    expected = load_file(original / "model.safetensors")
    found, library = (in_timm if which else of_this_environment)(files, expected)
    known = json.loads(result.read_text()) if result.exists() else {}
    known["sha256"] = {t: hashlib.sha256((files / name).read_bytes()).hexdigest() for t, name in WEIGHTS.items()}
    known.setdefault("loaded", {})[library] = found
    result.write_text(json.dumps(known, indent=2) + "\n")
    print(f"{library}: {', '.join(found)}")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]), *sys.argv[4:])
