"""What a segmentation decoder sees of stored patch tokens: the frozen probes and the transform applied to them.

Everything a decoder is given follows from the tokens, so predicting needs the encoder's features and nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cmgl_cli.artifacts import Artifact
from cmgl_cli.errors import InputError
from cmgl_cli.graphs import Nonparanormal
from cmgl_cli.heads.appearance import APPEARANCE_NODES, cell_grid
from cmgl_cli.heads.evidence import GraphEvidence, PatchInputs
from cmgl_cli.heads.frozen import CrossFits
from cmgl_cli.heads.segmentation_training import SegmentationBatch
from cmgl_cli.label_maps import LabelMaps
from cmgl_cli.nodes.distillation import Distiller
from cmgl_cli.nodes.reader import BlockShuffledReader, ReaderPlan

FITTED = ("precision", "common", "scale", "means")
Pictures = Callable[[int], np.ndarray]
"""Row to its image, uint8 [r, r, 3]."""


@dataclass(frozen=True)
class PatchView:
    """The frozen way from patch tokens to the inputs of a decoder.

    Attributes
    ----------
    distiller : Distiller
    transform : Nonparanormal
        Of the observations, pooled over classes.
    grid : tuple of int
    device : torch.device
    """

    distiller: Distiller
    transform: Nonparanormal
    grid: tuple[int, int]
    device: torch.device

    @classmethod
    def of(
        cls,
        weights: Mapping[str, np.ndarray],
        transform: Mapping[str, np.ndarray],
        grid: tuple[int, int],
        device: torch.device,
    ) -> "PatchView":
        """Rebuild it from the arrays of artifacts.

        Raises
        ------
        InputError
            The observations were transformed class by class: a patch of unknown class has no such transform.
        """
        fitted = Nonparanormal.from_arrays(dict(transform))
        if fitted.scope != "pooled":
            raise InputError(
                "these graphs cannot label pixels: their observations were transformed class by class",
                f"scope {fitted.scope}",
                "run: cmgl fit-graphs --observations region --scope pooled",
            )
        probes = {key: value for key, value in weights.items() if not key.startswith("proxy/")}
        return cls(Distiller.from_arrays(probes).to(device).eval(), fitted, grid, device)

    def inputs(
        self, tokens: np.ndarray, images: np.ndarray | None = None, rows: np.ndarray | None = None
    ) -> PatchInputs:
        """Return what decoders take.

        Parameters
        ----------
        tokens : ndarray, [B, N_p, d]
        images : ndarray of uint8, [B, r, r, 3], optional
        rows : ndarray of int, [B], optional
            Which images these are, where they come again.
        """
        patches = torch.from_numpy(np.ascontiguousarray(tokens)).to(self.device).float()
        with torch.no_grad():
            out = self.distiller(patches)
            observed = self.distiller.patch_observations(patches).cpu().numpy()
        flat = self.transform.transform(observed.reshape(-1, observed.shape[-1]).astype(np.float64))
        values = torch.from_numpy(flat.reshape(observed.shape)).to(self.device, torch.float32)
        picture = None if images is None else _as_tensor(images, self.device)
        which = None if rows is None else tuple(rows.tolist())
        return PatchInputs(patches, values, out.nodes, out.attention, self.grid, picture, which)


def _as_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """Return images uint8 [B, r, r, 3] as float32 [B, 3, r, r] in 0..1."""
    return torch.tensor(images, device=device).permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True)
class SegmentationData:
    """Labelled images, ready for training: tokens, label maps and, for decoders that look at them, pictures.

    Attributes
    ----------
    view : PatchView
    features : Artifact
    maps : LabelMaps
    pictures : callable, optional
    memory_bytes : int
        Tokens kept in memory; more is read again every epoch.
    batch_size, seed : int
    """

    view: PatchView
    features: Artifact
    maps: LabelMaps
    pictures: Pictures | None
    memory_bytes: int
    batch_size: int
    seed: int

    def batches(self, rows: np.ndarray, *, shuffle: bool = True) -> Callable[[int], Iterator[SegmentationBatch]]:
        """Return a function from the number of an epoch to its batches."""
        reader = BlockShuffledReader(
            self.features.stream("features"),
            rows,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            aligned={"mask": self.maps.maps},
            plan=ReaderPlan(memory_bytes=self.memory_bytes),
        )

        # masks finer than cells tell decoders little and cost as much again; they are judged by all there is
        stride = max(1, self.maps.maps.shape[1] // max(cell_grid(self.view.grid))) if shuffle else 1

        def epoch(number: int) -> Iterator[SegmentationBatch]:
            for index, batch in enumerate(reader.epoch(number)):
                images = None
                if self.pictures is not None:
                    images = np.stack([self.pictures(int(row)) for row in batch.indices])
                rows, columns = thinned(stride, number + index)
                masks = torch.from_numpy(batch.aligned["mask"][:, rows, columns].astype(np.int64)).to(self.view.device)
                yield SegmentationBatch(self.view.inputs(batch.patches, images, batch.indices), masks)

        return epoch


def thinned(stride: int, turn: int) -> tuple[slice, slice]:
    """Return which rows and columns of a mask stand for cells of `stride` by `stride` labels.

    An even number of labels has none in the middle: the four around it take turns. Always the same one would teach
    decoders to shift what they draw by half a label.
    """
    middles = (stride // 2, (stride - 1) // 2)
    return slice(middles[turn % 2], None, stride), slice(middles[turn // 2 % 2], None, stride)


def graph_evidence(graphs: Artifact, pixels: np.ndarray, seed: int) -> GraphEvidence:
    """Return the graphs of an artifact in the units of the observations, with the classes' shares of the pixels [M].

    Raises
    ------
    InputError
        The graphs are not those of the masks' classes, or of another version's nodes.
    """
    if len(graphs["scale"]) != len(pixels):
        raise InputError(
            "graphs and masks have different classes",
            f"{graphs.path}: {len(graphs['scale'])} classes; the masks: {len(pixels)}",
            "run: cmgl fit-graphs --observations region",
        )
    looks = int(graphs["appearance"][0]) if "appearance" in graphs else 0
    if looks not in (0, APPEARANCE_NODES):
        raise InputError(
            "these graphs are of an earlier cmgl, which saw pixels otherwise",
            f"{graphs.path}: {looks} nodes that see pixels, this version has {APPEARANCE_NODES}",
            "run: cmgl fit-graphs --observations region",
        )
    smoothed = pixels + 1.0
    return GraphEvidence(
        *_in_units({name: graphs.finite(name) for name in FITTED}),
        priors=smoothed / smoothed.sum(),
        windows=tuple(graphs["windows"].tolist()) if "windows" in graphs else (),
        appearance=looks,
        seed=seed,
    )


def cross_fitted(graphs: Artifact, evidence: GraphEvidence) -> CrossFits | None:
    """Return the graphs without each fold of the images, beside those of all; None where there are none."""
    if "crossfit/fold" not in graphs:
        return None
    stored = {name: graphs.finite(f"crossfit/{name}").astype(np.float64) for name in FITTED}
    folds, others = graphs["crossfit/fold"], []
    for fold in range(len(stored["scale"])):
        precision, common, means = _in_units({name: values[fold] for name, values in stored.items()})
        others.append(replace(evidence, precision=precision, common=common, means=means))
    return CrossFits(others, {int(row): int(folds[row]) for row in np.flatnonzero(folds >= 0)})


def _in_units(fitted: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precisions, common graph and means in the units of the observations."""
    scale = fitted["scale"]
    typical = np.sqrt((scale**2).mean(axis=0))
    return (
        fitted["precision"] / (scale[:, :, None] * scale[:, None, :]),
        fitted["common"] / np.outer(typical, typical),
        fitted["means"],
    )
