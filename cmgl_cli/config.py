"""Settings merged: defaults < YAML < environment < flags, every value held against its declaration."""

import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from cmgl_cli.errors import InputError, UsageError, suggest
from cmgl_cli.settings import STAGE_CONFIGS


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
    dataset_options : mapping
        Options of the dataset's reader, such as the folder its masks lie in.
    until : tuple of str
        The stages that ``cmgl run`` is for; what they read is brought up to date first.
    stages : mapping
        Stage name to its config.
    """

    name: str
    dataset: str | None
    root: Path | None
    artifacts: Path
    dataset_options: Mapping[str, Any]
    until: tuple[str, ...]
    stages: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder all artifacts of this experiment lie in."""
        return self.artifacts / self.name


TOP_KEYS = {"name": str, "dataset": str, "root": Path, "artifacts": Path, "until": tuple[str, ...], "seed": int}
OPTIONS = "dataset_options"
MOST_CHARACTERS, MOST_VALUES, LONGEST_SHOWN = 2**20, 100_000, 200


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
    options = top.pop(OPTIONS, None)
    _check_keys(top, (*TOP_KEYS, OPTIONS), where, "key", also=STAGE_CONFIGS)
    _merge_environment(layers, top, environment)
    typed = {key: value for key, value in (flags or {}).items() if value is not None}
    options = _options(typed.pop(OPTIONS, options), where)
    top.update({key: typed.pop(key) for key in list(typed) if key in TOP_KEYS and (key != "seed" or stage is None)})
    if stage:
        layers[stage].update(typed)
    stages = {name: _build(STAGE_CONFIGS[name], name, layer, top.get("seed")) for name, layer in layers.items()}
    return _run_config(top, options, stages, where)


def _options(given: Any, where: str) -> dict[str, Any]:
    """Return the dataset's options from a YAML mapping, or from the text of one."""
    try:
        parsed = _load_yaml(given) if isinstance(given, str) else given
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _bad(OPTIONS, given, where, f"it is not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if parsed is None:
        return {}
    if not isinstance(parsed, dict) or not all(isinstance(key, str) for key in parsed):
        raise _bad(OPTIONS, given, where, "write a mapping: {masks: FOLDER, classes: [NAME, NAME]}")
    return parsed


def _run_config(top: dict[str, Any], options: dict[str, Any], stages: dict[str, Any], where: str) -> RunConfig:
    values = {key: _convert(value, TOP_KEYS[key] | None, key, where, {}) for key, value in top.items()}
    until = values.get("until") or ("classify",)
    for stage in until:
        if stage not in STAGE_CONFIGS:
            raise _bad("until", stage, where, suggest(stage, STAGE_CONFIGS))
    name = values.get("name") or values.get("dataset") or ""
    if name and (Path(name).name != name or name in {".", ".."}):
        raise UsageError("a name must be a plain folder name", f"name = {name!r}", "leave out slashes")
    return RunConfig(
        name,
        values.get("dataset"),
        values.get("root"),
        values.get("artifacts") or Path("artifacts"),
        types.MappingProxyType(options),
        until,
        types.MappingProxyType(stages),
    )


def _load_yaml(text: str) -> Any:
    """Parse YAML; raise `ValueError` where few lines stand for very many values, or for themselves."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{len(text)} characters are no settings")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and _count_values(root, {}) > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES} values")
    return yaml.safe_load(text)


def _count_values(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a node stands for when every alias is written out; infinite where it holds itself."""
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        return 1
    known[id(node)] = float("inf")
    inner = node.value if isinstance(node, yaml.SequenceNode) else [one for pair in node.value for one in pair]
    known[id(node)] = 1 + sum(_count_values(one, known) for one in inner)
    return known[id(node)]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = _load_yaml(path.read_text(encoding="utf-8"))
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
            f"{where}: {stage} = {repr(section)[:LONGEST_SHOWN]}",
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
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, int):
            return value
        if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
            return int(value)  # not through float, which has 53 bits
        if float(value) != int(float(value)):
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
    return UsageError(f"cannot use this value for {key}", f"{where}: {key} = {repr(value)[:LONGEST_SHOWN]}", fix)
