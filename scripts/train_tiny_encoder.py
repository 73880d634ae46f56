"""Train the bundled encoder ``builtin:tiny`` on handwritten digits and their rendered class texts.

    python scripts/train_tiny_encoder.py --out cmgl_cli/encoders/tiny

One small SigLIP vision tower reads both the photographs of digits (training split only) and written sentences about
them, drawn as images. Any two images of one class, digit or page, are a positive pair and all others are negatives,
under the pairwise sigmoid loss with learnt temperature and bias (Zhai et al., "Sigmoid loss for language image
pre-training", ICCV 2023). An image's embedding is the mean of its patch tokens, standardised over the batch, so that
the patches carry the information. Three texts of every class are kept out of training, to measure retrieval with
unseen texts. White paper is normalised to 0 and positions start large, so that a patch first of all knows where it is;
with the usual start (mean 0.5, deviation of positions 0.09) trial runs stayed at chance.

Writes the checkpoint (float16 safetensors) and ``training.json`` with seed, settings, loss curve and figures.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional
from transformers import SiglipVisionConfig, SiglipVisionModel

from cmgl_cli.datasets import Dataset, open_dataset
from cmgl_cli.encoders import encode_stream, load_encoder
from cmgl_cli.nodes.fonts import load_font
from cmgl_cli.nodes.rendering import Canvas, render

SIDE = 112
PREPROCESSOR = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [1.0, 1.0, 1.0],
    "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": True,
}


@dataclass(frozen=True)
class Settings:
    """Everything the weights depend on."""

    seed: int = 0
    steps: int = 450
    batch: int = 48
    peak_rate: float = 1.5e-3
    position_deviation: float = 0.5
    weight_decay: float = 0.05
    variants: int = 12
    held_out_texts: int = 3


def tower() -> SiglipVisionModel:
    """Return the untrained tower: 8 x 8 patches of 14 px, width 128, 4 layers."""
    config = SiglipVisionConfig(
        image_size=SIDE,
        patch_size=14,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        vision_use_head=False,
        attn_implementation="sdpa",
    )
    return SiglipVisionModel(config)


def digit_images(data: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return grey images [n, SIDE, SIDE] uint8 and labels [n] of one split."""
    samples = data.samples(split)
    images = np.stack([np.asarray(data.image(sample).convert("L")) for sample in samples])
    return images, np.array([sample.labels[0] for sample in samples])


def split_texts(data: Dataset, settings: Settings) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Return (class, text) for training and held out."""
    rng = np.random.default_rng(settings.seed)
    train, held = [], []
    for label, name in enumerate(data.classes):
        order = rng.permutation(len(data.texts[name]))
        for rank, index in enumerate(order):
            (held if rank < settings.held_out_texts else train).append((label, data.texts[name][index]))
    return train, held


def page_images(texts: list[tuple[int, str]], settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Return pages [n, SIDE, SIDE] uint8 and labels: each text in several sizes, margins and wordings."""
    rng, font = np.random.default_rng(settings.seed + 1), load_font()
    pages, labels = [], []
    by_class: dict[int, list[str]] = {}
    for label, text in texts:
        by_class.setdefault(label, []).append(text)
    for label, text in texts:
        for variant in range(settings.variants):
            wording = text if variant < settings.variants // 2 else reworded(text, by_class[label], rng)
            smallest = int(rng.integers(14, 30))
            canvas = Canvas(224, smallest, int(rng.integers(max(smallest, 28), 65)), margin=int(rng.integers(4, 17)))
            for page in render(wording, font, canvas).pages:
                pages.append(np.asarray(Image.fromarray(page).resize((SIDE, SIDE), Image.Resampling.BILINEAR))[..., 0])
                labels.append(label)
    return np.stack(pages), np.array(labels)


def reworded(text: str, others: list[str], rng: np.random.Generator) -> str:
    """Return part of a text, or two texts of its class one after the other."""
    words = text.split()
    if rng.random() < 0.3:
        return f"{text} {others[rng.integers(len(others))]}"
    start = int(rng.integers(0, max(1, len(words) // 3)))
    stop = int(rng.integers(max(start + 3, 2 * len(words) // 3), len(words) + 1)) if len(words) > 4 else len(words)
    return " ".join(words[start:stop])


def warp(images: torch.Tensor, degrees: float, scale: float, shift: float, rng: torch.Generator) -> torch.Tensor:
    """Return randomly rotated, sheared, scaled and shifted images [B, 1, H, W]; paper continues beyond the edge."""

    def uniform(limit: float) -> torch.Tensor:
        return limit * (2 * torch.rand(len(images), generator=rng) - 1)

    angle, shear = torch.deg2rad(uniform(degrees)), torch.deg2rad(uniform(degrees))
    rows = 1 + uniform(scale), 1 + uniform(scale)
    theta = torch.stack(
        [
            torch.stack([rows[0] * angle.cos(), -(angle + shear).sin(), uniform(shift)], dim=-1),
            torch.stack([angle.sin(), rows[1] * (angle + shear).cos(), uniform(shift)], dim=-1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def embed(model: SiglipVisionModel, images: torch.Tensor) -> torch.Tensor:
    """Return the means [B, d] of the patch tokens."""
    return model(pixel_values=images.expand(-1, 3, -1, -1)).last_hidden_state.mean(dim=1)


def unit(means: torch.Tensor) -> torch.Tensor:
    """Return embeddings of one modality standardised over the batch, with length 1.

    White paper gives all images nearly the same mean: without this their cosines start, and stay, near 1.
    """
    return functional.normalize(functional.batch_norm(means, None, None, training=True), dim=-1)


def sigmoid_loss(vectors: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the sigmoid loss over all pairs of different images; ``scale`` holds log temperature and bias."""
    logits = vectors @ vectors.T * scale[0].exp() + scale[1]
    agreement = functional.logsigmoid(torch.where(labels[:, None] == labels[None], logits, -logits))
    return -(agreement.sum() - agreement.diagonal().sum()) / len(vectors)


class Batches:
    """Endless augmented batches of one kind of image."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, warps: tuple[float, float, float], seed: int):
        self.images, self.labels = torch.from_numpy(images)[:, None], torch.from_numpy(labels)
        self.warps, self.rng = warps, torch.Generator().manual_seed(seed)
        self._order = self._shuffled()

    def _shuffled(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(len(self.labels), generator=self.rng).tolist()

    def take(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return normalised images [count, 1, H, W] and labels."""
        rows = torch.tensor([next(self._order) for _ in range(count)])
        images = warp(self.images[rows].float() / 127.5 - 2, *self.warps, self.rng)
        contrast = 1 - 0.3 * torch.rand(count, 1, 1, 1, generator=self.rng)
        return contrast * images, self.labels[rows]


def train(model: SiglipVisionModel, digits: Batches, pages: Batches, settings: Settings) -> list[dict[str, float]]:
    """Train in place; return the loss curve."""
    # Temperature 10 as in the paper; the bias starts at the log odds of a positive pair among ten classes.
    scale = torch.nn.Parameter(torch.tensor([math.log(10.0), -math.log(9.0)]))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
        {"params": [scale], "weight_decay": 0.0, "lr": settings.peak_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.peak_rate, betas=(0.9, 0.98))
    warmup = max(1, settings.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / settings.steps)) + 1e-3),
    )
    curve: list[dict[str, float]] = []
    recent: list[float] = []
    for step in range(settings.steps):
        (images, labels), (texts, classes) = digits.take(settings.batch), pages.take(settings.batch)
        vectors = embed(model, torch.cat([images, texts]))
        vectors = torch.cat([unit(part) for part in vectors.split(settings.batch)])
        loss = sigmoid_loss(vectors, torch.cat([labels, classes]), scale)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if (step + 1) % 25 == 0 or step + 1 == settings.steps:
            point = {
                "step": step + 1,
                "loss": round(float(np.mean(recent)), 4),
                "temperature": round(scale[0].exp().item(), 3),
            }
            curve.append(point | {"bias": round(scale[1].item(), 3)})
            print(json.dumps(curve[-1]), flush=True)
            recent.clear()
    return curve


def write_checkpoint(model: SiglipVisionModel, folder: Path) -> None:
    """Write weights in float16, configuration and preprocessor."""
    model.half().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")


def mean_tokens(folder: Path, images: np.ndarray) -> np.ndarray:
    """Return mean-pooled patch tokens [n, d] of grey images through the toolkit's own path."""
    encoder = load_encoder(str(folder), device="cpu", dtype="float32")
    items = [(i, lambda grey=grey: Image.fromarray(grey).convert("RGB")) for i, grey in enumerate(images)]
    return np.concatenate([batch.tokens.mean(axis=1) for batch in encode_stream(encoder, items, dtype="float32")])


def tuned_probe(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the accuracy of a logistic regression whose strength is chosen on the validation part."""

    def fitted(strength: float) -> Pipeline:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000))
        return probe.fit(features["train"], labels["train"])

    strengths = 10.0 ** np.arange(-4, 3)
    probes = [fitted(strength) for strength in strengths]
    scores = [probe.score(features["val"], labels["val"]) for probe in probes]
    best = int(np.argmax(scores))
    return {
        "C": float(strengths[best]),
        "val": round(100 * scores[best], 2),
        "test": round(100 * probes[best].score(features["test"], labels["test"]), 2),
    }


def retrieval(images: np.ndarray, labels: np.ndarray, texts: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Return per cent of right answers from texts to digits and back; nothing is fitted.

    Parameters
    ----------
    images, texts : ndarray (n, d)
        Unit vectors.
    labels, classes : ndarray (n,)
        Their digits.
    """
    by_text = np.argmax(images @ centres(texts, classes).T, axis=1) == labels
    by_digit = np.argmax(texts @ centres(images, labels).T, axis=1) == classes
    first = labels[np.argmax(texts @ images.T, axis=1)] == classes
    named = {"digit_named_by_texts": by_text, "text_named_by_digits": by_digit, "first_digit_found_by_text": first}
    return {name: round(100 * float(right.mean()), 2) for name, right in named.items()}


def centres(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean direction of every class."""
    means = np.stack([vectors[labels == c].mean(axis=0) for c in range(10)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def standardised(tokens: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return unit vectors, standardised by mean and deviation of training vectors of the same modality."""
    scaled = (tokens - like.mean(axis=0)) / (like.std(axis=0) + 1e-6)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def plain_pages(texts: list[tuple[int, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the pages of the toolkit's default rendering, and their classes."""
    font, pages, labels = load_font(), [], []
    for label, text in texts:
        for page in render(text, font).pages:
            pages.append(page[..., 0])
            labels.append(label)
    return np.stack(pages), np.array(labels)


def evaluate(folder: Path, data: Dataset, train_texts: list, held_texts: list) -> dict[str, Any]:
    """Return all figures of a checkpoint, through the toolkit's own encoder."""
    parts = {split: digit_images(data, split) for split in ("train", "val", "test")}
    labels = {split: labels for split, (_, labels) in parts.items()}
    pixels = {split: shrunk(images) for split, (images, _) in parts.items()}
    tokens = {split: mean_tokens(folder, images) for split, (images, _) in parts.items()}
    figures: dict[str, Any] = {"probe": tuned_probe(tokens, labels), "raw_pixel_probe": tuned_probe(pixels, labels)}
    for name, features in (("knn", tokens), ("raw_pixel_knn", pixels)):
        neighbours = KNeighborsClassifier(5).fit(features["train"], labels["train"])
        figures[name] = {"test": round(100 * neighbours.score(features["test"], labels["test"]), 2)}
    pages = {name: plain_pages(texts) for name, texts in (("training", train_texts), ("held_out", held_texts))}
    vectors = {name: mean_tokens(folder, images) for name, (images, _) in pages.items()}
    digits = standardised(tokens["test"], tokens["train"])
    for name, (_, classes) in pages.items():
        texts = standardised(vectors[name], vectors["training"])
        figures[f"retrieval_{name}_texts"] = retrieval(digits, labels["test"], texts, classes)
    return figures


def shrunk(images: np.ndarray) -> np.ndarray:
    """Return images as 28 x 28 pixels in a row, in [0, 1]."""
    return np.stack([np.asarray(Image.fromarray(image).resize((28, 28))).ravel() / 255 for image in images])


def train_and_write(folder: Path, data: Dataset, settings: Settings, train_texts: list) -> dict[str, Any]:
    """Train, write the checkpoint, and return what is to be known about the training."""
    wall, cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(settings.seed)
    digits = Batches(*digit_images(data, "train"), (8.0, 0.1, 0.1), settings.seed + 3)
    pages = Batches(*page_images(train_texts, settings), (1.5, 0.05, 0.04), settings.seed + 4)
    model = tower()
    torch.nn.init.normal_(model.embeddings.position_embedding.weight, std=settings.position_deviation)
    curve = train(model, digits, pages, settings)
    write_checkpoint(model, folder)
    return {
        "settings": asdict(settings),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "digits": len(digits.labels),
        "pages": len(pages.labels),
        "parameters": sum(p.numel() for p in model.parameters()),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "curve": curve,
    }


def main() -> None:
    """Train, write and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (sums are rounded accordingly)")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--figures-only", action="store_true", help="measure the checkpoint in --out again")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = Settings(seed=options.seed, steps=options.steps)
    data, target = open_dataset("digits", size=SIDE), options.out / "training.json"
    train_texts, held_texts = split_texts(data, settings)
    if options.figures_only:
        record = json.loads(target.read_text())
    else:
        record = train_and_write(options.out, data, settings, train_texts)
    record["weights_digest"] = load_encoder(str(options.out), device="cpu").weights_digest
    record["figures"] = evaluate(options.out, data, train_texts, held_texts)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["figures"], indent=1))


if __name__ == "__main__":
    main()
