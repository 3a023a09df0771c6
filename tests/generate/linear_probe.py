"""Writes the fixture of the linear probe: steps of a head of torch's BatchNorm1d and Linear under LARS.

    python linear_probe.py OUT_DIR          (packages: requirements-parity.txt)

`linear_probe.json`: for each weight decay the first weights, the features and labels of each batch, and what each update gives:
loss, weights, bias, running statistics; at the end the scores of a batch in evaluation mode. LARS is written here from its
paper (arXiv:1708.03888): the trust ratio for matrices, plain momentum for vectors.
"""

import json
import sys
from pathlib import Path

import torch

WIDTH, CLASSES, BATCH = 5, 3, 6
RATES = [0.0, 5.0, 20.0, 10.0, 1.0]  # with a trust of 0.001 a rate of 1 moves a thousandth of a weight's length


def lars(parameter, velocity, lr, decay, momentum=0.9, trust=0.001):
    gradient = parameter.grad
    if parameter.ndim > 1:
        gradient = gradient + decay * parameter
        lengths = parameter.norm(), gradient.norm()
        if all(length > 0 for length in lengths):
            gradient = trust * lengths[0] / lengths[1] * gradient
    velocity.mul_(momentum).add_(gradient)
    parameter -= lr * velocity


def run(decay, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    norm = torch.nn.BatchNorm1d(WIDTH, affine=False, eps=1e-6)
    linear = torch.nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        linear.weight.copy_(0.01 * normal(CLASSES, WIDTH))
        linear.bias.zero_()
    first = linear.weight.flatten().tolist()
    velocities = [torch.zeros_like(parameter) for parameter in linear.parameters()]
    steps = []
    for lr in RATES:
        # Some features are far from 0 and of other sizes, as an encoder's are.
        features = 3.0 * normal(BATCH, WIDTH) * torch.tensor([1.0, 0.01, 5.0, 1.0, 0.3]) + torch.arange(WIDTH)
        labels = torch.randint(CLASSES, (BATCH,), generator=generator)
        loss = torch.nn.functional.cross_entropy(linear(norm(features)), labels)
        linear.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter, velocity in zip(linear.parameters(), velocities):
                lars(parameter, velocity, lr, decay)
        steps.append({
            "lr": lr, "features": features.flatten().tolist(), "labels": labels.tolist(), "loss": loss.item(),
            "weight": linear.weight.flatten().tolist(), "bias": linear.bias.tolist(),
            "running_mean": norm.running_mean.tolist(), "running_var": norm.running_var.tolist(),
        })
    norm.eval()
    features = 2.0 * normal(4, WIDTH) + 1.0
    scores = linear(norm(features))
    evaluation = {"features": features.flatten().tolist(), "scores": scores.flatten().tolist()}
    return {"weight_decay": decay, "first": first, "steps": steps, "evaluation": evaluation}


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    cases = [run(0.0, 1), run(0.5, 2)]
    text = json.dumps({"torch": torch.__version__.split("+")[0], "cases": cases}, indent=1)
    (out / "linear_probe.json").write_text(text + "\n")


main(Path(sys.argv[1]))
