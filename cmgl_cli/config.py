"""Settings: one frozen dataclass a stage, merged from defaults < YAML < environment < flags.

The dataclasses are the only place where a setting is declared: the command line makes its flags from them, YAML
keys and ``CMGL_<STAGE>_<SETTING>`` variables are checked against them, and `identity_settings` picks those that
decide results (and so enter an artifact's identity).
"""

import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from cmgl_cli.errors import InputError, UsageError, suggest

DEFAULT_ENCODER = "google/siglip2-base-patch16-224"
GRID = (0.01, 0.05, 0.1, 0.2)
SHARPNESSES = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50)


def option(
    default: Any,
    about: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    results: bool = True,
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
    """
    return field(
        default=default, metadata={"about": about, "choices": choices, "least": least, "most": most, "results": results}
    )


def _path(about: str) -> Any:
    # a path decides nothing by itself: the digest of what it leads to is in the identity
    return option(None, about, results=False)


def _seed() -> Any:
    return option(0, "Seed of everything random in this stage.", least=0)


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
        "all", "What to encode: images, rendered texts, or both.", choices=("all", "image", "text"), results=False
    )
    split: tuple[str, ...] = option((), "Only these splits. Default: all.")
    limit: int | None = option(None, "At most so many images, drawn evenly over splits and classes.", least=1)
    dtype: str = option(
        "auto", "Number type the encoder computes in.", choices=("auto", "float32", "bfloat16", "float16")
    )
    precision: str = option("highest", "Precision of float32 matrix products.", choices=("highest", "high", "medium"))
    attention: str = option("sdpa", "Implementation of the encoder's attention.", choices=("sdpa", "eager"))
    max_patches: int | None = option(None, "Most patches of an image, for NaFlex encoders.", least=1)
    store: str = option("float16", "Number type of the stored patch tokens.", choices=("float16", "float32"))
    batch_size: str = option("auto", "Images a batch; auto halves it when memory runs out.", results=False)
    workers: int = option(2, "Threads that decode images while the encoder computes.", least=1, most=256, results=False)
    device: str = _device()
    strict: bool = option(False, "Stop at the first unreadable image instead of listing it.", results=False)
    seed: int = _seed()


@dataclass(frozen=True)
class DistillConfig:
    """Distil patches into semantic nodes."""

    nodes: int = option(32, "Number of graph nodes p.", least=2, most=1024)
    key_width: int = option(64, "Attention width d_k.", least=1, most=4096)
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

    observations: str = option(
        "both",
        "One observation is an image's z, or each patch, or fit both kinds.",
        choices=("image", "patch", "both"),
        results=False,
    )
    scope: str = option(
        "pooled", "Nonparanormal transform: one for all classes, or one a class.", choices=("pooled", "class")
    )
    k: str = option(
        "auto", "Sharpness of the prior: auto (twelve values from 0 to k_max), all (every whole number), or a list."
    )
    k_max: int = option(50, "Largest sharpness tried.", least=0, most=500)
    k_shared: bool = option(False, "One sharpness for all classes instead of one a class.")
    midpoint: str = option(
        "0.5", "Prior value that leaves the penalty as it is: a number, or quantile (the median prior)."
    )
    preserve_penalty: bool = option(True, "Compare sharpnesses at equal total penalty.")
    rho: tuple[float, ...] = option(GRID, "Penalty of the common graph; several values are searched.", least=0.0)
    gamma: tuple[float, ...] = option(
        GRID, "Penalty of the class-specific graphs; several values are searched.", least=0.0
    )
    select: str = option("held-out", "How rho and gamma are chosen.", choices=("held-out", "ebic"))
    tol: float = option(1e-6, "Certified relative duality gap to reach.", least=1e-12, most=1e-1)
    max_iter: int = option(5000, "Iterations at most.", least=1)
    penalize_diagonal: bool = option(False, "Also penalise the diagonal.")
    ridge: float = option(0.0, "Added to the diagonal of every correlation matrix.", least=0.0)
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
    split: str = option("test", "The split to report on.")
    shrinkage: str = option(
        "auto", "Share of the common graph in every class's covariance: auto (validation part) or 0..1."
    )
    class_prior: str = option("uniform", "Prior probabilities of the classes.", choices=("uniform", "empirical"))
    baselines: bool = option(True, "Also fit the baselines and the controls.")
    figures: bool = option(True, "Write confusion matrix and reliability diagram beside the output.", results=False)
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
    compare: bool = option(True, "Also print the hold-out skill of simpler methods.")
    seed: int = _seed()


STAGE_CONFIGS: Mapping[str, type] = types.MappingProxyType(
    {
        "render-text": RenderTextConfig,
        "extract": ExtractConfig,
        "distill": DistillConfig,
        "prior": PriorConfig,
        "fit-graphs": FitGraphsConfig,
        "classify": ClassifyConfig,
        "twofold-restore": TwofoldRestoreConfig,
    }
)


@dataclass(frozen=True)
class RunConfig:
    """One experiment: where its data and artifacts are, and the settings of every stage.

    Attributes
    ----------
    name : str
        Folder of its artifacts below `artifacts`.
    dataset : str or None
        Name of the dataset, or None when every input is given by path.
    root : Path or None
        Where datasets lie; None looks at ``CMGL_DATA`` and then ``./data``.
    artifacts : Path
    until : str
        The last stage that ``cmgl run`` brings up to date.
    stages : mapping
        Stage name to its config.
    """

    name: str
    dataset: str | None
    root: Path | None
    artifacts: Path
    until: str
    stages: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder all artifacts of this experiment lie in."""
        return self.artifacts / self.name


TOP_KEYS = {"name": str, "dataset": str, "root": Path, "artifacts": Path, "until": str, "seed": int}


def identity_settings(config: Any) -> dict[str, Any]:
    """Return the settings that decide results, as JSON types."""
    return {item.name: _plain(getattr(config, item.name)) for item in fields(config) if item.metadata["results"]}


def build_run(
    yaml_path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    stage: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> RunConfig:
    """Merge defaults, YAML, environment and flags into one `RunConfig`.

    Parameters
    ----------
    yaml_path : Path, optional
    flags : mapping
        What was typed, None meaning not typed: top-level keys, and the settings of `stage`.
    stage : str, optional
        The stage whose settings `flags` holds.
    environment : mapping, optional
        Default: ``os.environ``.
    """
    environment = os.environ if environment is None else environment
    document = _read_yaml(yaml_path) if yaml_path else {}
    where = str(yaml_path) if yaml_path else "configuration"
    layers: dict[str, dict[str, Any]] = {name: _section(document, name, where) for name in STAGE_CONFIGS}
    top = {key: value for key, value in document.items() if key not in layers}
    _check_keys(top, TOP_KEYS, where, "key", also=STAGE_CONFIGS)
    _merge_environment(layers, top, environment)
    typed = {key: value for key, value in (flags or {}).items() if value is not None}
    top.update({key: typed.pop(key) for key in list(typed) if key in TOP_KEYS and (key != "seed" or stage is None)})
    if stage:
        layers[stage].update(typed)
    stages = {name: _build(STAGE_CONFIGS[name], name, layer, top.get("seed")) for name, layer in layers.items()}
    return _run_config(top, stages, where)


def _run_config(top: dict[str, Any], stages: dict[str, Any], where: str) -> RunConfig:
    values = {key: _convert(value, TOP_KEYS[key] | None, key, where, {}) for key, value in top.items()}
    until = values.get("until") or "classify"
    if until not in STAGE_CONFIGS:
        raise _bad("until", until, where, suggest(until, STAGE_CONFIGS))
    name = values.get("name") or values.get("dataset") or ""
    if name and (Path(name).name != name or name in {".", ".."}):
        raise UsageError("a name must be a plain folder name", f"name = {name!r}", "leave out slashes")
    return RunConfig(
        name,
        values.get("dataset"),
        values.get("root"),
        values.get("artifacts") or Path("artifacts"),
        until,
        types.MappingProxyType(stages),
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "the configuration file does not exist", str(path), "check the path; shipped ones lie in configs/"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError("the configuration file is not valid YAML", f"{path}: {reason}", "mend that line") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(
            "the configuration file must hold keys and values",
            f"{path}: found {type(document).__name__}",
            "start with: dataset: NAME",
        )
    return {str(key): value for key, value in document.items()}


def _section(document: dict[str, Any], stage: str, where: str) -> dict[str, Any]:
    known = [key for key in (stage, stage.replace("-", "_")) if key in document]
    section = document.pop(known[0], None) if known else None
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise UsageError(
            f"section {stage} must hold keys and values",
            f"{where}: {stage} = {section!r}",
            f"write {stage}: {{key: value}}",
        )
    section = {str(key).replace("-", "_"): value for key, value in section.items()}
    _check_keys(section, [item.name for item in fields(STAGE_CONFIGS[stage])], where, f"key of {stage}")
    return section


def _check_keys(found: Mapping, known: Any, where: str, kind: str, also: Any = ()) -> None:
    for key in found:
        if key not in known:
            raise UsageError(f"unknown {kind}: {key!r}", where, suggest(key, [*known, *also]))


def _merge_environment(layers: dict[str, dict[str, Any]], top: dict[str, Any], environment: Mapping[str, str]) -> None:
    for stage, layer in layers.items():
        prefix = f"CMGL_{stage.replace('-', '_').upper()}_"
        known = [item.name for item in fields(STAGE_CONFIGS[stage])]
        found = {name[len(prefix) :].lower(): value for name, value in environment.items() if name.startswith(prefix)}
        _check_keys(found, known, f"environment variable {prefix}...", f"setting of {stage}")
        layer.update(found)
    if environment.get("CMGL_ARTIFACTS"):
        top["artifacts"] = environment["CMGL_ARTIFACTS"]


def _build(cls: type, stage: str, layer: Mapping[str, Any], seed: Any) -> Any:
    hints = typing.get_type_hints(cls)
    declared = {item.name: item for item in fields(cls)}
    values = {key: _convert(value, hints[key], key, stage, declared[key].metadata) for key, value in layer.items()}
    if seed is not None and "seed" in declared:
        values.setdefault("seed", _convert(seed, int, "seed", stage, declared["seed"].metadata))
    return cls(**values)


def _convert(value: Any, hint: Any, key: str, where: str, rules: Mapping[str, Any]) -> Any:
    """Turn a YAML value or a text into the declared type, and hold it against its bounds."""
    arms = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None or value == "":
        if type(None) in arms:
            return None
        raise _bad(key, value, where, "it must have a value")
    kind = next(arm for arm in arms if arm is not type(None))
    if typing.get_origin(kind) is tuple:
        items = value if isinstance(value, list | tuple) else [part.strip() for part in str(value).split(",")]
        return tuple(_convert(item, typing.get_args(kind)[0], key, where, rules) for item in items)
    converted = _CONVERTERS.get(kind, _to_text)(value, key, where)
    _check_bounds(converted, key, where, rules)
    return converted


def _check_bounds(value: Any, key: str, where: str, rules: Mapping[str, Any]) -> None:
    if rules.get("choices") and value not in rules["choices"]:
        raise _bad(key, value, where, suggest(str(value), rules["choices"]))
    if rules.get("least") is not None and not value >= rules["least"]:
        raise _bad(key, value, where, f"it must be at least {rules['least']}")
    if rules.get("most") is not None and not value <= rules["most"]:
        raise _bad(key, value, where, f"it must be at most {rules['most']}")


def _to_bool(value: Any, key: str, where: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
    if str(value).lower() not in words:
        raise _bad(key, value, where, "write true or false")
    return words[str(value).lower()]


def _to_int(value: Any, key: str, where: str) -> int:
    try:
        if isinstance(value, bool) or float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise _bad(key, value, where, "write a whole number") from None


def _to_float(value: Any, key: str, where: str) -> float:
    try:
        if isinstance(value, bool) or float(value) != float(value):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise _bad(key, value, where, "write a number") from None


def _to_text(value: Any, key: str, where: str) -> str:
    if isinstance(value, dict | list | tuple):
        raise _bad(key, value, where, "write one word or number")
    return str(value)


_CONVERTERS: Mapping[Any, Callable[[Any, str, str], Any]] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_text,
    Path: lambda value, key, where: Path(_to_text(value, key, where)).expanduser(),
}


def _bad(key: str, value: Any, where: str, fix: str) -> UsageError:
    return UsageError(f"cannot use this value for {key}", f"{where}: {key} = {value!r}", fix)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
