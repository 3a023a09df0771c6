"""Writes parity cases whose weights lie in PyTorch's own files: `pytorch_model.bin`, and the original's `.pth`.

    python parity_layouts.py OUT_DIR          (packages: requirements-parity.txt)

Models, inputs and numbers are those of transformers 4.57.6; only the files differ. The original's names and its
joined query, key and value follow its published checkpoints. One file is a release (`model` alone), one a training
checkpoint with an optimizer, a scaler and an `argparse.Namespace`, and one has the head of a fine-tuned model.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

from parity_classification import classifier, mean_fc_norm
from parity_folder import FORWARD, config_json, write_case
from parity_model import (
    NARROW, TINY, pixels, random_weights, recorded, reference, run_pretraining, uniform_noise,
)

# Names of transformers 4 outside the blocks, and the original's.
SINGLES = {
    "vit.embeddings.cls_token": "cls_token",
    "vit.embeddings.position_embeddings": "pos_embed",
    "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "vit.layernorm": "norm",
    "decoder.mask_token": "mask_token",
    "decoder.decoder_pos_embed": "decoder_pos_embed",
    "decoder.decoder_embed": "decoder_embed",
    "decoder.decoder_norm": "decoder_norm",
    "decoder.decoder_pred": "decoder_pred",
    "classifier": "head",
    "fc_norm": "fc_norm",
}
STACKS = {"vit.encoder.layer.": "blocks.", "decoder.decoder_layers.": "decoder_blocks."}
MODULES = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def original(state):
    """The tensors of transformers 4 under the original's names."""
    result = {}
    for name, value in state.items():
        if name in SINGLES:
            result[SINGLES[name]] = value
            continue
        module, leaf = name.rsplit(".", 1)
        if module in SINGLES:
            result[f"{SINGLES[module]}.{leaf}"] = value
            continue
        stack = next(stack for stack in STACKS if name.startswith(stack))
        index, module = module.removeprefix(stack).split(".", 1)
        block = f"{STACKS[stack]}{index}."
        if module == "attention.attention.query":
            parts = [state[f"{stack}{index}.attention.attention.{part}.{leaf}"] for part in ("query", "key", "value")]
            result[f"{block}attn.qkv.{leaf}"] = torch.cat(parts)
        elif module in MODULES:
            result[f"{block}{MODULES[module]}.{leaf}"] = value
    return result


def saved(content, file_name):
    """Writes `content` by `torch.save`."""

    def write(folder):
        torch.save(content, folder / file_name)
        return file_name

    return write


def training_checkpoint(model):
    """What the original's trainer saves beside the model: an optimizer that has made a step, and its arguments."""
    parameters = [torch.nn.Parameter(value.clone()) for value in model.values()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    arguments = argparse.Namespace(
        batch_size=64, epochs=400, accum_iter=1, model="mae_vit_tiny", norm_pix_loss=True, mask_ratio=0.75, lr=None,
        blr=1.5e-4, weight_decay=0.05, data_path="images", output_dir=Path("output"), device="cpu", world_size=1,
    )
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 7}
    return {"model": model, "optimizer": optimizer.state_dict(), "epoch": 3, "scaler": scaler, "args": arguments}


def pretraining(out, name, seed, size, layout, file, **fields):
    config = ViTMAEConfig(**{**size, **fields})
    model = ViTMAEForPreTraining._from_config(config, attn_implementation="eager")
    random_weights(model, seed)
    side = config.image_size
    patches = (side // config.patch_size) ** 2
    x, noise = pixels(seed, (2, config.num_channels, side, side)), uniform_noise(seed, (2, patches))
    run = run_pretraining(x, noise, False, False, config.mask_ratio)
    expected = reference(f"pretraining-{name}", model, run, FORWARD)
    write_case(
        out, f"pretraining-{name}", "pretraining", {"input.pixel_values": x, "input.noise": noise, **expected}, FORWARD,
        config=config_json(config, "ViTMAEForPreTraining"), weights=file(model.state_dict()), layout=layout,
    )


def encoder(out, name, seed, size, layout, file, **fields):
    config = ViTMAEConfig(**{**size, **fields})
    model = ViTMAEModel._from_config(config, attn_implementation="eager")
    random_weights(model, seed)
    side = config.image_size
    patches = (side // config.patch_size) ** 2
    x, noise = pixels(seed, (2, config.num_channels, side, side)), uniform_noise(seed, (2, patches))

    def run(model):
        result = model.eval()(
            x.to(next(model.parameters()).dtype), noise=noise, output_hidden_states=True, output_attentions=True
        )
        expected = {
            "expected.last_hidden_state": result.last_hidden_state,
            "expected.mask": result.mask,
            "expected.ids_restore": result.ids_restore,
        }
        return {key: value.detach().clone() for key, value in (expected | recorded(result)).items()}

    expected = reference(f"encoder-{name}", model, run, FORWARD)
    write_case(
        out, f"encoder-{name}", "encoder", {"input.pixel_values": x, "input.noise": noise, **expected}, FORWARD,
        config=config_json(config, "ViTMAEModel"), weights=file(model.state_dict()), layout=layout,
    )


def with_prefix(state):
    return {f"vit.{name}": value for name, value in state.items()}


def main(out):
    pretraining(out, "bin", 601, NARROW, "bin", lambda state: saved(state, "pytorch_model.bin"))
    pretraining(
        out, "fb-release", 602, NARROW, "fb", lambda state: saved({"model": original(state)}, "mae.pth"),
        layer_norm_eps=1e-6,
    )
    pretraining(
        out, "fb-training-checkpoint", 603, TINY, "fb",
        lambda state: saved(training_checkpoint(original(state)), "checkpoint-3.pth"), layer_norm_eps=1e-6,
        norm_pix_loss=True,
    )
    pretraining(
        out, "fb-no-qkv-bias", 604, TINY, "fb", lambda state: saved({"model": original(state)}, "mae.pth"), qkv_bias=False
    )
    encoder(
        out, "fb-release", 605, NARROW, "fb",
        lambda state: saved({"model": original(with_prefix(state))}, "mae_encoder.pth"), layer_norm_eps=1e-6,
    )
    encoder(out, "bin-bare", 606, TINY, "bin", lambda state: saved(state, "pytorch_model.bin"))
    mean_fc_norm(
        out, "fb-mean-fc-norm", 607, classifier(607, layer_norm_eps=1e-6), layout="fb",
        file=lambda state: saved({"model": original(state)}, "mae_finetuned.pth"),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
