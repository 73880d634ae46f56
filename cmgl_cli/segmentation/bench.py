"""The bench decoders are trained and compared on: graphs, labelled images and the validation part, the same for all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from cmgl_cli.artifacts import Artifact, SampleTable
from cmgl_cli.datasets import Dataset
from cmgl_cli.encoders.compute import choose_device
from cmgl_cli.errors import InputError
from cmgl_cli.heads.catalogue import build_decoder
from cmgl_cli.heads.evidence import GraphEvidence
from cmgl_cli.heads.frozen import CrossFits
from cmgl_cli.heads.segmentation_training import TrainingTask, score_decoder
from cmgl_cli.segmentation.augmented import AugmentedRows
from cmgl_cli.segmentation.class_graphs import cross_fitted, drawn_together, graph_evidence
from cmgl_cli.segmentation.data import SegmentationData
from cmgl_cli.segmentation.label_maps import LabelMaps, require_one_grid
from cmgl_cli.segmentation.pictures import Pictures
from cmgl_cli.segmentation.views import PatchView
from cmgl_cli.settings import SegmentConfig

SHRINKAGES = (0.0, 0.5, 0.75, 0.9, 1.0)
FEW_IMAGES = 200
GIB = 2**30


@dataclass(frozen=True)
class Candidate:
    """A decoder on a choice of graphs."""

    decoder: str
    graph: str

    @property
    def label(self) -> str:
        """What tables call it."""
        words = {"per-class": "", "diagonal": ", without edges", "random": ", random graph", "none": ", without graph"}
        return self.decoder + words.get(self.graph, f", {self.graph} graph")


@dataclass(frozen=True)
class Bench:
    """Everything decoders are built from, trained on and judged by.

    Attributes
    ----------
    config : SegmentConfig
    data : SegmentationData
    table : SampleTable
        The images.
    train, validation : ndarray of int
        Rows of the images with masks in these parts.
    evidence : GraphEvidence
        The graphs, the classes' covariances drawn together as the validation part likes it.
    fitted : ndarray, [C, q, q]
        The precisions before that.
    cross_fits : CrossFits, optional
    """

    config: SegmentConfig
    data: SegmentationData
    table: SampleTable
    train: np.ndarray
    validation: np.ndarray
    evidence: GraphEvidence
    fitted: np.ndarray
    cross_fits: CrossFits | None = None

    def build(self, candidate: Candidate) -> nn.Module:
        """Return a fresh decoder."""
        distiller = self.data.view.distiller
        return build_decoder(
            candidate.decoder,
            self.evidence,
            distiller.width,
            distiller.d_k,
            graph=candidate.graph,
            standardisation=(distiller.input_mean.cpu(), distiller.input_scale.cpu()),
            seed=self.config.seed,
            cross_fits=self.cross_fits,
        ).to(self.data.view.device)

    def judge(self) -> Callable[[nn.Module], float]:
        """Return what gives a decoder's mean IoU on the validation part, whose tokens it keeps in memory."""
        maps, batches = self.data.maps, self.data.batches(self.validation, shuffle=False)

        def mean_iou(decoder: nn.Module) -> float:
            return score_decoder(decoder, batches(0), len(maps.classes), maps.ignore_label).report().mean_iou

        return mean_iou

    def tasks(
        self, train: np.ndarray, validate: Callable[[nn.Module], float] | None = None
    ) -> dict[bool, TrainingTask]:
        """Return what decoders learn from: False is the images alone; True, where there are some, further looks too.

        Their tokens are kept in memory, once for all that learn from the same rows.
        """
        pixels, ignored = self.data.maps.pixels(train), self.data.maps.ignore_label
        batches, counts = self.data.batches(train), torch.from_numpy(pixels).double()
        choices = (False,) if self.data.augmented is None else (False, True)
        return {looks: TrainingTask(partial(batches, looks=looks), counts, validate, ignored) for looks in choices}


def open_bench(
    config: SegmentConfig,
    dataset: Dataset | None,
    inputs: Mapping[str, Artifact],
    on_shrinkage: Callable[[float], None] = lambda weight: None,
) -> Bench:
    """Return the bench of some artifacts.

    Parameters
    ----------
    config : SegmentConfig
    dataset : Dataset, optional
        The images themselves, for decoders that look at them.
    inputs : mapping of str to Artifact
        features, nodes, masks and region_graphs; augmented, where there are further looks at the training images.
    on_shrinkage : callable, optional
        Called with each shrinkage as it has been tried.

    Raises
    ------
    InputError
        Masks and graphs have different classes, or there are no images to learn from or to choose by.
    """
    features, nodes, graphs = inputs["features"], inputs["nodes"], inputs["region_graphs"]
    table = SampleTable.read(nodes, "image")
    maps = LabelMaps.read(inputs["masks"], table.ids, features.path)
    _require_same_classes(maps, graphs)
    usable, parts = features["valid"] & maps.known, table.parts
    train, validation = (np.flatnonzero(usable & (parts == name)) for name in ("train", "validation"))
    if not len(train) or not len(validation):
        raise InputError(
            "there are no images with masks to learn and to choose by",
            f"{features.path}: {len(train)} for training, {len(validation)} for validation",
            "encode a dataset with a split called train, with at least two images with masks",
        )
    device, memory = choose_device(config.device), int(config.memory * GIB)
    view = PatchView.of(nodes.group("weights"), graphs.group("transform"), require_one_grid(features), device)
    pictures = None if dataset is None else Pictures(dataset, table.ids.tolist(), maps.maps.shape[1], memory)
    batch_size = config.batch_size or (8 if len(train) < FEW_IMAGES else 16)
    augmented = None
    if "augmented" in inputs:
        taken = len(train) * features.stream("features")[:1].nbytes
        augmented = AugmentedRows(inputs["augmented"], features, table.ids.tolist(), max(0, memory - taken))
    data = SegmentationData(view, features, maps, pictures, memory, batch_size, config.seed, augmented)
    evidence = graph_evidence(graphs, maps.pixels(train), config.seed)
    bench = Bench(config, data, table, train, validation, evidence, evidence.precision)
    weight = _best_shrinkage(bench, on_shrinkage)
    crossed = cross_fitted(graphs, evidence)
    if crossed is not None:
        evidences = [drawn_together(item, weight) for item in crossed.evidence]
        # a copy is as well known to the graphs as its image
        copies = (
            {} if augmented is None else {copy: crossed.fold.get(row, -1) for copy, row in augmented.source.items()}
        )
        crossed = CrossFits(evidences, {**crossed.fold, **copies})
    return replace(bench, evidence=drawn_together(evidence, weight), cross_fits=crossed)


def _best_shrinkage(bench: Bench, on_shrinkage: Callable[[float], None]) -> float:
    """Return how far the classes' covariances are drawn to the one they share: as the validation part likes it."""
    best, least, validate = 0.0, -np.inf, bench.judge()
    for weight in SHRINKAGES:
        candidate = replace(bench, evidence=drawn_together(bench.evidence, weight))
        score = validate(candidate.build(Candidate("generative", "per-class")))
        if score > least:
            best, least = weight, score
        on_shrinkage(weight)
    return best


def _require_same_classes(maps: LabelMaps, graphs: Artifact) -> None:
    names = graphs["classes"].tolist()
    if names != maps.classes.tolist():
        raise InputError(
            "graphs and masks have different classes",
            f"{graphs.path}: {', '.join(names[:5])}...; masks: {', '.join(maps.classes[:5])}...",
            "run: cmgl fit-graphs --observations region, with these masks",
        )
