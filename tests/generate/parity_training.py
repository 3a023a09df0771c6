"""Cases of kind `training`: ten steps of AdamW on other images and other masks each step."""

import math

import torch

from parity_folder import config_json, write_case
from parity_model import pixels, reference, uniform_noise

TOLERANCE = {"atol": 1e-5, "rtol": 0.0}
STEPS = 10


def learning_rate(schedule, step):
    lr, low, warmup = schedule["lr"], schedule["min_lr"], schedule["warmup_steps"]
    if step < warmup:
        return lr * step / warmup
    share = (step - warmup) / (schedule["total_steps"] - warmup)
    return low + (lr - low) * 0.5 * (1 + math.cos(math.pi * share))


def parameter_groups(model, weight_decay):
    """Tensors of one dimension and biases do not decay; class and mask tokens, of three, do."""
    decayed, exempt = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (exempt if parameter.ndim <= 1 or name.endswith(".bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def run_steps(x, noise, optimizer, schedule):
    def run(model):
        dtype = next(model.parameters()).dtype
        model.train()
        adamw = torch.optim.AdamW(
            parameter_groups(model, optimizer["weight_decay"]), lr=schedule["lr"],
            betas=tuple(optimizer["betas"]), eps=optimizer["eps"], foreach=False,
        )
        losses = []
        for step in range(len(x)):
            for group in adamw.param_groups:
                group["lr"] = learning_rate(schedule, step)
            adamw.zero_grad()
            loss = model(x[step].to(dtype), noise=noise[step]).loss
            loss.backward()
            losses.append(loss.detach())
            adamw.step()
        expected = {"expected.losses": torch.stack(losses)}
        for name, parameter in model.named_parameters():
            # The softmax ignores key biases: their gradient is rounding noise, which Adam turns into steps.
            if not name.endswith("key.bias"):
                expected[f"expected.param.{name}"] = parameter.detach()
        return expected

    return run


def training(out, name, seed, model, batch=2, lr=2e-3, min_lr=0.0, warmup=3, total=STEPS, weight_decay=0.05):
    config = model.config
    shape = (STEPS, batch, config.num_channels, config.image_size, config.image_size)
    x = pixels(seed, shape)
    noise = uniform_noise(seed, (STEPS, batch, (config.image_size // config.patch_size) ** 2))
    optimizer = {
        "name": "adamw", "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": weight_decay,
        "decay_rule": "1d-and-bias-exempt",
    }
    schedule = {
        "kind": "warmup-cosine", "lr": lr, "min_lr": min_lr, "warmup_steps": warmup, "total_steps": total,
    }
    expected = reference(f"training-{name}", model, run_steps(x, noise, optimizer, schedule), TOLERANCE)
    write_case(
        out, f"training-{name}", "training", {"input.pixel_values": x, "input.noise": noise, **expected},
        TOLERANCE, config=config_json(config, "ViTMAEForPreTraining"), weights=model.state_dict(),
        optimizer=optimizer, schedule=schedule,
    )
