"""Cases of kind `classification`: ViTForImageClassification, and the head of the original's fine-tuning."""

import copy
import tempfile

import torch
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

from parity_folder import GRADIENTS, config_json, write_case
from parity_model import NARROW, normal, parameter_gradients, pixels, random_parameter, random_weights, reference

CLASSES = 5


def labels_of(count, ignored=None):
    labels = torch.arange(count) * 2 % CLASSES
    if ignored is not None:
        labels[ignored] = -100
    return labels


def run_classifier(x, labels, interpolate):
    def run(model):
        dtype = next(model.parameters()).dtype
        model.eval().zero_grad()
        given = labels.to(dtype) if labels.is_floating_point() else labels
        out = model(x.to(dtype), labels=given, interpolate_pos_encoding=interpolate)
        out.loss.backward()
        return {
            "expected.logits": out.logits.detach(), "expected.loss": out.loss.detach(), **parameter_gradients(model),
        }

    return run


def write(out, name, head, model, run, x, labels, image, config, weights, **fields):
    expected = reference(f"classification-{name}", model, run, GRADIENTS)
    interpolation = dict(interpolate_pos_encoding=True) if image else {}
    write_case(
        out, f"classification-{name}", "classification",
        {"input.pixel_values": x, "input.labels": labels, **expected}, GRADIENTS,
        config=config, weights=weights, head=head, **interpolation, **fields,
    )


def fine_tuned(masked_autoencoder, seed):
    """A classifier on the encoder of a pre-trained model, by way of files as users do it."""
    with tempfile.TemporaryDirectory() as folder:
        masked_autoencoder.save_pretrained(folder)
        model = ViTForImageClassification.from_pretrained(
            folder, num_labels=CLASSES, attn_implementation="eager"
        )
    own = dict(masked_autoencoder.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in own:
                assert torch.equal(parameter, own[name]), name
            else:
                assert name.startswith("classifier."), name
                parameter.copy_(random_parameter(name, tuple(parameter.shape), seed, "random"))
    return model


def cls(out, name, seed, model, batch=3, image=None, ignored=None, labels=None):
    side = model.config.image_size
    x = pixels(seed, (batch, model.config.num_channels, *(image or (side, side))))
    labels = labels_of(batch, ignored) if labels is None else labels
    run = run_classifier(x, labels, image is not None)
    config = config_json(model.config, "ViTForImageClassification")
    write(out, name, "cls", model, run, x, labels, image, config, model.state_dict())


class MeanOfPatches(torch.nn.Module):
    """The original's head: mean of the patch tokens, a norm of its own, a linear layer; no final norm."""

    def __init__(self, model, seed):
        super().__init__()
        self.vit = copy.deepcopy(model.vit)
        self.vit.layernorm = torch.nn.Identity()
        self.fc_norm = torch.nn.LayerNorm(model.config.hidden_size, eps=model.config.layer_norm_eps)
        self.classifier = copy.deepcopy(model.classifier)
        with torch.no_grad():
            self.fc_norm.weight.copy_(1 + normal(seed, "fc_norm.weight", self.fc_norm.weight.shape, 0.3))
            self.fc_norm.bias.copy_(normal(seed, "fc_norm.bias", self.fc_norm.bias.shape, 0.3))

    def forward(self, x, interpolate):
        tokens = self.vit(x, interpolate_pos_encoding=interpolate).last_hidden_state
        return self.classifier(self.fc_norm(tokens[:, 1:].mean(dim=1)))


def mean_fc_norm(out, name, seed, model, batch=3, image=None, ignored=None, file=lambda state: state, **fields):
    side = model.config.image_size
    x = pixels(seed, (batch, model.config.num_channels, *(image or (side, side))))
    labels = labels_of(batch, ignored)
    config = config_json(model.config, "ViTForImageClassification")
    model = MeanOfPatches(model, seed)

    def run(model):
        model.eval().zero_grad()
        logits = model(x.to(model.classifier.weight.dtype), image is not None)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        return {"expected.logits": logits.detach(), "expected.loss": loss.detach(), **parameter_gradients(model)}

    write(out, name, "mean-fc-norm", model, run, x, labels, image, config, file(model.state_dict()), **fields)


def classifier(seed, **fields):
    encoder = {key: value for key, value in NARROW.items() if not key.startswith("decoder")}
    config = ViTConfig(**{**encoder, "num_labels": CLASSES, **fields})
    return random_weights(ViTForImageClassification._from_config(config, attn_implementation="eager"), seed)


def write_classification(out, masked_autoencoder):
    cls(out, "cls", 301, classifier(301))
    cls(out, "cls-ignored-label", 302, classifier(302, qkv_bias=False), ignored=1)
    cls(out, "cls-rectangle", 303, classifier(303, hidden_act="silu"), image=(16, 24))
    cls(out, "cls-from-mae", 304, fine_tuned(masked_autoencoder, 304), batch=4)
    # The problem type is told by a single score, by labels of floats, or by the configuration.
    cls(out, "regression", 307, classifier(307, num_labels=1), labels=normal(307, "labels", (3,)))
    cls(
        out, "regression-of-five", 308, classifier(308, problem_type="regression"),
        labels=normal(308, "labels", (3, CLASSES)),
    )
    cls(out, "multi-label", 309, classifier(309), labels=(normal(309, "labels", (3, CLASSES)) > 0).float())
    cls(
        out, "multi-label-soft", 310, classifier(310, problem_type="multi_label_classification"), image=(16, 24),
        labels=normal(310, "labels", (3, CLASSES)).sigmoid(),
    )
    mean_fc_norm(out, "mean-fc-norm", 305, classifier(305))
    mean_fc_norm(out, "mean-fc-norm-square-24", 306, classifier(306, layer_norm_eps=1e-6), image=(24, 24), ignored=0)
