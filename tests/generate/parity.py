"""Writes the parity cases of transformers 4.57.6.

    python parity.py OUT_DIR          (packages: requirements-parity.txt)

The table of cases is `main`; how a model is filled and run is parity_model.py, how a folder is written
parity_folder.py. Everything is seeded: a second run on the same machine writes the same bytes.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch.nn import functional
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEDecoder

from parity_classification import write_classification
from parity_folder import FORWARD, GRADIENTS, config_json, write_case
from parity_formula import write_formula
from parity_masking import write_masking
from parity_model import (
    NARROW, SMALL, TINY, pixels, random_weights, recorded, reference, run_pretraining, uniform_noise,
)
from parity_processor import write_processor
from parity_training import training

# Every name of ACT2FN that stands for a function without parameters, `gelu` aside: it is the default.
ACTIVATIONS = (
    "gelu_10 gelu_fast gelu_new gelu_python gelu_pytorch_tanh gelu_python_tanh gelu_accurate laplace "
    "leaky_relu linear mish quick_gelu relu relu2 relu6 sigmoid silu swish tanh"
).split()


def build(seed, size, tables="random", stretch=1, **fields):
    """A random model; `stretch` scales what goes into the activations."""
    config = ViTMAEConfig(**{**size, **fields})
    model = ViTMAEForPreTraining._from_config(config, attn_implementation="eager")
    random_weights(model, seed, tables)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("intermediate.dense.weight"):
                parameter.mul_(stretch)
    return model


def inputs(model, seed, batch, image=None):
    config = model.config
    height, width = image or (config.image_size, config.image_size)
    patches = (height // config.patch_size) * (width // config.patch_size)
    x = pixels(seed, (batch, config.num_channels, height, width))
    return x, uniform_noise(seed, (batch, patches))


def grid2d(rows, columns):
    """The decoder's table resampled as the encoder's is, which transformers does not do."""

    def interpolate(decoder, embeddings):
        table = decoder.decoder_pos_embed
        side, width = int((table.shape[1] - 1) ** 0.5), table.shape[2]
        grid = table[:, 1:].reshape(1, side, side, width).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).reshape(1, -1, width)], dim=1)

    return interpolate


def masked_autoencoder(
    out, name, seed, size, batch=2, image=None, interpolation="hf1d", gradients=False, adjust=None, **fields
):
    """A case of kind `pretraining` or `gradients`; `adjust` may change the pixels."""
    kind = "gradients" if gradients else "pretraining"
    tolerance = GRADIENTS if gradients else FORWARD
    model = build(seed, size, **fields)
    x, noise = inputs(model, seed, batch, image)
    if adjust:
        x = adjust(x)
    run = run_pretraining(x, noise, image is not None, gradients, model.config.mask_ratio)
    patched = nullcontext()
    if interpolation == "grid2d":
        grid = grid2d(*(side // model.config.patch_size for side in image))
        patched = mock.patch.object(ViTMAEDecoder, "interpolate_pos_encoding", grid)
    with patched:
        expected = reference(f"{kind}-{name}", model, run, tolerance)
    positions = dict(interpolate_pos_encoding=True, interpolation=interpolation) if image else {}
    write_case(
        out, f"{kind}-{name}", kind,
        {"input.pixel_values": x, "input.noise": noise, **expected}, tolerance,
        config=config_json(model.config, "ViTMAEForPreTraining"), weights=model.state_dict(), **positions,
    )


def flat_patches(x):
    """One patch of one value and one of hardly any contrast, where 1e-6 under the root decides."""
    x = x.clone()
    x[0, :, :4, :4] = 0.5
    x[0, :, :4, 4:8] = 0.25 + 1e-3 * torch.round(x[0, :, :4, 4:8] * 64) / 64
    return x


def write_pretraining(out):
    def case(name, seed, size, **fields):
        masked_autoencoder(out, name, seed, size, **fields)

    case("small", 1, SMALL)
    case("narrow-norm-pix", 2, NARROW, norm_pix_loss=True)
    case("sincos-tables", 3, NARROW, tables="sincos")
    case("one-channel", 4, NARROW, num_channels=1)
    case("one-channel-norm-pix", 5, NARROW, num_channels=1, norm_pix_loss=True)
    case("six-channels", 6, NARROW, num_channels=6)
    case("six-channels-norm-pix", 7, NARROW, num_channels=6, norm_pix_loss=True)
    case("flat-patches-norm-pix", 8, NARROW, norm_pix_loss=True, mask_ratio=0.9, adjust=flat_patches)
    for number, ratio in enumerate((0.0, 0.25, 0.5, 0.9, 1.0)):
        case(f"ratio-{ratio}", 20 + number, TINY, mask_ratio=ratio)
        case(f"ratio-{ratio}-norm-pix", 30 + number, NARROW if ratio == 0.5 else TINY, mask_ratio=ratio, norm_pix_loss=True)
    case("no-qkv-bias", 40, NARROW, qkv_bias=False)
    case("eps-1e-6", 41, TINY, layer_norm_eps=1e-6)
    case("eps-1e-1", 42, TINY, layer_norm_eps=1e-1)
    case("dropout-is-off", 43, TINY, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    case("batch-of-one", 44, TINY, batch=1)
    case("batch-of-five", 45, TINY, batch=5, mask_ratio=0.6)
    case("square-40", 50, SMALL, image=(40, 40))
    case("square-24-norm-pix", 51, NARROW, image=(24, 24), norm_pix_loss=True)
    case("rectangle-32x48", 52, SMALL, image=(32, 48), norm_pix_loss=True)
    case("rectangle-48x32", 53, NARROW, image=(48, 32), tables="sincos")
    case("same-count-8x32", 54, NARROW, image=(8, 32))
    case("same-size-interpolated", 55, TINY, image=(16, 16))
    case("grid2d-24x16", 56, NARROW, image=(24, 16), interpolation="grid2d")
    case("grid2d-8x32-norm-pix", 57, TINY, image=(8, 32), interpolation="grid2d", norm_pix_loss=True)
    for number, name in enumerate(ACTIVATIONS):
        # Far enough from 0 for the clips at 6 and at 10.
        stretch = {"gelu_10": 8, "relu6": 4}.get(name, 2)
        case(f"act-{name.replace('_', '-')}", 60 + number, TINY, stretch=stretch, hidden_act=name)


def write_gradients(out):
    def case(name, seed, size, **fields):
        masked_autoencoder(out, name, seed, size, gradients=True, **fields)

    case("small", 101, SMALL)
    case("narrow-norm-pix", 102, NARROW, norm_pix_loss=True)
    case("one-channel", 103, NARROW, num_channels=1, norm_pix_loss=True)
    case("no-qkv-bias", 104, NARROW, qkv_bias=False)
    case("ratio-0.25", 105, NARROW, mask_ratio=0.25)
    case("ratio-0.9", 106, NARROW, mask_ratio=0.9)
    case("ratio-0.9-norm-pix", 107, TINY, mask_ratio=0.9, norm_pix_loss=True)
    case("ratio-1.0", 108, TINY, mask_ratio=1.0, batch=3)
    case("eps-1e-1", 109, TINY, layer_norm_eps=1e-1)
    case("rectangle-24x16", 110, NARROW, image=(24, 16))
    for number, name in enumerate(["gelu_pytorch_tanh", "quick_gelu", "silu", "mish", "tanh", "leaky_relu", "relu"]):
        case(f"act-{name.replace('_', '-')}", 120 + number, TINY, hidden_act=name)


def encoder(out, name, seed, layout, image=None, batch=2, **fields):
    """The bare encoder, loaded from a file of its own (`hf-bare`) or of the whole model (`hf`)."""
    whole = build(seed, NARROW, **fields)
    x, noise = inputs(whole, seed, batch, image)

    def run(model):
        state = model.vit.eval()(
            x.to(next(model.parameters()).dtype), noise=noise, interpolate_pos_encoding=image is not None,
            output_hidden_states=True, output_attentions=True,
        )
        expected = {"expected.last_hidden_state": state.last_hidden_state, "expected.mask": state.mask}
        expected["expected.ids_restore"] = state.ids_restore
        return {key: value.detach() for key, value in (expected | recorded(state)).items()}

    expected = reference(f"encoder-{name}", whole, run, FORWARD)
    weights = whole.vit.state_dict() if layout == "hf-bare" else whole.state_dict()
    interpolation = dict(interpolate_pos_encoding=True) if image else {}
    architecture = ViTMAEModel if layout == "hf-bare" else ViTMAEForPreTraining
    write_case(
        out, f"encoder-{name}", "encoder", {"input.pixel_values": x, "input.noise": noise, **expected}, FORWARD,
        config=config_json(whole.config, architecture.__name__), weights=weights, layout=layout, **interpolation,
    )


def write_encoder(out):
    encoder(out, "bare", 201, "hf-bare")
    encoder(out, "whole", 202, "hf", mask_ratio=0.5)
    encoder(out, "bare-unmasked", 203, "hf-bare", mask_ratio=0.0)
    encoder(out, "bare-rectangle", 204, "hf-bare", image=(16, 24), qkv_bias=False)


def write_training(out):
    training(out, "small-patches", 151, build(151, NARROW))
    training(out, "norm-pix", 152, build(152, TINY, norm_pix_loss=True, tables="sincos"))
    training(out, "one-channel", 153, build(153, TINY, num_channels=1, mask_ratio=0.5), batch=4, min_lr=2e-4)
    training(
        out, "no-qkv-bias-no-warmup", 154, build(154, TINY, qkv_bias=False, hidden_act="gelu_new", norm_pix_loss=True),
        warmup=0, total=20, weight_decay=0.5,
    )


def main(out):
    write_masking(out)
    write_pretraining(out)
    write_gradients(out)
    write_training(out)
    write_encoder(out)
    write_classification(out, build(304, NARROW, num_channels=1))
    write_processor(out)
    write_formula(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
