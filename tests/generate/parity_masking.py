"""Cases of kind `masking`: transformers' own masking on noise alone."""

import numpy as np
import torch
from transformers import ViTMAEConfig
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEEmbeddings

from parity_folder import EXACT, write_case
from parity_model import rng


def masked(noise, ratio):
    """Mask and ids_restore, from a sequence that carries nothing."""
    embeddings = ViTMAEEmbeddings(ViTMAEConfig(mask_ratio=ratio))
    _, mask, ids_restore = embeddings.random_masking(torch.zeros(*noise.shape, 1), torch.from_numpy(noise))
    return mask, ids_restore


def masking(out, name, noise, ratio, kept):
    mask, ids_restore = masked(noise, ratio)
    assert (mask == 0).sum(dim=1).tolist() == [kept] * len(noise), name
    write(out, name, noise, ratio, mask, ids_restore)


def write(out, name, noise, ratio, mask, ids_restore):
    tensors = {"input.noise": noise, "expected.mask": mask, "expected.ids_restore": ids_restore}
    write_case(out, f"masking-{name}", "masking", tensors, EXACT, mask_ratio=ratio)


def tied(out):
    """Equal values keep the order of their indices: stable sorts of what transformers sorts unstably."""
    noise = rng(1, "ties").integers(0, 5, (3, 196)).astype(np.float32) / 8
    shuffle = np.argsort(noise, axis=1, kind="stable")
    restore = np.argsort(shuffle, axis=1, kind="stable")
    mask = (restore >= int(196 * (1 - 0.75))).astype(np.float32)
    write(out, "ties", noise, 0.75, mask, restore)


def write_masking(out):
    lengths = [
        (100, 0.9, 9), (196, 0.75, 49), (196, 0.9, 19), (256, 0.9, 25), (4, 0.9, 0), (196, 0.0, 196),
        (196, 1.0, 0), (9, 0.5, 4), (1, 0.5, 0),
    ]
    for length, ratio, kept in lengths:
        noise = rng(length, f"masking {ratio}").random((3, length)).astype(np.float32)
        masking(out, f"{length}-ratio-{ratio}", noise, ratio, kept)
    masking(out, "example", np.array([[0.7, 0.1, 0.9, 0.3]], np.float32), 0.5, 2)
    # f64 noise whose order is lost when it is rounded to f32.
    close = 0.5 + 1e-12 * rng(2, "close").permutation(64).astype(np.float64)[None]
    masking(out, "f64-noise", close, 0.75, 16)
    tied(out)
