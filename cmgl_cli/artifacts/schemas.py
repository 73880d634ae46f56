"""The schemas: which data sets each artifact holds, with axes and kinds of numbers.

Axes are named; one name means one length throughout a file. A file is checked against its schema before it is
published and whenever it is opened, so a stage can rely on what it reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from cmgl_cli.errors import InputError

KINDS = {"str": "OSU", "int": "iu", "float": "f", "bool": "b"}


@dataclass(frozen=True)
class Field:
    """One data set: its axes, the kind of its values, and what it means.

    A name that ends in ``/*`` stands for any data set below that group (axes are then free).
    """

    dims: tuple[str, ...]
    kind: str
    about: str
    optional: bool = False


@dataclass(frozen=True)
class Schema:
    """A named, versioned layout."""

    name: str
    version: int
    about: str
    fields: Mapping[str, Field]

    def field(self, name: str) -> Field | None:
        """Return the declaration of data set `name`, or None when the schema has no such data set."""
        if name in self.fields:
            return self.fields[name]
        return self.fields.get(name.split("/", 1)[0] + "/*")

    def check(self, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]], where: str) -> None:
        """Raise `InputError` unless names, axes and kinds are as declared."""
        missing = [
            name for name, field in self.fields.items() if not field.optional and name not in shapes and "*" not in name
        ]
        if missing:
            raise self._error(f"data set {missing[0]!r} is missing", where)
        lengths: dict[str, tuple[int, str]] = {}
        for name, (shape, dtype) in shapes.items():
            field = self.field(name)
            if field is None:
                raise self._error(f"data set {name!r} does not belong into it", where)
            self._check_field(name, field, shape, dtype, lengths, where)

    def _check_field(self, name, field, shape, dtype, lengths, where) -> None:  # noqa: PLR0913
        if np.dtype(dtype).kind not in KINDS.get(field.kind, "OSUiufb"):
            raise self._error(f"data set {name!r} holds {dtype}, expected {field.kind}", where)
        if "..." in field.dims:
            return
        if len(shape) != len(field.dims):
            raise self._error(f"data set {name!r} has shape {shape}, expected axes {field.dims}", where)
        for length, dim in zip(shape, field.dims, strict=True):
            known, first = lengths.setdefault(dim, (length, name))
            if length != known:
                raise self._error(f"axis {dim!r} is {length} in {name!r} but {known} in {first!r}", where)

    def _error(self, reason: str, where: str) -> InputError:
        return InputError(
            f"not a valid {self.name} artifact (version {self.version}): {reason}",
            where,
            "make it again with the stage that writes it",
        )


def _field(dims: str, kind: str, about: str, optional: bool = False) -> Field:
    return Field(tuple(dims.split()), kind, about, optional)


_SAMPLES = {
    "id": _field("n", "str", "unique name of the sample"),
    "split": _field("n", "str", "train, val, test... as the dataset has it"),
    "label": _field("n", "int", "class index; -1 where there is none or more than one"),
    "labels/values": _field("l", "int", "class indices of all samples, one after the other"),
    "labels/offsets": _field("n+1", "int", "sample i has labels/values[offsets[i]:offsets[i+1]]"),
    "item": _field("n", "int", "index of the item it belongs to: pages of one text share it"),
    "classes": _field("c", "str", "class names, in order of index"),
}


def _both_modalities(fields: dict[str, Field]) -> dict[str, Field]:
    """Give every field once for images and, optionally, once for rendered texts."""
    out = {}
    for name, field in fields.items():
        for modality in ("image", "text"):
            dims = tuple(f"{modality}:{dim}" if dim in {"n", "n+1", "l", "patch"} else dim for dim in field.dims)
            out[f"{modality}/{name}"] = Field(dims, field.kind, field.about, field.optional or modality == "text")
    return out


_RENDERS = Schema(
    "renders",
    1,
    "Texts drawn as images, black on white; one row a page.",
    {
        **_SAMPLES,
        "page": _field("n", "int", "page number within its text, from 0"),
        "font_px": _field("n", "int", "font size in pixels"),
        "text": _field("t", "str", "the texts; `item` points into them"),
        "image": _field("n height width rgb", "int", "pixels, uint8"),
    },
)

_FEATURES = Schema(
    "features",
    1,
    "Patch tokens of the encoder's last layer; one row an image or a rendered page.",
    {
        **_SAMPLES,
        "features": _field(
            "n patch width", "float", "patch tokens, row-major over the patch grid; rows past the grid are 0"
        ),
        "grid": _field("n 2", "int", "patch rows and columns of the sample"),
        "valid": _field("n", "bool", "False where the image could not be read: its features are 0"),
        "problem": _field("n", "str", "why it could not be read; empty otherwise"),
    },
)

_MASKS = Schema(
    "masks",
    1,
    "The masks of a dataset at the resolution that training sees, row by row as its features.",
    {
        **_SAMPLES,
        "mask": _field("n row column", "int", "class of each pixel, an index into mask_classes, or ignore_label"),
        "mask_classes": _field("m", "str", "names of the mask values; the background first where there is one"),
        "ignore_label": _field("one", "int", "value of pixels that count nowhere"),
        "palette": _field("m 3", "int", "the dataset's own colours", optional=True),
        "known": _field("n", "bool", "False where there is no mask, or none that can be read"),
        "problem": _field("n", "str", "why it could not be read; empty otherwise"),
    },
)

_AUGMENTED = Schema(
    "augmented",
    1,
    "Further looks at training images, with their masks: cut out, mirrored, in other light; one row a copy.",
    {
        **_FEATURES.fields,
        "id": _field("n", "str", "id of the image, `#` and the number of the copy"),
        "mask": _field("n row column", "int", "class of each pixel, as in the masks of the images"),
        "picture": _field("n row column rgb", "int", "the copy itself as small as its mask, uint8"),
    },
)

_NODES = Schema(
    "nodes",
    1,
    "Patches distilled into p semantic nodes, for every sample of every modality, with the weights that did it.",
    {
        "classes": _field("c", "str", "class names"),
        "weights/*": _field("...", "any", "weights of the distillation, by name"),
        "history/*": _field("...", "any", "the proxy's training, one value an epoch"),
        **_both_modalities(
            {
                **{name: field for name, field in _SAMPLES.items() if name != "classes"},
                "part": _field("n", "str", "train, validation... where other labels than these settled it", True),
                "z": _field("n node", "float", "observation vector (3)"),
                "attention": _field("n node patch", "float", "cross-attention A (1)"),
                "nodes": _field("n node key", "float", "node features Z (2)", optional=True),
                "pooled": _field("n width", "float", "mean of the patch tokens, for the baselines"),
                "proxy": _field("n c", "float", "logits of the proxy head"),
                "grid": _field("n 2", "int", "patch rows and columns of the sample"),
                "valid": _field("n", "bool", "False where the image could not be read"),
            }
        ),
    },
)

_PRIOR = Schema(
    "prior",
    1,
    "Where nodes look, class by class, and how much their footprints overlap.",
    {
        "classes": _field("c", "str", "class names"),
        "prior": _field("c node node", "float", "the prior in the chosen direction (6), in [0, 1]"),
        "image/attention": _field("c node patch", "float", "attention averaged over the class's images (4)"),
        "text/attention": _field(
            "c node text:patch", "float", "attention averaged over the class's texts (4)", optional=True
        ),
        "image/overlap": _field("c node node", "float", "cosine of the footprints (5)"),
        "text/overlap": _field("c node node", "float", "cosine of the footprints (5)", optional=True),
        "image/count": _field("c", "int", "images behind the average"),
        "text/count": _field("c", "int", "texts behind the average", optional=True),
    },
)

_GRAPHS = Schema(
    "graphs",
    2,
    "Precision matrices: one common graph, one specific graph a class, and all that is needed to score with them.",
    {
        "classes": _field("c", "str", "class names"),
        "nodes": _field("node", "str", "node names, where covariances were given with names", optional=True),
        "modality": _field("one", "str", "what the graphs were fitted on: image, text, or given (covariances)"),
        "precision": _field("c node node", "float", "Omega_c = common + specific_c"),
        "common": _field("node node", "float", "Theta"),
        "specific": _field("c node node", "float", "S_c"),
        "covariance": _field("c node node", "float", "the empirical matrices the fit saw"),
        "scale": _field("c node", "float", "standard deviations taken out of the covariances"),
        "means": _field("c node", "float", "class means of the transformed observations; absent when given", True),
        "counts": _field("c", "int", "observations a class; 0 where given covariances came without"),
        "k": _field("c", "float", "sharpness of the prior"),
        "weights": _field("c node node", "float", "penalty weights W_c (11)"),
        "appearance": _field("one", "int", "how many of the first nodes see pixels", optional=True),
        "windows": _field("w", "int", "surroundings of a patch that its observation holds", optional=True),
        "borrowed": _field(
            "c", "bool", "True where a class had too few observations and has the mean graph", optional=True
        ),
        "transform/*": _field("...", "any", "the nonparanormal transform"),
        "selection/*": _field("...", "any", "the tables of the search over k, rho and gamma"),
        "history/*": _field("...", "any", "objective and certificate against iterations"),
        "stability/*": _field("...", "any", "how often each edge came back over subsamples"),
        "normality/*": _field("...", "any", "Shapiro-Wilk pass rates on held-out observations"),
        "crossfit/*": _field("...", "any", "fold of every image (-1: not trained on), graphs without each fold"),
    },
)

_CLASSIFICATION = Schema(
    "classification",
    1,
    "Predictions with their ids, and the comparison with what else the same features allow.",
    {
        "classes": _field("c", "str", "class names"),
        "id": _field("n", "str", "sample"),
        "split": _field("n", "str", "its split"),
        "label": _field("n", "int", "true class, -1 where unknown"),
        "prediction": _field("n", "int", "predicted class"),
        "probability": _field("n c", "float", "calibrated class probabilities"),
        "score": _field("n c", "float", "log-likelihood scores (18)"),
        "confusion": _field("c c", "int", "rows: true class; columns: predicted; on the evaluated split"),
        "table/*": _field("...", "any", "the comparison: one row a method"),
        "per_class/*": _field("...", "any", "precision, recall, F1 and support of every class"),
        "reliability/*": _field("...", "any", "calibration bins"),
    },
)

_DECODER = Schema(
    "decoder",
    1,
    "What labels pixels: the distillation, the observations' transform, the graphs, and every decoder learned.",
    {
        "classes": _field("m", "str", "names of the mask values"),
        "offset": _field("one", "int", "1 where the first of them is a background and no image class"),
        "ignore_label": _field("one", "int", "value of pixels that count nowhere, in the masks learned from"),
        "palette": _field("m 3", "int", "colour of each class"),
        "grid": _field("two", "int", "patch rows and columns"),
        "chosen": _field("one", "str", "the decoder that predicts"),
        "picture_size": _field("one", "int", "rows and columns of the images that decoders look at"),
        "weights/*": _field("...", "any", "weights of the distillation, by name"),
        "transform/*": _field("...", "any", "the nonparanormal transform of the observations"),
        "graphs/*": _field("...", "any", "what decoders score with, and the precisions as they were fitted"),
        "decoders/*": _field("...", "any", "state of every decoder, by its name and the parameter's"),
        "history/*": _field("...", "any", "training loss and validation score of every decoder"),
        "table/*": _field("...", "any", "the comparison on the validation part: one row a decoder"),
    },
)

_SEGMENTATION = Schema(
    "segmentation",
    1,
    "Label maps at the size of the images, with what masks say of them.",
    {
        "classes": _field("m", "str", "names of the labels"),
        "palette": _field("m 3", "int", "colour of each class"),
        "id": _field("n", "str", "sample"),
        "split": _field("n", "str", "its split"),
        "size": _field("n 2", "int", "rows and columns of the image"),
        "map/values": _field("pixel", "int", "labels of all images, row by row, one image after the other"),
        "map/offsets": _field("n+1", "int", "image i has map/values[offsets[i]:offsets[i+1]]"),
        "probability": _field("n m row column", "float", "class probabilities before enlarging", optional=True),
        "confusion": _field("m m", "int", "rows: true class; columns: predicted, in pixels", optional=True),
        "per_class/*": _field("...", "any", "IoU, Dice, accuracy and boundary F-score of every class"),
        "table/*": _field("...", "any", "the comparison on images with masks: one row a decoder"),
    },
)

_RESTORATION = Schema(
    "restoration",
    1,
    "Station records with their gaps filled: observed cells as they were, filled cells flagged, with standard errors.",
    {
        "time": _field("t", "str", "ISO 8601"),
        "station": _field("s", "str", "station names"),
        "variable": _field("v", "str", "variable names"),
        "unit": _field("v", "str", "their units"),
        "coordinates": _field("s 3", "float", "latitude, longitude (degrees), elevation (m); NaN where unknown"),
        "values": _field("t s v", "float", "observed and filled values"),
        "standard_error": _field("t s v", "float", "of filled cells; 0 where observed"),
        "filled": _field("t s v", "bool", "True where a value was filled"),
        "hidden": _field("t s v", "bool", "True where --simulate hid an observation"),
        "skill/*": _field("...", "any", "errors on held-out observations, one row a variable and method"),
        "simulated/*": _field("...", "any", "errors on the hidden cells, one row a variable"),
        "graphs/*": _field("...", "any", "the learnt spatial and signed modality graph"),
        "notes": _field("note", "str", "sentences a user should read"),
    },
)

_NETWORK = Schema(
    "network",
    1,
    "Unrolled networks learnt on a station record, each with some years left out; the last one has seen all.",
    {
        "variable": _field("v", "str", "variable names, in the order of the matrices' columns"),
        "length": _field("one", "int", "steps a matrix"),
        "rank": _field("f", "int", "dimension of the eigenspace that gives the signs"),
        "left_out/year": _field("y", "int", "years left out"),
        "left_out/fold": _field("y", "int", "by which network"),
        "losses": _field("f epoch", "float", "training loss"),
        "held_out": _field(
            "f epoch+1",
            "float",
            "squared error on training cells set aside, from epoch 0; the least is kept",
            optional=True,
        ),
        "error": _field("f", "float", "on cells hidden in the left-out years, in units of the climatology's; else NaN"),
        "parameters/*": _field("...", "float", "what was learnt, before softplus; first axis: the networks"),
    },
)

_EXPERIMENT = Schema(
    "experiment",
    1,
    "Every cell of an experiment's grid, one entry a cell: its parameters and what was measured.",
    {
        "parameters/*": _field("...", "any", "what tells the cells apart, seed or fold among it"),
        "metrics/*": _field("...", "float", "what was measured; NaN where a cell has no such metric"),
    },
)

SCHEMAS: Mapping[str, Schema] = MappingProxyType(
    {
        schema.name: schema
        for schema in (
            _RENDERS,
            _FEATURES,
            _MASKS,
            _AUGMENTED,
            _NODES,
            _PRIOR,
            _GRAPHS,
            _CLASSIFICATION,
            _DECODER,
            _SEGMENTATION,
            _RESTORATION,
            _NETWORK,
            _EXPERIMENT,
        )
    }
)
