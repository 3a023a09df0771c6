"""Times transformers' ViTMAE: a pre-training step (forward, backward, AdamW), a forward pass, or the encoder on all patches.

    python pytorch.py [--task pretrain] [--precision f32] [--compile] [--batch-size 32] [--steps 5] [--threads 2]
                      [--device cpu]

The peer of `vitmae bench`, with the same model, batch and work; `cargo xtask bench peers` runs both in turn.
Packages: benches/peer/requirements.txt. bf16 is `torch.autocast`. Prints one JSON object; `ms_per_image` is the
median step divided by the batch. `--attention best` and `--optimizer best` time one step of each choice first and take the faster;
`peak_memory_bytes` is that of the process, so name both choices where memory is compared; on `cuda` it is what PyTorch
took of the GPU's memory.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time

import torch
import transformers
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

MODELS = {
    "base": {},
    "large": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
    "huge": dict(
        hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, intermediate_size=5120, patch_size=14
    ),
}
ATTENTION = ["sdpa", "eager"]
OPTIMIZERS = ["fused", "foreach", "loop"]


class Step:
    """A model with its optimizer and one batch of random pixels."""

    def __init__(self, args, attention, optimizer):
        model, batch_size = args.model, args.batch_size
        self.task, self.bf16 = args.task, args.precision == "bf16"
        torch.manual_seed(0)
        self.attention, self.optimizer_name = attention, optimizer
        self.encoder = args.task == "features"
        of_class, ratio = (ViTMAEModel, 0.0) if self.encoder else (ViTMAEForPreTraining, 0.75)
        config = ViTMAEConfig(**MODELS[model], mask_ratio=ratio)
        self.model = of_class._from_config(config, attn_implementation=attention)
        self.device = args.device
        self.model.to(args.device).train(args.task == "pretrain")
        self.forward = torch.compile(self.model) if args.compile else self.model
        side = self.model.config.image_size
        self.pixels = torch.randn(batch_size, 3, side, side).to(args.device)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(
            groups, lr=1.5e-4, betas=(0.9, 0.95), fused=optimizer == "fused", foreach=optimizer == "foreach"
        )

    def __call__(self):
        """Runs one step; returns its seconds and its loss."""
        start = time.perf_counter()
        train = self.task == "pretrain"
        with torch.set_grad_enabled(train), torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            output = self.forward(self.pixels)
            loss = output.last_hidden_state.mean() if self.encoder else output.loss
        if train:
            loss.backward()
            self.adamw.step()
            self.adamw.zero_grad(set_to_none=True)
        loss = loss.item()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, loss


def choose(args, attentions, optimizers):
    """The fastest pair by one timed step after one untimed, one choice at a time."""

    def seconds(attention, optimizer):
        step = Step(args, attention, optimizer)
        step()
        return step()[0]

    attention, optimizer = attentions[0], optimizers[0]
    if len(attentions) > 1:
        attention = min(attentions, key=lambda name: seconds(name, optimizer))
    if len(optimizers) > 1:
        optimizer = min(optimizers, key=lambda name: seconds(attention, name))
    return attention, optimizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="base")
    parser.add_argument("--task", choices=["pretrain", "forward", "features"], default="pretrain")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--attention", choices=[*ATTENTION, "best"], default="best")
    parser.add_argument("--optimizer", choices=[*OPTIMIZERS, "best"], default="best")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    attention, optimizer = choose(
        args,
        ATTENTION if args.attention == "best" else [args.attention],
        OPTIMIZERS if args.optimizer == "best" else [args.optimizer],
    )
    step = Step(args, attention, optimizer)
    for _ in range(args.warmup):
        step()
    times, losses = zip(*(step() for _ in range(args.steps)))
    median = statistics.median(times)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if args.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    print(json.dumps({
        "model": args.model, "task": args.task, "precision": args.precision, "compile": args.compile,
        "batch_size": args.batch_size, "device": args.device,
        "threads": args.threads, "steps": args.steps, "attention": attention, "optimizer": optimizer,
        "ms_per_image": 1e3 * median / args.batch_size,
        "ms_per_image_best": 1e3 * min(times) / args.batch_size,
        "images_per_second": args.batch_size / median,
        "peak_memory_bytes": peak,
        "loss": losses[-1],
        "torch": torch.__version__, "transformers": transformers.__version__, "machine": platform.machine(),
    }))


if __name__ == "__main__":
    main()
