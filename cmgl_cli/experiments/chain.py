"""What the cells of an ablation are made from: artifacts of the pipeline's own steps, shared by all that need them.

A cell asks for nodes, priors, graphs or scores under certain settings. Each is made once, by the stage that makes it in
every experiment, into a file named after what decides its content; whoever comes second finds it, whoever comes
meanwhile waits. So no mathematics is repeated here, and a kill costs at most the artifact at work.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cmgl_cli.artifacts import SampleTable, canonical_json, open_artifact, read_header
from cmgl_cli.config import RunConfig
from cmgl_cli.console import Console
from cmgl_cli.errors import InputError, LockedError
from cmgl_cli.pipeline import Job, execute, is_current
from cmgl_cli.settings import identity_settings
from cmgl_cli.steps import STEPS, Step

STAGES = ("distill", "prior", "fit-graphs", "classify", "segment")
CELLS = "cells"
FILES: Mapping[str, str] = MappingProxyType(
    {"features": "features.h5", "text_features": "text_features.h5", "masks": "masks.h5"}
)
WAIT_SECONDS = 0.2
# what a cell must not do beside its artifact: write files of the user's, draw, stop at a gap that is to be measured
_ASIDE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "fit-graphs": {"figures": False, "edges": None, "stability": 0, "allow_unconverged": True},
        "classify": {"figures": False, "baselines": False},
        "segment": {"figures": False, "baselines": False, "png": None, "explain": (), "probabilities": False},
    }
)


class _Silent(Console):
    """Says nothing: a stage that is repeated a hundred times would say the same a hundred times."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def warn(self, text: str) -> None:
        """Keep it."""


@dataclass(frozen=True)
class Chain:
    """An experiment of the user's, from its features on.

    Attributes
    ----------
    run : RunConfig
        Settings of all stages; what a cell does not vary is taken from here.
    sources : mapping
        Role to path of the artifacts that all cells share: features, and text_features and masks where there are some.
    kind : {"image", "region"}
        What graphs are of and what is scored: whole images, or regions of masks where images show several classes.
    """

    run: RunConfig
    sources: Mapping[str, Path]
    kind: str = "image"

    @classmethod
    def of(cls, run: RunConfig) -> "Chain":
        """Return the chain of an experiment whose features exist.

        Raises
        ------
        InputError
            There are none, or neither classes of whole images nor masks.
        """
        sources = {role: run.folder / file for role, file in FILES.items() if (run.folder / file).exists()}
        if "features" not in sources:
            raise InputError(
                "the ablations start from the features of images, and there are none",
                str(run.folder / FILES["features"]),
                "name the data: --config FILE or --dataset NAME; or the experiment that has features: --name NAME",
            )
        # what travels to other processes: plain dictionaries, and paths that hold in any folder
        portable = replace(
            run,
            artifacts=run.artifacts.resolve(),
            root=run.root.resolve() if run.root else None,
            dataset_options=dict(run.dataset_options),
            stages=dict(run.stages),
        )
        return cls(portable, {role: path.absolute() for role, path in sources.items()}, _kind(sources))

    @property
    def cells(self) -> Path:
        """The folder of what cells make."""
        return self.run.folder / "experiments" / CELLS

    def digests(self) -> dict[str, str]:
        """Return what decides the numbers of cells beside their parameters: the features, and settings of stages."""
        found = {role: read_header(path)[1] for role, path in self.sources.items()}
        settings = {stage: identity_settings(self.run.stages[stage]) for stage in STAGES}
        versions = {step.label: step.version for step in STEPS if step.stage in STAGES}
        return {**found, "settings": _hash({"settings": settings, "versions": versions})}

    def digest(self) -> str:
        """Return one digest of all that `digests` names."""
        return _hash(self.digests())

    def setting(self, stage: str, key: str) -> Any:
        """Return a setting as the user has it."""
        return getattr(self.run.stages[stage], key)

    def nodes(self, seed: int, **settings: Any) -> Path:
        """Return distilled nodes; `seed` counts from the user's own."""
        return self._make("distill", "", self.sources, seed, settings)

    def prior(self, nodes: Path, **settings: Any) -> Path:
        """Return the prior of these nodes."""
        return self._make("prior", "", {"nodes": nodes}, 0, settings)

    def graphs(self, kind: str, nodes: Path, prior: Path | None, seed: int, **settings: Any) -> Path:
        """Return graphs of ``image``, ``patch`` or ``region`` observations; without a prior, `own_prior` is one."""
        inputs = {"nodes": nodes} | ({"prior": prior} if prior is not None else {})
        wanted = {"image": (), "patch": ("features", "text_features"), "region": ("features", "masks")}[kind]
        inputs |= {role: path for role, path in self.sources.items() if role in wanted}
        return self._make("fit-graphs", kind, inputs, seed, settings)

    def scores(self, kind: str, nodes: Path, graphs: Path, seed: int, **settings: Any) -> Path:
        """Return what `classify` makes of the graphs of one kind of observation, without baselines."""
        inputs = {"nodes": nodes, "patch_graphs" if kind == "patch" else "graphs": graphs}
        if kind == "patch":
            inputs["features"] = self.sources["features"]
        return self._make("classify", "", inputs, seed, {"observations": kind, **settings})

    def labels(self, nodes: Path, graphs: Path, seed: int, graph: str = "per-class", **settings: Any) -> Path:
        """Return the label maps that graphs of regions alone make, as `segment` names the choice of graph."""
        inputs = {role: self.sources[role] for role in ("features", "masks")}
        inputs |= {"nodes": nodes, "region_graphs": graphs}
        alone = {"decoder": "generative", "graph": graph}
        decoder = self._make("segment", "train", inputs, seed, alone)
        inputs = {"model": decoder, "features": self.sources["features"]}
        return self._make("segment", "predict", inputs, seed, {**alone, **settings})

    def fresh(
        self, folder: Path, stage: str, variant: str, inputs: Mapping[str, Path], seed: int, **settings: Any
    ) -> Path:
        """Make an artifact anew in a folder, whatever there is; `_make` with a choice of place."""
        job = self._job(stage, variant, inputs, seed, settings)
        job = replace(job, output=folder / job.step.output)
        execute(job)
        return job.output

    def _make(self, stage: str, variant: str, inputs: Mapping[str, Path], seed: int, settings: Mapping) -> Path:
        own = self._job(stage, variant, inputs, seed, settings)
        name = f"{own.output.stem}-{_key(own.step, own.config, inputs)}.h5"
        output = self.cells / name
        # the user's own artifact serves as well, where it was made with these settings
        if not output.exists() and is_current(own):
            return own.output
        self.cells.mkdir(parents=True, exist_ok=True)
        _execute(replace(own, output=output))
        return output

    def _job(self, stage: str, variant: str, inputs: Mapping[str, Path], seed: int, settings: Mapping) -> Job:
        """Return the job of a step under these settings, with the user's own artifact as its output."""
        step = next(step for step in STEPS if (step.stage, step.variant) == (stage, variant))
        config = replace(self.run.stages[stage], **{**_ASIDE.get(stage, {}), **settings})
        if hasattr(config, "seed"):
            config = replace(config, seed=config.seed + seed)
        run = replace(self.run, stages={**self.run.stages, stage: config})
        return Job(step, run, dict(inputs), self.run.folder / step.output, _Silent())


def _kind(sources: Mapping[str, Path]) -> str:
    """Return what can be scored: whole images where some show one class each, else regions where there are masks."""
    with open_artifact(sources["features"]) as features:
        table = SampleTable.read(features)
    single = {part for part, label in zip(table.parts, table.label, strict=True) if label >= 0}
    if {"train", "validation"} <= single:
        return "image"
    if "masks" in sources:
        return "region"
    raise InputError(
        "ablations need images of one class each, or masks",
        f"{sources['features']}: neither in its training and validation part",
        "use a dataset with labels or masks, and the split called train",
    )


def _execute(job: Job) -> None:
    """Make an artifact, or wait for the cell that is making it."""
    while True:
        try:
            execute(job)
            return
        except LockedError:
            time.sleep(WAIT_SECONDS)


def _key(step: Step, config: Any, inputs: Mapping[str, Path]) -> str:
    # priors of different directions may hold the same numbers and yet be about different observations
    headers = {role: read_header(path) for role, path in inputs.items()}
    found = {role: [digest, dict(identity.config)] for role, (identity, digest) in headers.items()}
    given = str(getattr(config, "own_prior", None))
    return _hash([step.label, step.version, identity_settings(config), found, given])[:16]


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
