"""What can be set: one frozen dataclass of settings a stage, each declared once.

The command line makes its flags from these declarations, YAML keys and environment variables are checked against
them (see `config`), and `identity_settings` picks those that decide results.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

DEFAULT_ENCODER = "google/siglip2-base-patch16-224"
GRID = (0.01, 0.05, 0.1, 0.2)
SHARPNESSES = (0, 1, 2, 5, 10, 20, 50)
# by name, because what they need takes a second to import; a test holds the list against the experiments there are
EXPERIMENTS = (
    "text-encoding",
    "mapping",
    "nonparanormal",
    "optimisation",
    "matrix",
    "prior-direction",
    "sensitivity",
    "runtime",
    "twofold-synthetic",
    "twofold-stations",
)


def option(
    default: Any,
    about: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    results: bool = True,
    positional: bool = False,
    added: bool = False,
) -> Any:
    """Declare a setting.

    Parameters
    ----------
    default : any
    about : str
        The help text.
    choices : tuple of str
        The only words allowed.
    least, most : float, optional
        Inclusive bounds of a number, or of every number of a list.
    results : bool
        False for what changes speed or place but no number: it stays out of the identity.
    positional : bool
        Given on the command line by its place, without a flag.
    added : bool
        The setting is younger than artifacts that are about. At its default it does what was done before, so it stays
        out of the identity there and old artifacts remain up to date.
    """
    metadata = {"about": about, "choices": choices, "least": least, "most": most, "results": results}
    return field(default=default, metadata={**metadata, "positional": positional, "added": added})


def _path(about: str) -> Any:
    # a path decides nothing by itself: the digest of what it leads to is in the identity
    return option(None, about, results=False)


def _seed() -> Any:
    return option(0, "Seed of everything random in this stage.", least=0, most=2**32 - 1)


def _device() -> Any:
    return option("auto", "Where to compute.", choices=("auto", "cpu", "cuda"), results=False)


@dataclass(frozen=True)
class RenderTextConfig:
    """Draw texts as images."""

    texts: Path | None = _path(
        "Texts: YAML or JSON (class: [texts]) or CSV (class,text). Default: the dataset's own, else templates."
    )
    templates: tuple[str, ...] = option(
        (), "Sentences with {name} for classes without texts. Default: five built-in ones."
    )
    per_class: int = option(60, "At most so many captions a class, where a dataset has captions.", least=1)
    font: Path | None = _path("A TrueType font. Default: DejaVu Sans.")
    size: int = option(224, "Width and height of a page in pixels.", least=32, most=2048)
    min_px: int = option(10, "Smallest font size in pixels; longer texts go on to further pages.", least=4, most=512)
    max_px: int = option(64, "Largest font size in pixels.", least=4, most=512)
    seed: int = _seed()
    preview: Path | None = _path("Also write a contact sheet of the first pages to this PNG.")


@dataclass(frozen=True)
class ExtractConfig:
    """Encode images and rendered texts."""

    encoder: str = option(DEFAULT_ENCODER, "A hub id, a local directory, or builtin:tiny.")
    revision: str | None = option(None, "Revision of a hub id.")
    modality: str = option(
        "all",
        "What to read: images, rendered texts, masks, further looks at training images, or all there are.",
        choices=("all", "image", "text", "mask", "augmented"),
        results=False,
    )
    split: tuple[str, ...] = option((), "Only these splits. Default: all.")
    limit: int | None = option(None, "At most so many images, drawn evenly over splits and classes.", least=1)
    dtype: str = option(
        "auto", "Number type the encoder computes in.", choices=("auto", "float32", "bfloat16", "float16")
    )
    precision: str = option("highest", "Precision of float32 matrix products.", choices=("highest", "high", "medium"))
    attention: str = option("sdpa", "Implementation of the encoder's attention.", choices=("sdpa", "eager"))
    max_patches: int | None = option(None, "Most patches of an image, for NaFlex encoders.", least=1)
    tiles: int = option(
        1,
        "Read images through windows, so many side by side and those half way between: finer patches.",
        least=1,
        most=8,
        added=True,
    )
    mirror: bool = option(
        False,
        "Read every image mirrored too and average the patches: steadier, at twice the encoder's time.",
        added=True,
    )
    store: str = option("float16", "Number type of the stored patch tokens.", choices=("float16", "float32"))
    mask_size: int = option(112, "Rows and columns of the stored masks, which training sees.", least=8, most=1024)
    augment: int = option(
        0,
        "Further looks at each training image with a mask, cut out, mirrored and in other light, that decoders learn "
        "from too.",
        least=0,
        most=64,
        added=True,
    )
    batch_size: str = option("auto", "Images a batch; auto halves it when memory runs out.", results=False)
    workers: int = option(2, "Threads that decode images while the encoder computes.", least=1, most=256, results=False)
    device: str = _device()
    strict: bool = option(False, "Stop at the first unreadable image instead of listing it.", results=False)
    seed: int = _seed()


@dataclass(frozen=True)
class DistillConfig:
    """Distil patches into semantic nodes."""

    nodes: int = option(64, "Number of graph nodes p.", least=2, most=1024)
    key_width: int = option(64, "Attention width d_k.", least=1, most=4096)
    proxy: str = option(
        "auto",
        "What the nodes are learned for: image classes, or pixel classes (auto: where images show several classes).",
        choices=("auto", "image", "pixel"),
    )
    balance: float = option(
        0.5, "Pixel classes weigh their frequency to minus this power: 0 not at all, 1 all alike.", least=0.0, most=1.0
    )
    mapping: Literal["cross-attention", "linear", "pca"] = option(
        "cross-attention",
        "How patches become nodes; a linear layer and principal components, both pooled evenly, are there to compare.",
        choices=("cross-attention", "linear", "pca"),
        added=True,
    )
    wout: Literal["per_node", "shared"] = option(
        "per_node", "One read-out vector a node, or one for all (the paper's).", choices=("per_node", "shared")
    )
    epochs: int = option(30, "Passes over the training part, at most.", least=1)
    patience: int = option(8, "Stop after so many epochs without a better validation loss.", least=1)
    batch_size: int = option(64, "Images a training step.", least=1)
    learning_rate: float = option(3e-3, "Peak learning rate of AdamW.", least=0.0)
    weight_decay: float = option(0.05, "Weight decay of AdamW.", least=0.0)
    patch_keep: float = option(
        0.5, "Share of the patches a training step sees, drawn anew for every step.", least=0.05, most=1.0
    )
    folds: int = option(
        1, "Cross-fitting: nodes of a training image come from a fold that never saw it. 1 = off.", least=1, most=50
    )
    keep_nodes: bool = option(False, "Also store the node features Z (segmentation needs them).")
    device: str = _device()
    memory: float = option(
        2.0, "Gigabytes of patch tokens kept in memory; more is streamed.", least=0.05, results=False
    )
    seed: int = _seed()


@dataclass(frozen=True)
class PriorConfig:
    """Turn attention into a prior for the graphs."""

    direction: str = option(
        "text-to-image",
        "Whose attention guides whose graph; self is the control, none switches the prior off.",
        choices=("text-to-image", "image-to-text", "self", "none"),
    )


@dataclass(frozen=True)
class FitGraphsConfig:
    """Estimate common and class-specific graphs."""

    covariance: Path | None = _path(
        "Fit covariances of your own instead: npz or HDF5 with covariance [C, p, p], n_samples, classes, nodes."
    )
    own_prior: Path | None = _path(
        "A prior of your own, [p, p] or [C, p, p] in [0, 1]: npz, npy, CSV or HDF5. --prior takes the first three too."
    )
    observations: str = option(
        "auto",
        "One observation is an image's z, or each patch of its images, or each patch that a mask gives to the class; "
        "auto fits all there are data for, both the first two.",
        choices=("auto", "image", "patch", "region", "both"),
        results=False,
    )
    region: str = option(
        "patch",
        "What a class is observed by, given masks: each of its patches, their mean in an image, or z of the images "
        "that show it.",
        choices=("patch", "mean", "image"),
    )
    windows: str = option(
        "3,0",
        "Surroundings that belong to the observation of a region's patch: means over windows of odd sides in patches, "
        "0 for the whole image, or none.",
    )
    appearance: bool = option(True, "Regions also have nodes that see pixels: colour, contrast and edges of a cell.")
    scope: str = option(
        "pooled",
        "Nonparanormal transform: one for all classes, one a class, or none (to compare).",
        choices=("pooled", "class", "none"),
    )
    k: str = option(
        "auto",
        "Sharpness of the prior: auto (0, 1, 2, 5, 10, 20, 50 up to k_max), all (every whole number), or a list.",
    )
    k_max: int = option(50, "Largest sharpness tried.", least=0, most=500)
    k_shared: bool = option(False, "One sharpness for all classes instead of one a class.")
    midpoint: str = option(
        "0.5", "Prior value that leaves the penalty as it is: a number, or quantile:q of each class's (quantile: 0.5)."
    )
    preserve_penalty: bool = option(True, "Compare sharpnesses at equal total penalty.")
    rho: tuple[float, ...] = option(GRID, "Penalty of the common graph; several values are searched.", least=0.0)
    scale_rho: bool = option(False, "Multiply rho by the number of classes.")
    gamma: tuple[float, ...] = option(
        GRID, "Penalty of the class-specific graphs; several values are searched.", least=0.0
    )
    select: str = option(
        "auto",
        "How rho and gamma are chosen; auto is held-out likelihood where there are samples, else eBIC; score is the "
        "accuracy on the validation part; stability is StARS.",
        choices=("auto", "held-out", "ebic", "score", "stability"),
    )
    select_k: str = option(
        "auto",
        "How k is chosen; auto is held-out likelihood where there are samples, unless --select ebic. eBIC accepts "
        "priors that say nothing.",
        choices=("auto", "held-out", "ebic"),
    )
    strictness: float = option(
        2.0, "Standard errors by which a prior must raise the held-out likelihood to be used.", least=0.0
    )
    folds: int = option(5, "Folds of the held-out likelihood.", least=2, most=50)
    cross_fit: bool = option(
        True,
        "Of regions: also fit without each fold of images (whole sequences where names tell), so that decoders learn "
        "from the scores of graphs that never saw the image.",
    )
    solver: str = option(
        "auto",
        "How (10) is solved; paper, two-stage and independent are there to compare.",
        choices=("auto", "active-set", "descent", "splitting", "admm", "paper", "two-stage", "independent"),
    )
    stability: int = option(
        0,
        "Refit on so many subsamples and store how often each edge came back; --select stability takes 20 at 0.",
        least=0,
    )
    edges: Path | None = _path("Also write the edges of all classes to this file: .csv, .graphml or .npz.")
    figures: bool = option(True, "Draw the path of the search beside the output.", results=False)
    tol: float = option(1e-6, "Certified relative duality gap to reach.", least=1e-12, most=1e-1)
    max_iter: int = option(5000, "Iterations at most.", least=1)
    penalize_diagonal: bool = option(False, "Also penalise the diagonal.")
    ridge: float | None = option(
        None, "Added to the diagonal of every correlation matrix. Default: 0, of regions 0.01.", least=0.0
    )
    weight_floor: float = option(0.01, "Smallest penalty weight.", least=0.0, most=1.0)
    allow_unconverged: bool = option(False, "Write the result even when the tolerance was not reached.", results=False)
    device: str = _device()
    seed: int = _seed()


@dataclass(frozen=True)
class ClassifyConfig:
    """Classify with the graphs and compare."""

    observations: str = option(
        "auto", "Which graphs score: auto takes all there are.", choices=("auto", "image", "patch", "both")
    )
    split: str = option("auto", "The split to report on; auto is test, or val where test has no labels.")
    shrinkage: str = option("auto", "Share of the common graph in every class's graph: auto (validation part) or 0..1.")
    mean_shrinkage: str = option(
        "auto", "Share of the classes' common mean in every class's mean: auto (validation part) or 0..1."
    )
    class_prior: str = option("uniform", "Prior probabilities of the classes.", choices=("uniform", "empirical"))
    baselines: bool = option(True, "Also fit the baselines and the controls.")
    figures: bool = option(True, "Write confusion matrix and reliability diagram beside the output.", results=False)
    device: str = _device()
    seed: int = _seed()


@dataclass(frozen=True)
class SegmentConfig:
    """Learn to label pixels with the graphs, and label them."""

    mode: str = option(
        "all", "Learn a decoder, predict with it, or both.", choices=("all", "train", "predict"), results=False
    )
    decoder: str = option(
        "auto",
        "What labels pixels: auto takes unet, with or without graphs, or generative, whichever the validation part "
        "prefers. paper: equations (19) to (22); linear: the baseline.",
        choices=("auto", "unet", "hybrid", "generative", "paper", "linear"),
    )
    graph: str = option(
        "per-class",
        "Which graphs: each class its own, one mixed for every image, the common one; or a control.",
        choices=("per-class", "mixture", "common", "random", "diagonal", "none"),
    )
    split: str = option(
        "auto", "The split to label; auto is test, or val where test has no masks; all labels every image."
    )
    baselines: bool = option(True, "Also train the linear head and the controls, and compare.")
    epochs: int = option(30, "Passes over the training part.", least=1)
    learning_rate: float = option(3e-3, "Peak learning rate of AdamW.", least=1e-7)
    dice: float = option(0.0, "Weight of the Dice loss beside the cross-entropy.", least=0.0)
    batch_size: int | None = option(None, "Images a training step. Default: 16, 8 below 200 images.", least=1)
    probabilities: bool = option(False, "Also store class probabilities, before enlarging.")
    png: Path | None = _path("Also write every label map to this folder, in the dataset's own convention.")
    figures: bool = option(True, "Write a sheet of examples and what the nodes see beside the output.", results=False)
    explain: tuple[str, ...] = option(
        (), "Draw nodes and graphs on these images (ids). Default: the first.", results=False
    )
    memory: float = option(
        2.0, "Gigabytes of patch tokens kept in memory; more is streamed.", least=0.05, results=False
    )
    device: str = _device()
    seed: int = _seed()


@dataclass(frozen=True)
class TwofoldRestoreConfig:
    """Fill the gaps of station records, with standard errors."""

    input: tuple[Path, ...] = option(
        (), "Records: tidy CSV, NetCDF, npz, or the Japanese agency's CSV; one or several files.", results=False
    )
    stations: Path | None = _path("Station table: CSV with station,latitude,longitude,elevation.")
    export: Path | None = _path("Also write the filled record: .nc, .csv, or the input's own layout.")
    layout: Literal["auto", "own", "csv", "netcdf"] = option(
        "auto", "Layout of the export.", choices=("auto", "own", "csv", "netcdf"), results=False
    )
    method: str = option("default", "default, or a method of the paper or a peer (docs/restoration.md lists them).")
    variables: tuple[str, ...] = option((), "Only these variables. Default: all.")
    exclude: tuple[str, ...] = option((), "Leave these stations out.")
    start: str | None = option(None, "First time taken, as 1961-01.")
    end: str | None = option(None, "Last time taken, as 1990-12.")
    frequency: str | None = option(None, "hourly, daily or monthly, where it should not be recognised.")
    simulate: str | None = option(None, "Hide observed cells and report the errors there: mcar:0.3 or outage:0.3:14.")
    bounds: tuple[str, ...] = option((), "Physical bounds of filled values, as rain=0:,humidity=0:100.")
    compare: bool = option(True, "Also print the hold-out skill of simpler methods.")
    train: bool = option(False, "Learn the paper's unrolled network on the record; --model applies it.", results=False)
    epochs: int = option(30, "Of --train.", least=1)
    folds: int = option(
        8, "Networks of --train that leave years out: one a year, or a group of years where there are more.", least=0
    )
    figures: bool = option(True, "Write figures beside the output.", results=False)
    show: tuple[str, ...] = option((), "Stations in the figure of gaps. Default: those with most gaps.", results=False)
    seed: int = _seed()


@dataclass(frozen=True)
class ExperimentConfig:
    """Repeat an experiment of the papers: a grid of cells, resumable, to one artifact, tables and a figure.

    Ablations take their data and all settings that they do not vary from --config or --dataset.
    """

    experiment: str = option("", "Which one; --list says what each is about.", choices=EXPERIMENTS, positional=True)
    input: tuple[Path, ...] = option((), "Station records, as for twofold-restore.", results=False)
    stations: Path | None = _path("Station table: CSV with station,latitude,longitude,elevation.")
    exclude: tuple[str, ...] = option((), "Leave these stations out.")
    start: str | None = option(None, "First time taken, as 1961-01.")
    end: str | None = option(None, "Last time taken, as 1990-12.")
    complete: float = option(0.0, "Leave out stations with a smaller share of observations.", least=0, most=1)
    years: tuple[int, ...] = option((0,), "Also cut the record to its last so many years; 0 is all of it.", least=0)
    seeds: int = option(3, "Repetitions of an ablation, each with nodes, graphs and controls of its own.", least=1)
    text_encoder: str | None = option(
        None, "For text-encoding: a sentence-transformers model to compare with, a folder or a hub id."
    )
    quick: bool = option(False, "A few cells only, for a first look.")
    only: tuple[str, ...] = option((), "Only some cells: parameter=value,... (rate=0.1,rate=0.3,method=default).")
    jobs: int = option(1, "Cells at a time.", least=1, results=False)
    backend: str = option(
        "loky",
        "How cells run side by side: joblib's backends on this machine, or a cluster.",
        choices=("loky", "threading", "multiprocessing", "dask", "ray"),
        results=False,
    )
    scheduler: str | None = option(
        None, "Address of a running dask scheduler, as tcp://host:8786. Default: workers of its own.", results=False
    )


STAGE_CONFIGS: Mapping[str, type] = types.MappingProxyType(
    {
        "render-text": RenderTextConfig,
        "extract": ExtractConfig,
        "distill": DistillConfig,
        "prior": PriorConfig,
        "fit-graphs": FitGraphsConfig,
        "classify": ClassifyConfig,
        "segment": SegmentConfig,
        "twofold-restore": TwofoldRestoreConfig,
        "experiment": ExperimentConfig,
    }
)


def identity_settings(config: Any) -> dict[str, Any]:
    """Return the settings that decide results, as JSON types."""
    deciding = [item for item in fields(config) if item.metadata["results"]]
    return {
        item.name: _plain(getattr(config, item.name))
        for item in deciding
        if not (item.metadata["added"] and getattr(config, item.name) == item.default)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
