"""What labelling pixels costs beside encoding the image: CPU seconds of one thread, and operations counted.

    OMP_NUM_THREADS=1 python benchmarks/segment.py

A ViT-B/16 of random weights (time does not depend on them) encodes images of 224 x 224; then everything that
``cmgl segment --mode predict`` does with the tokens is timed: probes, transform, decoder, label map at 480 x 360. For
the default decoder, the generative one and the paper's, against the number of classes C and of nodes p. Operations are
counted by torch, as a share of the encoder's.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cmgl_cli.graphs import Nonparanormal
from cmgl_cli.heads.appearance import APPEARANCE_NODES
from cmgl_cli.heads.catalogue import build_decoder
from cmgl_cli.heads.context import WINDOWS
from cmgl_cli.heads.evidence import GraphEvidence
from cmgl_cli.heads.full_size import full_size_labels
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.segmentation.views import PatchView

GRID, WIDTH, KEY_WIDTH, BATCH = (14, 14), 768, 64, 4
SIZE = (360, 480)


def evidence(n_classes: int, p: int, rng: np.random.Generator) -> GraphEvidence:
    """Return random graphs of the default observations."""
    size = APPEARANCE_NODES + (1 + len(WINDOWS)) * p
    factors = rng.standard_normal((n_classes, size, size)) / np.sqrt(size)
    precision = factors @ factors.transpose(0, 2, 1) + np.eye(size)
    means = rng.standard_normal((n_classes, size))
    priors = np.full(n_classes, 1 / n_classes)
    return GraphEvidence(precision, precision.mean(0), means, priors, windows=WINDOWS, appearance=APPEARANCE_NODES)


def view(p: int, rng: np.random.Generator) -> PatchView:
    """Return fresh probes with a fitted transform."""
    transform = Nonparanormal("pooled").fit(rng.standard_normal((5000, p)))
    return PatchView(Distiller(WIDTH, p, KEY_WIDTH).eval(), transform, GRID, torch.device("cpu"))


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the least CPU seconds of some runs, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def operations(run: Callable[[], object]) -> int:
    """Return the operations of matrix products and convolutions, a multiply-add counted as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    config = SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224
    )
    encoder = SiglipVisionModel(config).eval()
    images = torch.rand(BATCH, 3, 224, 224)
    with torch.inference_mode():
        encoding = seconds(lambda: encoder(pixel_values=images), repeats) / BATCH
    whole = operations(lambda: encoder(pixel_values=images)) / BATCH
    print(f"ViT-B/16, float32: {1e3 * encoding:.0f} ms an image, {whole / 1e9:.1f} G operations")
    tokens = rng.standard_normal((BATCH, GRID[0] * GRID[1], WIDTH)).astype(np.float32)
    pictures = rng.integers(0, 255, (BATCH, 112, 112, 3), dtype=np.uint8)
    heads = ("decoder", "C", "p", "decoding, ms an image", "of it label map", "encoder's share of time", "operations")
    print(f"| {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|---|")
    for name in ("unet", "generative", "paper"):
        for n_classes in (2, 21, 150):
            for p in (16, 32, 64):
                seen = view(p, rng)
                decoder = build_decoder(name, evidence(n_classes, p, rng), WIDTH, KEY_WIDTH).eval()

                def decode(seen: PatchView = seen, decoder: torch.nn.Module = decoder) -> np.ndarray:
                    with torch.no_grad():
                        return decoder(seen.inputs(tokens, pictures)).numpy()

                logits = decode()
                labels = seconds(lambda logits=logits: full_size_labels(logits[0], SIZE), repeats)
                total = seconds(decode, repeats) / BATCH + labels
                share = encoding / (encoding + total)
                counted = operations(decode) / BATCH / whole
                times = f"{1e3 * total:.1f} | {1e3 * labels:.1f} | {share:.0%}"
                print(f"| {name} | {n_classes} | {p} | {times} | {counted:.1%} |", flush=True)


if __name__ == "__main__":
    main()
