"""Writes the fixtures of vitmae-image: what Pillow and transformers make of given images.

    python images.py OUT_DIR          (packages: requirements-images.txt)

Files: `resize.csv`, `decode.csv`, `processor.json`, `crop.csv`, `similarity.csv`, `README.md` and the images. Pixels
are stored as a hash (FNV-1a of 64 bits over the bytes); the inputs of `resize.csv` follow from a
seed by `pattern`, which crates/vitmae-image/tests/pillow.rs repeats.
"""

import csv
import io
import json
import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
import skimage
import skimage.metrics
import transformers
from PIL import Image
from transformers import ViTImageProcessor
from transformers.image_transforms import get_resize_output_image_size

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
PHOTOS = Path(skimage.__file__).parent / "data"


def fnv(data):
    """FNV-1a, 64 bits."""
    hash = 0xCBF29CE484222325
    for byte in data:
        hash = ((hash ^ byte) * 0x100000001B3) & MASK
    return f"{hash:016x}"


def splitmix(seed, index):
    """Number `index` (an array or an int) of the splitmix64 stream that starts at `seed`."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.asarray(index, np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def pattern(kind, seed, width, height, channels):
    """An image [height, width, channels] by formula: noise, a smooth wave, or hard blocks."""
    y, x, c = np.meshgrid(
        np.arange(height), np.arange(width), np.arange(channels), indexing="ij"
    )
    if kind == "noise":
        return (splitmix(seed, (y * width + x) * channels + c) >> np.uint64(56)).astype(np.uint8)
    if kind == "smooth":
        wave = (x * (1 + seed % 5) + y * (1 + seed // 5 % 7) + c * 85 + seed % 512) % 512
        return np.where(wave < 256, wave, 511 - wave).astype(np.uint8)
    block = splitmix(seed, ((y // 3) * 65536 + x // 3) * 4 + c) >> np.uint64(63)
    return (block * np.uint64(255)).astype(np.uint8)


def to_pillow(array):
    array = array[..., 0] if array.shape[2] == 1 else array
    return Image.fromarray(np.ascontiguousarray(array))


def resize_cases(rng):
    """Random sizes, boxes and filters, with the extremes that random sizes seldom hit."""
    odd = [(1, 1), (1, 7), (7, 1), (2, 2), (640, 3), (3, 640), (255, 256), (97, 89)]
    for number in range(960):
        filter = number % 6
        kind = ("noise", "smooth", "blocks")[number // 6 % 3]
        channels = (3, 1, 3, 4, 3, 2)[number // 18 % 6]
        width, height = (int(side) for side in rng.integers(1, 160, 2))
        out = tuple(int(side) for side in rng.integers(1, 160, 2))
        if number % 11 == 0:
            width, height = odd[number // 11 % len(odd)]
        if number % 13 == 0:
            out = odd[number // 13 % len(odd)]
        if number % 17 == 0:
            out = (width, out[1])
        if number % 19 == 0:
            out = (out[0], height)
        box = None
        if number % 5 < 3:
            x, y = np.sort(rng.random((2, 2)), axis=1)
            box = [x[0] * width, y[0] * height, x[1] * width, y[1] * height]
            if number % 5 == 0:
                box = [math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])]
            if number % 5 == 1 and number % 2:
                box[1], box[3] = 0.0, float(height)
            if not (box[0] < box[2] and box[1] < box[3]):
                box = None
        yield number, kind, width, height, channels, out, filter, box
    # Pillow 13 begins with the vertical pass where the height loses more than twice the pixels
    # that the width loses: sizes on both sides of that line, and on it.
    for number in range(960, 1100):
        width, out_height = (int(side) for side in rng.integers(2, 90, 2))
        out_width = int(rng.integers(1, width + 30 if number % 4 == 0 else width + 1))
        height = max(1, out_height + 2 * max(0, width - out_width) + number % 3 - 1)
        box = None
        if number % 2:
            x, y = rng.random(2) * 0.4
            box = [x * width, y * height, 0.9 * width, 0.8 * height]
        yield number, "noise", width, height, (1, 3, 4)[number % 5 % 3], (out_width, out_height), number % 4 + 1, box


def write_resize(out):
    with open(out / "resize.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow("seed pattern width height channels out_width out_height filter box hash".split())
        for seed, kind, width, height, channels, size, filter, box in resize_cases(np.random.default_rng(1)):
            image = to_pillow(pattern(kind, seed, width, height, channels))
            assert image.mode == MODES[channels]
            resized = image.resize(size, filter, tuple(box) if box else None)
            text = " ".join(repr(float(side)) for side in box) if box else ""
            rows.writerow([seed, kind, width, height, channels, *size, filter, text, fnv(resized.tobytes())])


def png(width, height, depth, color, rows, extra=b"", interlaced=False):
    """A PNG that Pillow cannot write: any depth, any colour type, Adam7. `rows` yields samples."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def line(values):
        if depth == 16:
            return b"\0" + values.astype(">u2").tobytes()
        bits = np.unpackbits(values.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
        return b"\0" + np.packbits(bits.reshape(-1)).tobytes()

    rows = rows.reshape(height, width, samples)
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for x, y, dx, dy in passes:
        part = rows[y::dy, x::dx]
        if part.size:
            data += b"".join(line(row.reshape(-1)) for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
        + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
    )


def png_chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def write_images(out):
    """Photographs in every encoding that matters; every file is listed in README.md."""

    def photo(name, box, size=None):
        image = Image.open(PHOTOS / f"{name}.png" if name != "rocket" else PHOTOS / "rocket.jpg")
        image = image.convert("RGB" if name != "camera" else "L").crop(box)
        return image.resize(size, Image.Resampling.LANCZOS) if size else image

    chelsea = photo("chelsea", (60, 30, 360, 255))
    coffee = photo("coffee", (100, 40, 500, 340), (203, 151))
    astronaut = photo("astronaut", (130, 0, 330, 200), (161, 161))
    rocket = photo("rocket", (200, 60, 440, 400))
    camera = photo("camera", (120, 40, 320, 240))

    def jpeg(name, image, **options):
        image.save(out / f"{name}.jpg", **options)

    jpeg("chelsea-420", chelsea, quality=85, subsampling="4:2:0")
    jpeg("coffee-444", coffee, quality=92, subsampling="4:4:4")
    jpeg("coffee-422", coffee, quality=75, subsampling="4:2:2")
    jpeg("coffee-411", coffee, quality=75, subsampling="4:1:1")
    jpeg("rocket-progressive", rocket, quality=80, progressive=True)
    jpeg("astronaut-progressive-444", astronaut, quality=90, progressive=True, subsampling="4:4:4")
    jpeg("astronaut-restart", astronaut, quality=50, restart_marker_rows=1)
    jpeg("astronaut-rgb", astronaut.crop((0, 0, 61, 53)), quality=90, keep_rgb=True)
    jpeg("camera-grey", camera, quality=80)
    jpeg("camera-grey-progressive", camera.crop((3, 5, 100, 90)), quality=60, progressive=True)
    # Pillow writes CMYK with an Adobe marker, transform 0; transform 2 makes it YCCK.
    jpeg("chelsea-cmyk", chelsea.crop((0, 0, 99, 75)).convert("CMYK"), quality=90)
    data = (out / "chelsea-cmyk.jpg").read_bytes()
    adobe = data.index(b"Adobe")
    (out / "chelsea-ycck.jpg").write_bytes(data[: adobe + 11] + b"\2" + data[adobe + 12 :])
    # Without the marker libjpeg takes four components as CMYK, and Pillow still inverts.
    length = struct.unpack(">H", data[adobe - 2 : adobe])[0]
    (out / "chelsea-cmyk-bare.jpg").write_bytes(data[: adobe - 4] + data[adobe - 2 + length :])

    small = chelsea.crop((90, 60, 151, 107))
    rgb = np.array(small)
    alpha = pattern("smooth", 4, *small.size, 1)
    grey = np.array(small.convert("L"))[..., None]
    to_pillow(np.concatenate([rgb, alpha], axis=2)).save(out / "rgba.png")
    to_pillow(np.concatenate([grey, alpha], axis=2)).save(out / "grey-alpha.png")
    small.save(out / "rgb.png")
    small.save(out / "rgb-trns.png", transparency=tuple(int(v) for v in rgb[0, 0]))
    to_pillow(grey).save(out / "grey.png")
    to_pillow(grey).save(out / "grey-trns.png", transparency=int(grey[0, 0, 0]))
    palette = small.quantize(40)
    palette.save(out / "palette.png")
    palette.save(out / "palette-trns.png", transparency=bytes(range(0, 240, 6)))
    small.quantize(13).save(out / "palette-4.png", bits=4)

    width, height = small.size
    wide = (pattern("noise", 7, width, height, 4).astype(np.uint32) * 257 + 3) % 65536
    files = {
        "grey-1.png": png(width, height, 1, 0, grey >> 7),
        "grey-2.png": png(width, height, 2, 0, grey >> 6),
        "grey-4.png": png(width, height, 4, 0, grey >> 4),
        "grey-16.png": png(width, height, 16, 0, grey.astype(np.uint32) * 3),
        "grey-16-trns.png": png(
            width, height, 16, 0, grey.astype(np.uint32) * 3, png_chunk(b"tRNS", b"\0\x64")
        ),
        "grey-2-trns.png": png(width, height, 2, 0, grey >> 6, png_chunk(b"tRNS", b"\0\1")),
        "grey-alpha-16.png": png(width, height, 16, 4, wide[..., :2]),
        "rgb-16.png": png(width, height, 16, 2, wide[..., :3]),
        "rgba-16.png": png(width, height, 16, 6, wide),
        "rgb-interlaced.png": png(width, height, 8, 2, rgb, interlaced=True),
        "grey-1-interlaced.png": png(width, height, 1, 0, grey >> 7, interlaced=True),
        "rgba-16-interlaced.png": png(width, height, 16, 6, wide, interlaced=True),
        "palette-short.png": png(
            width, height, 8, 3, grey % 9, png_chunk(b"PLTE", bytes(range(30, 45)))
        ),
        "palette-1.png": png(width, height, 1, 3, grey >> 7, png_chunk(b"PLTE", b"\1\2\3\xc8\xc9\xca")),
        "palette-2.png": png(width, height, 2, 3, grey >> 6, png_chunk(b"PLTE", bytes(range(12)))),
    }
    for name, data in files.items():
        (out / name).write_bytes(data)

    transparent = to_pillow(np.concatenate([rgb, alpha], axis=2))
    coffee.save(out / "coffee.webp", quality=80)
    rocket.save(out / "rocket-low.webp", quality=15)
    chelsea.crop((0, 0, 121, 90)).save(out / "chelsea-lossless.webp", lossless=True)
    transparent.save(out / "alpha.webp", quality=70)
    transparent.save(out / "alpha-lossless.webp", lossless=True, exact=True)
    frames = [small, small.rotate(180), small.rotate(90)]
    frames[0].save(out / "animated.webp", save_all=True, append_images=frames[1:], duration=40, quality=60)
    frames[0].save(out / "animated.png", save_all=True, append_images=frames[1:], duration=40)


def decoded(path):
    """What `decode` promises: the file's own channels, or RGB where an 8-bit mode lacks."""
    image = Image.open(path)
    image.load()
    if image.mode in ("1", "I;16"):
        return image.convert("L")
    return image if image.mode in MODES.values() else image.convert("RGB")


def image_files(out):
    return sorted(path for path in out.iterdir() if path.suffix in (".jpg", ".png", ".webp"))


def write_decode(out):
    with open(out / "decode.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow("file pillow_mode width height channels hash rgb_hash".split())
        for path in image_files(out):
            own, image = decoded(path), Image.open(path)
            channels = len(own.getbands())
            rgb = fnv(image.convert("RGB").tobytes())
            rows.writerow([path.name, image.mode, *own.size, channels, fnv(own.tobytes()), rgb])


def write_processor(out):
    """Pixels of transformers' slow class, whole by hash, with some values for finding faults."""
    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    facebook = {
        "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViTFeatureExtractor",
        **imagenet, "resample": 2, "size": 224,
    }
    cases = [("chelsea-420.jpg", facebook), ("rgb.png", facebook), ("coffee.webp", facebook), ("chelsea-420.jpg", {})]
    cases += [("rocket-progressive.jpg", {**imagenet, "resample": r, "size": {"height": 96, "width": 128}}) for r in range(6)]
    cases += [
        ("camera-grey.jpg", {**imagenet, "size": 64, "do_convert_rgb": True}),
        ("rgba.png", {**imagenet, "size": [40, 72], "do_convert_rgb": True}),
        ("chelsea-cmyk.jpg", {"size": 32, "do_convert_rgb": True}),
        ("palette-trns.png", {"size": 32, "do_convert_rgb": True}),
        ("camera-grey.jpg", {"image_mean": 0.5, "image_std": 0.25, "size": 48}),
        ("camera-grey.jpg", {"image_mean": [0.31], "image_std": [0.27], "size": 48}),
        ("rgb.png", {**imagenet, "do_resize": False}),
        ("rgb.png", {**imagenet, "do_rescale": False, "size": 30}),
        ("rgb.png", {"do_normalize": False, "size": 30}),
        ("rgb.png", {"do_normalize": False, "do_rescale": False, "size": 30}),
        ("rgb.png", {**imagenet, "rescale_factor": 0.00392156862745098, "size": 30}),
        ("rgb.png", {**imagenet, "rescale_factor": 1 / 127.5, "size": 30}),
        ("coffee-444.jpg", {**imagenet, "size": {"shortest_edge": 100}}),
        ("rocket-progressive.jpg", {**imagenet, "size": {"shortest_edge": 55}, "resample": 3}),
    ]
    rows = []
    for name, config in cases:
        image, options = decoded(out / name), dict(config)
        size = options.get("size")
        if isinstance(size, dict) and "shortest_edge" in size:
            # The slow class refuses this form; the size is that of the function the others use.
            height, width = get_resize_output_image_size(
                np.array(image), size["shortest_edge"], default_to_square=False
            )
            options["size"] = {"height": int(height), "width": int(width)}
        processor = ViTImageProcessor.from_dict(options)
        if image.mode == "L" and not options.get("do_convert_rgb"):
            pixels = processor(np.array(image)[..., None], input_data_format="channels_last")
        else:
            pixels = processor(image)
        pixels = np.asarray(pixels["pixel_values"][0]).astype(np.float32)
        flat = pixels.reshape(-1)
        rows.append({
            "image": name, "config": config, "shape": list(pixels.shape),
            "hash": fnv(flat.astype("<f4").tobytes()),
            "every_997th": [float(value) for value in flat[::997]],
        })
    note = {"pillow": PIL.__version__, "numpy": np.__version__, "transformers": transformers.__version__}
    (out / "processor.json").write_text(json.dumps({"generator": note, "cases": rows}, indent=1) + "\n")


def random_crop(height, width, scale, ratio, draw):
    """torchvision's RandomResizedCrop.get_params in f64, with the draws as an argument."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draw())
        aspect = math.exp(low + (high - low) * draw())
        w, h = int(round(math.sqrt(area * aspect))), int(round(math.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(draw() * (height - h + 1)), int(draw() * (width - w + 1))
            return left, top, w, h
    if width / height < min(ratio):
        w, h = width, int(round(width / min(ratio)))
    elif width / height > max(ratio):
        w, h = int(round(height * max(ratio))), height
    else:
        w, h = width, height
    return (width - w) // 2, (height - h) // 2, w, h


def write_crop(out):
    """Crops, and the pixels of crop, bicubic resize to 24x32 and flip, by seed."""
    rng = np.random.default_rng(2)
    with open(out / "crop.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow("seed width height left top crop_width crop_height draws hash".split())
        for seed in range(120):
            width, height = (int(side) for side in rng.integers(5, 150, 2))
            if seed % 8 == 0:
                width = int(rng.integers(1, 5))
            used = 0

            def draw():
                nonlocal used
                used += 1
                return float(splitmix(seed, used - 1) >> np.uint64(11)) / 2.0**53

            left, top, w, h = random_crop(height, width, (0.2, 1.0), (3 / 4, 4 / 3), draw)
            draws = used
            image = to_pillow(pattern("noise", seed, width, height, 3))
            image = image.crop((left, top, left + w, top + h)).resize((32, 24), Image.Resampling.BICUBIC)
            if draw() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            rows.writerow([seed, width, height, left, top, w, h, draws, fnv(image.tobytes())])


README = """# Image fixtures

Written by `tests/generate/images.py` with Pillow {pillow}, NumPy {numpy}, scikit-image {skimage} and
transformers {transformers} (`tests/generate/requirements-images.txt`); read by the tests of `vitmae-image`.
Regenerate with `cargo xtask fixtures`, or `python tests/generate/images.py tests/fixtures/images`.

| file | content |
|---|---|
| `resize.csv` | {resize} resize cases: input by seed, output by hash (FNV-1a, 64 bits) of Pillow's bytes |
| `decode.csv` | mode, size and hash of every image here as Pillow decodes it, and after `convert("RGB")` |
| `processor.json` | pixels of transformers' `ViTImageProcessor` (slow class) by hash and sample |
| `crop.csv` | random crops by seed: geometry, and hash after crop, bicubic resize and flip |

The images are cut from these photographs of the scikit-image package, then encoded anew:

| files | photograph | licence |
|---|---|---|
| `chelsea-*`, `rgb*`, `rgba*`, `grey*`, `palette*`, `alpha*`, `animated*` | cat "Chelsea", Stéfan van der Walt | CC0 |
| `coffee*` | coffee cup, Rachel Michetti (courtesy of Pikolo Espresso Bar) | CC0 |
| `camera-*` | cameraman, Lav Varshney | CC0 |
| `astronaut-*` | Eileen Collins, NASA | public domain |
| `rocket-*` | launch of DSCOVR, SpaceX | public domain |

`grey-alpha-16`, `rgb-16*` and `rgba-16*` hold noise. Pixel values above 8 bits, palettes that are too
short, missing Adobe markers and the like are deliberate: they pin down what Pillow makes of them.
"""


def write_similarity(out):
    """Mean squared error, PSNR and SSIM of two patterns, as scikit-image gives them."""
    with open(out / "similarity.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["kind_a", "seed_a", "kind_b", "seed_b", "width", "height", "channels", "mse", "psnr", "ssim"])
        for a, b, size in [
            (("smooth", 3), ("smooth", 4), (40, 31, 3)),
            (("smooth", 3), ("noise", 1), (24, 24, 3)),
            (("noise", 5), ("noise", 6), (11, 11, 1)),
            (("blocks", 7), ("smooth", 9), (33, 50, 3)),
            (("blocks", 2), ("blocks", 8), (64, 64, 1)),
        ]:
            x, y = pattern(*a, *size), pattern(*b, *size)
            ssim = skimage.metrics.structural_similarity(
                x, y, gaussian_weights=True, use_sample_covariance=False, data_range=255, channel_axis=-1
            )
            mse = skimage.metrics.mean_squared_error(x, y)
            psnr = skimage.metrics.peak_signal_noise_ratio(x, y, data_range=255)
            rows.writerow([*a, *b, *size, repr(float(mse)), repr(float(psnr)), repr(float(ssim))])


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    for path in image_files(out):
        path.unlink()
    write_images(out)
    write_decode(out)
    write_resize(out)
    write_processor(out)
    write_crop(out)
    write_similarity(out)
    cases = len((out / "resize.csv").read_text().splitlines()) - 1
    readme = README.format(
        pillow=PIL.__version__, numpy=np.__version__, skimage=skimage.__version__,
        transformers=transformers.__version__, resize=cases,
    )
    (out / "README.md").write_text(readme)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python images.py OUT_DIR")
    main(Path(sys.argv[1]))
