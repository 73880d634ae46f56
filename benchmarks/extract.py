"""Feature extraction on the CPU: our path against plain transformers in float32, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/extract.py [--batch 4] [--rounds 3] [--compile] [--json FILE]

A ViT-B/16 with random weights at 224 px (no hub needed: time does not depend on the values) is written to a temporary
folder and run by plain ``transformers`` as its documentation shows it, and by `load_encoder` / `Encoder.encode` in
several arithmetics. The variants take turns in every round, so that a busy machine slows all of them. Compared is CPU
time of one thread, the best round of each. Beside it: the matrix product peak of each dtype, measured as the best of
square products, and the share of time that decoding and resizing JPEG files take.
"""

import argparse
import io
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, ViTConfig, ViTModel

from cmgl_cli.encoders import Encoder, encode_stream, load_encoder
from cmgl_cli.encoders.compute import cpu_multiplies_bfloat16

PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
LAYERS, WIDTH, HIDDEN, TOKENS, PATCHES, PATCH_VALUES = 12, 768, 3072, 197, 196, 768
# Multiplications and additions of one forward pass: projections, attention, feed-forward, patch embedding.
GFLOP = 2e-9 * (
    LAYERS * (4 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH + 2 * TOKENS * WIDTH * HIDDEN)
    + PATCHES * PATCH_VALUES * WIDTH
)
UNITS = ("amx_bf16", "avx512_bf16", "avx512_fp16", "avx512_f", "avx2")


def write_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    ViTModel(ViTConfig(), add_pooling_layer=False).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def matmul_peak(dtype: torch.dtype) -> float:
    """Return the best GFLOP/s of square products in one thread."""
    best = 0.0
    for side in (1024, 2048, 3072):
        one, other = (torch.randn(side, side).to(dtype) for _ in range(2))
        seconds = min(cpu_seconds(lambda one=one, other=other: one @ other) for _ in range(4))
        best = max(best, 2e-9 * side**3 / seconds)
    return best


def photographs(count: int) -> list[bytes]:
    """Return JPEG files of 640 x 480 smooth random pictures (as compressible as photographs)."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def open_rgb(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def plain_transformers(folder: Path, images: list[Image.Image]) -> Callable[[], object]:
    """Return the documented way: processor output through the model in its default dtype, without gradients."""
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=images, return_tensors="pt")

    def run() -> object:
        with torch.no_grad():
            return model(**inputs).last_hidden_state

    return run


def ours(folder: Path, images: list[Image.Image], **options: Any) -> Callable[[], object]:
    encoder = load_encoder(str(folder), device="cpu", **options)
    pixels = [encoder.preprocess(image) for image in images]
    return lambda: encoder.encode(pixels)


def channels_last(folder: Path, images: list[Image.Image]) -> Callable[[], object]:
    encoder = load_encoder(str(folder), device="cpu", dtype="bfloat16")
    encoder._model.to(memory_format=torch.channels_last)
    pixels = [encoder.preprocess(image) for image in images]
    return lambda: encoder.encode(pixels)


def compiled(folder: Path, images: list[Image.Image]) -> Callable[[], object]:
    """Return the model compiled by torch.compile with its weights frozen (and so packed once)."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    encoder = load_encoder(str(folder), device="cpu", dtype="bfloat16")
    model = torch.compile(encoder._model)
    values = torch.from_numpy(np.stack([encoder.preprocess(image).values for image in images])).bfloat16()

    def run() -> object:
        with torch.no_grad():
            return model(values).last_hidden_state.float()

    return run


def variants(folder: Path, images: list[Image.Image], with_compile: bool) -> dict[str, tuple[str, int, Callable]]:
    """Return name -> (dtype, images, work)."""
    count = len(images)
    table = {
        "plain transformers float32": ("float32", count, plain_transformers(folder, images)),
        "ours float32": ("float32", count, ours(folder, images, dtype="float32")),
        "ours float32, precision medium": ("float32", count, ours(folder, images, dtype="float32", precision="medium")),
        "ours bfloat16": ("bfloat16", count, ours(folder, images, dtype="bfloat16")),
        "ours bfloat16, eager attention": (
            "bfloat16",
            count,
            ours(folder, images, dtype="bfloat16", attention="eager"),
        ),
        "ours bfloat16, channels last": ("bfloat16", count, channels_last(folder, images)),
        "ours bfloat16, one image at a time": ("bfloat16", 1, ours(folder, images[:1], dtype="bfloat16")),
        "ours bfloat16, batch x 4": ("bfloat16", 4 * count, ours(folder, 4 * images, dtype="bfloat16")),
    }
    if with_compile:
        table["bfloat16 compiled and frozen"] = ("bfloat16", count, compiled(folder, images))
    return table


def measure(table: dict[str, tuple[str, int, Callable]], rounds: int) -> dict[str, float]:
    """Return images per CPU second, the best round of each; a first round warms up."""
    best = dict.fromkeys(table, 0.0)
    for turn in range(rounds + 1):
        for name, (_, count, work) in table.items():
            rate = count / cpu_seconds(work)
            if turn:
                best[name] = max(best[name], rate)
    return best


def stream_shares(encoder: Encoder, files: list[bytes]) -> dict[str, float]:
    """Return CPU seconds an image for decoding, for resizing and normalising, and for the whole stream."""
    images = [open_rgb(data) for data in files]
    decode = cpu_seconds(lambda: [open_rgb(data).load() for data in files]) / len(files)
    resize = cpu_seconds(lambda: [encoder.preprocess(image) for image in images]) / len(files)
    items = [(i, lambda data=data: open_rgb(data)) for i, data in enumerate(files)]
    whole = cpu_seconds(lambda: list(encode_stream(encoder, items, workers=1))) / len(files)
    return {"decode": decode, "resize_normalise": resize, "whole": whole, "share": (decode + resize) / whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder)
        images = [open_rgb(data) for data in photographs(options.batch)]
        table = variants(folder, images, options.compile)
        peaks = {"float32": matmul_peak(torch.float32), "bfloat16": matmul_peak(torch.bfloat16)}
        rates = measure(table, options.rounds)
        shares = stream_shares(load_encoder(name, device="cpu"), photographs(options.files))
    # Measured again at the end: on a shared machine the peak itself moves.
    peaks = {key: max(value, matmul_peak(getattr(torch, key))) for key, value in peaks.items()}
    base = rates["plain transformers float32"]
    record = {
        "cpu": capabilities.get("cpu_name") or platform.processor(),
        "units": [unit for unit in UNITS if capabilities.get(unit)],
        "dtype_auto_is_bfloat16": cpu_multiplies_bfloat16(),
        "torch": torch.__version__,
        "batch": options.batch,
        "gflop_per_image": round(GFLOP, 2),
        "matmul_peak_gflops": {key: round(value, 1) for key, value in peaks.items()},
        "variants": {
            key: {
                "images_per_cpu_second": round(rate, 2),
                "ratio": round(rate / base, 2),
                "share_of_peak": round(rate * GFLOP / peaks[table[key][0]], 2),
            }
            for key, rate in rates.items()
        },
        "stream_cpu_seconds_per_image": {key: round(value, 4) for key, value in shares.items()},
    }
    text = json.dumps(record, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
