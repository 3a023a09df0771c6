"""Writes the parity cases of transformers 5.23.0.

    python parity5.py OUT_DIR LATER_DIR          (packages: requirements-parity5.txt)

OUT_DIR gets the numbers of 5.23.0, with weights under the names of 4.x and in 5.x's own two layouts. LATER_DIR gets
the activations that 4.57.6 lacks, which this project does not have yet.
"""

import re
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from parity_folder import FORWARD, GRADIENTS, config_json, write_case
from parity_model import (
    NARROW, SMALL, TINY, pixels, random_weights, reference, run_pretraining, uniform_noise,
)

# Names of 5.x in memory to names of 4.x.
RENAMES = [
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]


def old_name(name):
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def saved(model):
    """The tensors as 5.x's `save_pretrained` lays them out."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def case(out, name, seed, size, layout="hf", image=None, gradients=False, **fields):
    kind = "gradients" if gradients else "pretraining"
    tolerance = GRADIENTS if gradients else FORWARD
    config = ViTMAEConfig(**{**size, **fields})
    model = ViTMAEForPreTraining._from_config(config, attn_implementation="eager")
    random_weights(model, seed, names=old_name)
    height, width = image or (config.image_size, config.image_size)
    patches = (height // config.patch_size) * (width // config.patch_size)
    x, noise = pixels(seed, (2, config.num_channels, height, width)), uniform_noise(seed, (2, patches))
    run = run_pretraining(x, noise, image is not None, gradients, config.mask_ratio, old_name)
    expected = reference(f"{kind}-{name}", model, run, tolerance)
    weights = {
        "hf": lambda: {old_name(key): value for key, value in model.state_dict().items()},
        "hf5": lambda: saved(model),
        "hf5-memory": model.state_dict,
    }[layout]()
    interpolation = dict(interpolate_pos_encoding=True, interpolation="hf1d") if image else {}
    write_case(
        out, f"{kind}-{name}", kind, {"input.pixel_values": x, "input.noise": noise, **expected}, tolerance,
        config=config_json(config, "ViTMAEForPreTraining"), weights=weights, layout=layout, **interpolation,
    )


def main(out, later):
    case(out, "v5-small-norm-pix", 401, SMALL, norm_pix_loss=True)
    case(out, "v5-rectangle-24x16", 402, NARROW, image=(24, 16))
    case(out, "v5-act-gelu-fast", 403, TINY, hidden_act="gelu_fast", qkv_bias=False)
    case(out, "v5-narrow", 404, NARROW, gradients=True, norm_pix_loss=True)
    case(out, "v5-saved", 405, NARROW, layout="hf5")
    case(out, "v5-memory", 406, NARROW, layout="hf5-memory", norm_pix_loss=True)
    case(out, "v5-saved-no-qkv-bias", 407, TINY, layout="hf5", qkv_bias=False)
    case(later, "v5-act-hardswish", 408, TINY, hidden_act="hardswish")
    case(later, "v5-act-sqrtsoftplus", 409, TINY, hidden_act="sqrtsoftplus")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
