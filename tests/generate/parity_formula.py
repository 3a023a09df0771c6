"""Cases of kind `pretraining-hash`: whole published sizes, weights and inputs by formula, nothing stored."""

import numpy as np
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from parity_folder import FORWARD, config_json, write_case
from parity_model import reference, sincos_table

BASE = {}
# Huge's patches of 14, grid of 16 x 16 and head width of 80, in little.
PATCH_14 = dict(
    hidden_size=160, num_hidden_layers=2, num_attention_heads=2, intermediate_size=320, patch_size=14,
    decoder_hidden_size=64, decoder_num_hidden_layers=2, decoder_num_attention_heads=2, decoder_intermediate_size=128,
)
LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)


def fnv1a64(text):
    hash = 14695981039346656037
    for byte in text.encode():
        hash = ((hash ^ byte) * 1099511628211) % 2**64
    return hash


def uniform(name, count):
    """Elements 0..count of the tensor called `name`, uniform in [0, 1), in f64."""
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(fnv1a64(name))
        z += np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53


def weight(name, shape):
    if name.endswith(("position_embeddings", "decoder_pos_embed")):
        side = int((shape[1] - 1) ** 0.5)
        return sincos_table(shape[2], side, side)
    norms = ("layernorm_before", "layernorm_after", "layernorm", "decoder_norm")
    layer, _, last = name.rpartition(".")
    centre = 1.0 if last == "weight" and layer.split(".")[-1] in norms else 0.0
    return (centre + 0.04 * (2 * uniform(name, int(np.prod(shape))) - 1)).astype(np.float32).reshape(shape)


def tensor(name, shape, scale, shift):
    values = scale * uniform(name, int(np.prod(shape))) + shift
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def check_formula():
    name = "vit.embeddings.cls_token"
    assert fnv1a64(name) == 0x4A1A73B6B027F61C
    expected = np.array([0.037671588, -0.034741483, -0.022953408], np.float32)
    assert (weight(name, (1, 1, 3)).ravel() == expected).all()


def formula(out, name, size, batch, **fields):
    config = ViTMAEConfig(**{**size, **fields})
    # On the meta device first: no time is spent on an initialisation that is thrown away.
    with torch.device("meta"):
        model = ViTMAEForPreTraining._from_config(config, attn_implementation="eager")
    model.to_empty(device="cpu")
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weight(own, tuple(parameter.shape))))
    # 2·(2u − 1) and u
    x = tensor("input.pixel_values", (batch, config.num_channels, config.image_size, config.image_size), 4.0, -2.0)
    noise = tensor("input.noise", (batch, (config.image_size // config.patch_size) ** 2), 1.0, 0.0)

    def run(model):
        x_own = x.to(next(model.parameters()).dtype)
        with torch.no_grad():
            out = model.eval()(x_own, noise=noise)
            hidden = model.vit(x_own, noise=noise).last_hidden_state
        return {
            "expected.loss": out.loss, "expected.logits_slice": out.logits[:, :4, :8],
            "expected.hidden_slice": hidden[:, :4, :8],
        }

    expected = reference(f"pretraining-hash-{name}", model, run, FORWARD)
    write_case(
        out, f"pretraining-hash-{name}", "pretraining-hash", expected, FORWARD,
        config=config_json(config, "ViTMAEForPreTraining"), batch=batch,
    )


def write_formula(out):
    check_formula()
    formula(out, "base", BASE, 2)
    formula(out, "base-norm-pix", BASE, 1, norm_pix_loss=True, layer_norm_eps=1e-6)
    formula(out, "large", LARGE, 1)
    formula(out, "patch-14", PATCH_14, 2, mask_ratio=0.9)
