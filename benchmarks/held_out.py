"""What segmentation decoders are worth on a sequence never seen, each held out in turn, and how far off it lies.

    OMP_NUM_THREADS=1 python benchmarks/held_out.py --artifacts artifacts/camvid --root camvid

reads what ``cmgl distill`` and ``cmgl fit-graphs --observations region`` left there; the folder of images is opened for
decoders that look at pixels. Sequences are told by the images' names, as the folds of the graphs are.

* Decoders: trained on the training images of all folds but one, scored on that fold (with the validation images of its
  sequences), at the resolution of the masks; the last epoch is kept. "seen": trained on the whole training part, scored
  on the validation part. Training images are scored by graphs fitted without their own fold, and so are the held-out
  ones. The nodes have seen all of them. Where ``cmgl extract --augment`` left further looks at the training images,
  every decoder is trained without and with them.
* Densities: mean log-density of a cell, in nats, under the mixture of the class graphs, of graphs fitted on the
  sequence and of graphs fitted without it. It takes no label, so the test part is in it.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cmgl_cli.artifacts import Artifact, open_artifact
from cmgl_cli.datasets import Dataset, open_dataset
from cmgl_cli.heads.catalogue import build_decoder
from cmgl_cli.heads.decoders import GenerativeDecoder
from cmgl_cli.heads.evidence import GraphEvidence
from cmgl_cli.heads.frozen import CrossFits
from cmgl_cli.heads.segmentation_training import DecoderSettings, TrainingTask, score_decoder, train_decoder
from cmgl_cli.segmentation.bench import Bench, Candidate, open_bench
from cmgl_cli.segmentation.pictures import Pictures
from cmgl_cli.segmentation.sequences import sequences
from cmgl_cli.settings import SegmentConfig

CANDIDATES = (Candidate("linear", "per-class"), Candidate("unet", "none"), Candidate("unet", "per-class"))
GRAPHLESS = CANDIDATES[:2]
NAMES = ("features", "nodes", "masks", "region_graphs")
SAMPLED = 14


def with_folds(bench: Bench) -> tuple[Bench, dict[int, np.ndarray], np.ndarray]:
    """Return the bench with validation images in the fold of their sequence, each fold's rows, and all sequences."""
    # the folder of a part tells nothing of the sequence: frames of one drive may lie in two
    parts = tuple(f"{split}/" for split in set(bench.table.splits.tolist()))
    names = [
        next((name.removeprefix(part) for part in parts if name.startswith(part)), name) for name in bench.table.ids
    ]
    group = sequences(np.array(names, dtype=object))
    if bench.cross_fits is None:
        raise SystemExit("there are no cross-fits: run cmgl fit-graphs --observations region --cross-fit")
    fold = dict(bench.cross_fits.fold)
    images = {row: number for row, number in fold.items() if row < len(group)}  # further looks have their image's fold
    of_sequence = {int(group[row]): number for row, number in images.items()}
    images |= {int(row): of_sequence[int(group[row])] for row in bench.validation if int(group[row]) in of_sequence}
    rows = {
        number: np.array([row for row in images if images[row] == number]) for number in sorted(set(images.values()))
    }
    return replace(bench, cross_fits=CrossFits(bench.cross_fits.evidence, fold | images)), rows, group


def trained(bench: Bench, candidate: Candidate, task: TrainingTask, rows: np.ndarray, epochs: int) -> tuple[float, ...]:
    """Return mIoU and pixel accuracy, %, on some rows after training on others."""
    decoder = bench.build(candidate)
    settings = DecoderSettings(epochs=epochs, learning_rate=bench.config.learning_rate)
    train_decoder(decoder, task, settings, seed=bench.config.seed)
    maps = bench.data.maps
    batches = bench.data.batches(rows, shuffle=False)(0)
    report = score_decoder(decoder, batches, len(maps.classes), maps.ignore_label).report()
    return 100 * report.mean_iou, 100 * report.pixel_accuracy


def compare(bench: Bench, candidates: Sequence[Candidate], epochs: int) -> None:
    """Print the table of decoders."""
    crossed, folds, _ = with_folds(bench)
    for candidate in candidates:
        for looks in (False, True) if bench.data.augmented is not None else (False,):
            unseen = [
                trained(crossed, candidate, crossed.tasks(np.setdiff1d(bench.train, rows))[looks], rows, epochs)
                for rows in folds.values()
            ]
            seen = trained(bench, candidate, bench.tasks(bench.train)[looks], bench.validation, epochs)
            numbers = [*unseen, np.mean(unseen, axis=0), seen]
            cells = " | ".join(f"{iou:.1f}, {accuracy:.1f}" for iou, accuracy in numbers)
            print(f"| {candidate.label}{', further looks' if looks else ''} | {cells} |", flush=True)


def density(bench: Bench, evidence: GraphEvidence, rows: np.ndarray, pictures: Pictures, features: Artifact) -> float:
    """Return the mean log-density of the cells of some images, up to a constant that all graphs share."""
    decoder = build_decoder("generative", evidence, bench.data.view.distiller.width, bench.data.view.distiller.d_k)
    if not isinstance(decoder, GenerativeDecoder):
        raise TypeError("the generative decoder has densities")
    source, found = features.stream("features"), []
    for row in rows.tolist():
        with torch.no_grad():
            scores = decoder.likelihood(bench.data.view.inputs(source[row : row + 1], pictures(row)[None]))
        found.append(float(torch.logsumexp(scores, 1).mean()))
    return float(np.mean(found))


def distances(bench: Bench, dataset: Dataset, features: Artifact) -> None:
    """Print the table of densities."""
    crossed, folds, group = with_folds(bench)
    pictures = Pictures(dataset, bench.table.ids.tolist(), bench.data.maps.maps.shape[1], 2**28)
    others = crossed.cross_fits.evidence if crossed.cross_fits is not None else ()
    for part in ("train", "validation", "test"):
        for sequence in np.unique(group[bench.table.parts == part]):
            rows = np.flatnonzero((bench.table.parts == part) & (group == sequence))
            rows = rows[:: max(1, len(rows) // SAMPLED)]
            of_all = density(bench, bench.evidence, rows, pictures, features)
            number = next((number for number, held in folds.items() if np.isin(rows, held).all()), None)
            without = "-" if number is None else f"{density(bench, others[number], rows, pictures, features):.0f}"
            print(f"| {bench.table.ids[rows[0]]} | {part} | {of_all:.0f} | {without} |", flush=True)


def main() -> None:
    """Read the arguments and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--features", type=Path, help="features.h5, where it is not among the artifacts")
    parser.add_argument("--dataset", default="folder")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--graphless", action="store_true", help="only decoders without graphs, which are fast")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", choices=("all", "decoders", "densities"), default="all")
    given = parser.parse_args()
    dataset = open_dataset(given.dataset, given.root)
    paths = {name: given.artifacts / f"{name}.h5" for name in NAMES}
    paths["features"] = given.features or paths["features"]
    if (given.artifacts / "augmented.h5").exists():
        paths["augmented"] = given.artifacts / "augmented.h5"
    with ExitStack() as stack:
        inputs = {name: stack.enter_context(open_artifact(path)) for name, path in paths.items()}
        bench = open_bench(SegmentConfig(seed=given.seed), dataset, inputs)
        if given.table != "densities":
            print(
                "| decoder | folds held out: mIoU, pixel accuracy (%) ... | mean | seen |\n|---|---|---|---|",
                flush=True,
            )
            compare(bench, GRAPHLESS if given.graphless else CANDIDATES, given.epochs)
        if given.table != "decoders":
            print("\n| sequence of | part | graphs of all folds | graphs without its fold |\n|---|---|---|---|")
            distances(bench, dataset, inputs["features"])


if __name__ == "__main__":
    main()
