"""Cases of kind `processor`: transformers' slow image processor, which is Pillow's resize, on small images."""

import shutil

import numpy as np
from PIL import Image
from transformers import ViTImageProcessor

from parity_folder import PIXELS, write_case, write_json
from parity_model import rng

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# The file of facebook/vit-mae-base, in its old form, at another size.
OLD_FORM = {
    "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViTFeatureExtractor", **IMAGENET,
    "resample": 2, "size": 48,
}
# What transformers 4.57.6 writes today.
NEW_FORM = {
    "do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_processor_type": "ViTImageProcessor", **IMAGENET, "resample": 2,
    "rescale_factor": 0.00392156862745098, "size": {"height": 40, "width": 56},
}


def picture(mode, width, height):
    """A gradient under noise: neither smooth nor white."""
    bands = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(bands), indexing="ij")
    wave = 127.5 + 90 * np.sin(x / (5 + c) + y / 11) * np.cos(y / (7 + 2 * c))
    noisy = wave + rng(width * height, f"picture {mode}").normal(0, 20, wave.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8).squeeze(), mode)


def processor(out, name, image, config, suffix="png", **save):
    file = out / f"image.{suffix}"
    image.save(file, **save)
    with Image.open(file) as opened:
        values = ViTImageProcessor.from_dict(dict(config))(opened, return_tensors="np")["pixel_values"]
    tensors = {"expected.pixel_values": values.astype(np.float32)}
    folder = write_case(out, f"processor-{name}", "processor", tensors, PIXELS, image=file.name)
    shutil.move(file, folder / file.name)
    write_json(folder / "preprocessor_config.json", config)


def write_processor(out):
    rgb = picture("RGB", 83, 61)
    processor(out, "old-form-png", rgb, OLD_FORM)
    processor(out, "new-form-png", rgb, NEW_FORM)
    processor(out, "defaults-of-the-class", picture("RGB", 30, 30), {"size": 32})
    processor(out, "bicubic-up", picture("RGB", 21, 33), {**IMAGENET, "resample": 3, "size": 50})
    processor(out, "lanczos-down", rgb, {**IMAGENET, "resample": 1, "size": {"height": 24, "width": 32}})
    processor(out, "nearest", rgb, {**IMAGENET, "resample": 0, "size": 32})
    processor(out, "no-resize", picture("RGB", 34, 26), {**IMAGENET, "do_resize": False})
    processor(out, "no-rescale", picture("RGB", 40, 40), {**IMAGENET, "do_rescale": False, "size": 24})
    processor(out, "no-normalize", picture("RGB", 40, 40), {"do_normalize": False, "size": 24})
    processor(out, "rescale-127.5", picture("RGB", 40, 40), {**IMAGENET, "rescale_factor": 1 / 127.5, "size": 24})
    processor(out, "grey-to-rgb", picture("L", 45, 37), {**OLD_FORM, "do_convert_rgb": True})
    processor(out, "rgba-to-rgb", picture("RGBA", 45, 37), {**OLD_FORM, "do_convert_rgb": True})
    processor(out, "jpeg", rgb, OLD_FORM, suffix="jpg", quality=90)
    processor(out, "jpeg-progressive", rgb, NEW_FORM, suffix="jpg", quality=75, progressive=True)
