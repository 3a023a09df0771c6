"""Writes the parity cases of the TensorFlow classes of transformers 4.57.6, its last release with them.

    python parity_tf.py OUT_DIR          (packages: requirements-parity-tf.txt)

Weights are drawn under the names of the PyTorch classes and put into TensorFlow's variables; but for the cases whose
names say `h5` or `safetensors`, which keep the class's own file, a case differs from one of PyTorch's in its numbers alone: the loss has shape (1,), `norm_pix_loss` takes the population variance, and
positions are resampled by TensorFlow's bicubic. Expected values are TensorFlow's own, in f32.
"""

import os
import re
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from transformers import (  # noqa: E402
    TFViTForImageClassification, TFViTMAEForPreTraining, TFViTMAEModel, ViTConfig, ViTMAEConfig,
)

from parity_folder import FORWARD, GRADIENTS, config_json, write_case  # noqa: E402

# As NARROW and TINY of parity_model.py, which needs PyTorch.
NARROW = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
    decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
    decoder_intermediate_size=24, image_size=16, patch_size=4,
)
TINY = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
    decoder_hidden_size=12, decoder_num_hidden_layers=1, decoder_num_attention_heads=1,
    decoder_intermediate_size=20, image_size=16, patch_size=4,
)


def draw(seed, name, shape, scale=1.0):
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def torch_name(variable):
    """`vit/encoder/layer_._0/output/dense/kernel:0` as `vit.encoder.layer.0.output.dense.weight`."""
    path = re.sub(r"^.*?/(?=(vit|decoder|classifier)/)", "", variable.name).removesuffix(":0")
    name = path.replace("layer_._", "layer/").replace("/", ".")
    return re.sub(r"\.(kernel|gamma)$", ".weight", re.sub(r"\.beta$", ".bias", name))


def to_torch(variable, value):
    """A kernel of TensorFlow's, or its gradient, with the axes of PyTorch's."""
    if "kernel" not in variable.name:
        return value
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def from_torch(variable, value):
    if "kernel" not in variable.name:
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def random_parameter(name, shape, seed):
    """As in parity_model.py: every parameter moves the loss, and attention is not uniform."""
    if name.endswith(("position_embeddings", "decoder_pos_embed", "cls_token", "mask_token")):
        return draw(seed, name, shape, 0.4)
    if "norm" in name and name.endswith("weight"):
        return 1 + draw(seed, name, shape, 0.3)
    if name.endswith("bias"):
        return draw(seed, name, shape, 0.3)
    gain = 1.3 if ".query." in name or ".key." in name else 0.8
    return draw(seed, name, shape, gain / np.sqrt(np.prod(shape[1:])))


def fill(model, seed):
    """Random weights in every variable; returns them under PyTorch's names."""
    model.build_in_name_scope()
    weights = {}
    for variable in model.weights:
        name = torch_name(variable)
        shape = to_torch(variable, np.zeros(variable.shape, np.int8)).shape
        assert name not in weights, name
        weights[name] = random_parameter(name, shape, seed)
        variable.assign(from_torch(variable, weights[name]))
    return weights


def pixels(seed, shape):
    """Noise on another mean and contrast in each channel of each image."""
    mean, contrast = draw(seed, "mean", shape[:-2]), draw(seed, "contrast", shape[:-2], 0.4)
    return ((mean[..., None, None] + 2 * np.exp(contrast)[..., None, None] * draw(seed, "pixels", shape)) / 3)


def inputs(config, seed, batch, image):
    height, width = image or (config.image_size, config.image_size)
    patches = (height // config.patch_size) * (width // config.patch_size)
    noise = np.random.default_rng([seed, 1]).random((batch, patches)).astype(np.float32)
    assert all(len(np.unique(row)) == patches for row in noise)
    x = pixels(seed, (batch, config.num_channels, height, width)).astype(np.float32)
    return {"input.pixel_values": x, "input.noise": noise}


def call(model, given, image):
    return model(
        tf.constant(given["input.pixel_values"]), noise=tf.constant(given["input.noise"]), training=False,
        interpolate_pos_encoding=image is not None, output_hidden_states=True, output_attentions=True,
    )


def masked(out):
    """What both classes return."""
    expected = {"expected.mask": out.mask.numpy(), "expected.ids_restore": out.ids_restore.numpy().astype(np.int64)}
    for kind in ("hidden_states", "attentions"):
        expected |= {f"expected.{kind}.{i}": value.numpy() for i, value in enumerate(getattr(out, kind))}
    return expected


def write(out, name, kind, config, architecture, weights, given, expected, image, **fields):
    tolerance = GRADIENTS if kind == "gradients" else FORWARD
    write_case(
        out, f"{kind}-{name}", kind, given | expected, tolerance,
        config=config_json(config, architecture), weights=weights, numerics="tf",
        **(dict(interpolate_pos_encoding=True) if image else {}), **fields,
    )
    print(f"{kind}-{name}", flush=True)


def own_file(model, layout):
    """Writes the file that the class itself saves: `tf_model.h5`, or safetensors with TensorFlow's names."""

    def write(folder):
        with tempfile.TemporaryDirectory() as saved:
            model.save_pretrained(saved, safe_serialization=layout == "tf-safetensors")
            name = "model.safetensors" if layout == "tf-safetensors" else "tf_model.h5"
            shutil.copy(Path(saved) / name, folder / name)
        return name

    return write


def pretraining(out, name, seed, size, batch=2, image=None, gradients=False, layout="hf", **fields):
    kind = "gradients" if gradients else "pretraining"
    config = ViTMAEConfig(**{**size, **fields})
    model = TFViTMAEForPreTraining(config)
    weights = fill(model, seed)
    given = inputs(config, seed, batch, image)
    with tf.GradientTape() as tape:
        result = call(model, given, image)
    assert result.loss.shape == (1,)
    expected = masked(result) | {"expected.logits": result.logits.numpy()}
    if np.isfinite(result.loss.numpy()).all():
        expected["expected.loss"] = result.loss.numpy()
    if gradients:
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(result.loss, variables), strict=True):
            value = to_torch(variable, gradient.numpy())
            name_of = torch_name(variable)
            assert np.abs(value).max() > 1e-4 or name_of.endswith("key.bias"), name_of
            expected[f"expected.grad.{name_of}"] = value
    positions = dict(interpolation="hf1d") if image else {}
    if layout != "hf":
        weights = own_file(model, layout)
    write(out, name, kind, config, "ViTMAEForPreTraining", weights, given, expected, image, layout=layout, **positions)


def encoder(out, name, seed, image=None, layout="hf-bare", **fields):
    config = ViTMAEConfig(**{**NARROW, **fields})
    model = TFViTMAEModel(config)
    weights = {key.removeprefix("vit."): value for key, value in fill(model, seed).items()}
    given = inputs(config, seed, 2, image)
    result = call(model, given, image)
    expected = masked(result) | {"expected.last_hidden_state": result.last_hidden_state.numpy()}
    if layout != "hf-bare":
        weights = own_file(model, layout)
    write(out, name, "encoder", config, "ViTMAEModel", weights, given, expected, image, layout=layout)


def classifier(out, name, seed, layout, image=None):
    """The classifier on the class token; TensorFlow's loss is one value an image, of which PyTorch takes the mean."""
    encoder_only = {key: value for key, value in NARROW.items() if not key.startswith("decoder")}
    config = ViTConfig(**encoder_only, num_labels=5)
    model = TFViTForImageClassification(config)
    fill(model, seed)
    x = pixels(seed, (3, 3, *(image or (config.image_size,) * 2))).astype(np.float32)
    labels = np.array([0, 2, 4])
    with tf.GradientTape() as tape:
        result = model(
            tf.constant(x), labels=tf.constant(labels), training=False, interpolate_pos_encoding=image is not None,
        )
        loss = tf.reduce_mean(result.loss)
    expected = {"expected.logits": result.logits.numpy(), "expected.loss": loss.numpy()}
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        expected[f"expected.grad.{torch_name(variable)}"] = to_torch(variable, gradient.numpy())
    given = {"input.pixel_values": x, "input.labels": labels.astype(np.int64)}
    write_case(
        out, f"classification-{name}", "classification", given | expected, GRADIENTS,
        config=config_json(config, "ViTForImageClassification"), weights=own_file(model, layout), numerics="tf",
        layout=layout, head="cls", **(dict(interpolate_pos_encoding=True) if image else {}),
    )
    print(f"classification-{name}", flush=True)


def main(out):
    pretraining(out, "tf-narrow", 501, NARROW)
    pretraining(out, "tf-narrow-norm-pix", 502, NARROW, norm_pix_loss=True)
    pretraining(out, "tf-one-channel-norm-pix", 503, TINY, num_channels=1, norm_pix_loss=True)
    for number, ratio in enumerate((0.0, 0.5, 0.9)):
        pretraining(out, f"tf-ratio-{ratio}-norm-pix", 510 + number, TINY, mask_ratio=ratio, norm_pix_loss=True)
    pretraining(out, "tf-eps-1e-1", 514, TINY, layer_norm_eps=1e-1)
    pretraining(out, "tf-act-gelu-new", 515, TINY, hidden_act="gelu_new")
    pretraining(out, "tf-square-24-norm-pix", 520, NARROW, image=(24, 24), norm_pix_loss=True)
    pretraining(out, "tf-square-12", 521, TINY, image=(12, 12))
    pretraining(out, "tf-square-28", 522, TINY, image=(28, 28), mask_ratio=0.5)
    pretraining(out, "tf-rectangle-16x24", 523, NARROW, image=(16, 24))
    pretraining(out, "tf-rectangle-40x12-norm-pix", 524, TINY, image=(40, 12), norm_pix_loss=True)
    pretraining(out, "tf-same-count-8x32", 525, TINY, image=(8, 32))
    pretraining(out, "tf-same-size-interpolated", 526, TINY, image=(16, 16))
    pretraining(out, "tf-narrow-norm-pix", 530, NARROW, gradients=True, norm_pix_loss=True)
    pretraining(out, "tf-rectangle-24x16", 531, NARROW, gradients=True, image=(24, 16))
    encoder(out, "tf-bare", 540)
    encoder(out, "tf-bare-unmasked", 541, mask_ratio=0.0)
    encoder(out, "tf-bare-rectangle", 542, image=(16, 24))
    encoder(out, "tf-bare-square-20", 543, image=(20, 20), mask_ratio=0.5)
    pretraining(out, "tf-h5-norm-pix", 550, NARROW, layout="tf-h5", norm_pix_loss=True)
    pretraining(out, "tf-h5-rectangle-24x16", 551, TINY, image=(24, 16), layout="tf-h5")
    pretraining(out, "tf-safetensors-norm-pix", 552, NARROW, layout="tf-safetensors", norm_pix_loss=True)
    encoder(out, "tf-h5", 553, layout="tf-h5")
    encoder(out, "tf-safetensors", 554, layout="tf-safetensors")
    classifier(out, "tf-h5", 560, "tf-h5")
    classifier(out, "tf-safetensors", 561, "tf-safetensors")
    classifier(out, "tf-h5-rectangle-16x24", 562, "tf-h5", image=(16, 24))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
