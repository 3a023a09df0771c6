"""Small random models and the way the reference runs them.

Expected values are computed in f64 and rounded once to f32, so they carry no rounding of one machine's
kernels. Every case is also run in f32, as users run transformers, and must stay within half the tolerance.
"""

import copy
import zlib

import numpy as np
import torch
from torch.nn import functional

# One thread: the order of sums, and with it the files, does not depend on the machine's cores.
torch.set_num_threads(1)

# 2 blocks of head width 8, decoder head width 12, 4 x 4 patches of 8 x 8 pixels.
SMALL = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    decoder_hidden_size=24, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
    decoder_intermediate_size=40, image_size=32, patch_size=8,
)
# 2 blocks of head width 12, decoder head width 8, 4 x 4 patches of 4 x 4 pixels.
NARROW = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
    decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
    decoder_intermediate_size=24, image_size=16, patch_size=4,
)
# 1 block each, for what is tried in many variants.
TINY = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
    decoder_hidden_size=12, decoder_num_hidden_layers=1, decoder_num_attention_heads=1,
    decoder_intermediate_size=20, image_size=16, patch_size=4,
)

_softmax = functional.softmax


def softmax_in_f64(x, dim=None, _stacklevel=3, dtype=None):
    """Eager attention asks for an f32 softmax; in an f64 run that would be the only f32 step."""
    return _softmax(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype)


functional.softmax = softmax_in_f64


def rng(seed, name):
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def normal(seed, name, shape, scale=1.0):
    return torch.from_numpy((rng(seed, name).standard_normal(shape) * scale).astype(np.float32))


def sincos_table(width, rows, columns):
    """The position table of the original: column first, then row; a row of zeros for the class token."""
    omega = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    i, j = np.divmod(np.arange(rows * columns), columns)
    x, y = np.outer(j, omega), np.outer(i, omega)
    table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    return np.concatenate([np.zeros((1, width)), table])[None].astype(np.float32)


def random_weights(model, seed, tables="random", names=lambda name: name):
    """Fills every parameter so that each one moves the loss; `names` maps a name before it is hashed."""
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            name = names(own)
            parameter.copy_(random_parameter(name, tuple(parameter.shape), seed, tables))
    return model


def random_parameter(name, shape, seed, tables):
    if name.endswith(("position_embeddings", "decoder_pos_embed")):
        if tables == "sincos":
            side = int((shape[1] - 1) ** 0.5)
            return torch.from_numpy(sincos_table(shape[2], side, side))
        return normal(seed, name, shape, 0.4)
    if name.endswith(("cls_token", "mask_token")):
        return normal(seed, name, shape, 0.4)
    if "norm" in name and name.endswith("weight"):
        return 1 + normal(seed, name, shape, 0.3)
    if name.endswith("bias"):
        return normal(seed, name, shape, 0.3)
    # Queries and keys are larger, so that attention is not uniform.
    gain = 1.3 if ".query." in name or ".key." in name else 0.8
    return normal(seed, name, shape, gain / np.sqrt(np.prod(shape[1:])))


def pixels(seed, shape):
    """Noise on another mean and contrast in each channel of each image."""
    mean, contrast = normal(seed, "mean", shape[:-2]), normal(seed, "contrast", shape[:-2], 0.4)
    noise = normal(seed, "pixels", shape)
    return (mean[..., None, None] + 2 * contrast.exp()[..., None, None] * noise) / 3


def uniform_noise(seed, shape):
    """Uniform in [0, 1), without ties in a row."""
    noise = rng(seed, "noise").random(shape).astype(np.float32)
    rows = noise.reshape(-1, shape[-1])
    assert all(len(np.unique(row)) == len(row) for row in rows)
    return torch.from_numpy(noise)


def reference(label, model, run, tolerance):
    """`run(model)` in f64, as f32; checks that the same in f32 is within half the tolerance.

    Integers and masks must be equal. Key biases are the one exception in the caller's hands: leave
    them out of what `run` returns where f32 cannot hold them.
    """
    single = run(copy.deepcopy(model).float())
    double = run(copy.deepcopy(model).double())
    worst, where = 0.0, ""
    for name, expected in double.items():
        found = single[name]
        if not expected.is_floating_point() or name.endswith("mask"):
            assert torch.equal(found, expected), f"{label}: {name} differs"
            continue
        assert expected.dtype == torch.float64, f"{label}: {name} is {expected.dtype}"
        bound = tolerance["atol"] + tolerance["rtol"] * expected.abs()
        share = ((found.double() - expected).abs() / bound).max().item() if expected.numel() else 0.0
        if share > worst:
            worst, where = share, name
    print(f"{label:44} f32 uses {worst:6.1%} of the tolerance ({where})", flush=True)
    assert worst <= 0.5, f"{label}: f32 is too far from f64 in {where}"
    return {name: t.float() if t.is_floating_point() else t for name, t in double.items()}


def run_pretraining(pixel_values, noise, interpolate, gradients, mask_ratio, name_of=str):
    """A function of the model that returns `expected.*` of a forward, and of a backward if asked."""

    def run(model):
        dtype = next(model.parameters()).dtype
        model.eval().zero_grad()
        out = model(
            pixel_values.to(dtype), noise=noise, interpolate_pos_encoding=interpolate,
            output_hidden_states=True, output_attentions=True,
        )
        expected = {"expected.logits": out.logits, "expected.mask": out.mask, "expected.ids_restore": out.ids_restore}
        if torch.isfinite(out.loss):
            expected["expected.loss"] = out.loss
        base = model.vit(pixel_values.to(dtype), noise=noise, interpolate_pos_encoding=interpolate)
        expected["expected.last_hidden_state"] = base.last_hidden_state
        expected |= recorded(out)
        if gradients:
            out.loss.backward()
            # With every patch removed the class token is alone and nothing flows to the patches.
            least = 1e-4 if mask_ratio < 1 else 0
            expected |= parameter_gradients(model, least, name_of)
        return {name: value.detach().clone() for name, value in expected.items()}

    return run


def recorded(out):
    """Hidden states and attentions, numbered."""
    states = {f"expected.hidden_states.{i}": state for i, state in enumerate(out.hidden_states)}
    return states | {f"expected.attentions.{i}": a for i, a in enumerate(out.attentions)}


def parameter_gradients(model, least=1e-4, name_of=str):
    """`expected.grad.*` of every trainable parameter; each but the key biases must reach `least`."""
    gradients = {}
    for own, parameter in model.named_parameters():
        if parameter.requires_grad:
            name, largest = name_of(own), parameter.grad.abs().max().item()
            assert largest >= least or name.endswith("key.bias"), f"{name}: gradient of at most {largest}"
            gradients[f"expected.grad.{name}"] = parameter.grad
    return gradients
