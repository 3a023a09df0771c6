"""Pre-trains transformers' ViTMAE on batches from standard input and prints each update's loss.

    python peer.py FIRST_MODEL BATCH_SIZE WEIGHT_DECAY BETA1 BETA2

A batch is the learning rate (f64), pixels [B, C, H, W] (f32) and masking noise [B, L] (f64), little-endian. The other
side of `peer.rs`; packages: benches/peer/requirements.txt.
"""

import sys

import numpy
import torch
from transformers import ViTMAEForPreTraining


def main():
    first = sys.argv[1]
    batch, decay, *betas = (float(word) for word in sys.argv[2:])
    batch = int(batch)
    model = ViTMAEForPreTraining.from_pretrained(first).train()
    # transformers 5 forgets to freeze what it does not train in version 4.
    for name, parameter in model.named_parameters():
        if name.endswith(("position_embeddings", "decoder_pos_embed")):
            parameter.requires_grad = False
    config = model.config
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    spared = lambda name, p: p.ndim <= 1 or name.endswith(".bias")
    groups = [
        {"params": [p for name, p in trainable if not spared(name, p)], "weight_decay": decay},
        {"params": [p for name, p in trainable if spared(name, p)], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=tuple(betas), eps=1e-8, fused=True)
    shape = (batch, config.num_channels, config.image_size, config.image_size)
    patches = (config.image_size // config.patch_size) ** 2

    def read(kind, shape):
        count = int(numpy.prod(shape)) * numpy.dtype(kind).itemsize
        data = sys.stdin.buffer.read(count)
        return numpy.frombuffer(data, kind).reshape(shape).copy() if len(data) == count else None

    while (lr := read("<f8", (1,))) is not None:
        pixels, noise = read("<f4", shape), read("<f8", (batch, patches))
        for group in adamw.param_groups:
            group["lr"] = float(lr[0])
        loss = model(pixel_values=torch.from_numpy(pixels), noise=torch.from_numpy(noise)).loss
        loss.backward()
        adamw.step()
        adamw.zero_grad()
        print(loss.item(), flush=True)


main()
