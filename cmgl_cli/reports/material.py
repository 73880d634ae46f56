"""What a report is made from: artifacts by kind, run by run, with what is missing said in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cmgl_cli.artifacts import Artifact, Identity, SampleTable, open_artifact
from cmgl_cli.config import RunConfig
from cmgl_cli.datasets import DATASETS, Dataset, Sample, open_dataset
from cmgl_cli.errors import CmglError, InputError
from cmgl_cli.steps import steps_of

VARIANTS = ("features", "graphs")
"""Schemas of which a run has several, told apart by the setting ``variant``."""
EXPERIMENTS = "experiments"
"""Folder below a run's for what ``cmgl experiment`` wrote."""


@dataclass(frozen=True)
class Found:
    """One artifact of a run.

    Attributes
    ----------
    path : Path
    identity : Identity
    digest : str
        Of its content.
    provenance : mapping
        When, where and with which versions it was made.
    given : bool
        Named by the user, or found as what a named one was made from.
    """

    path: Path
    identity: Identity
    digest: str
    provenance: Mapping[str, Any]
    given: bool = True

    @classmethod
    def at(cls, path: Path, given: bool = True) -> "Found":
        """Read the header of an artifact.

        Raises
        ------
        InputError
            It is missing, or not an artifact that can be read.
        """
        with open_artifact(path) as artifact:
            return cls(path, artifact.identity, artifact.digest, artifact.provenance, given)

    @property
    def kind(self) -> str:
        """What it is: its schema, preceded by the variant where a run has several."""
        schema = self.identity.schema
        return f"{self.identity.config.get('variant', 'image')} {schema}" if schema in VARIANTS else schema


@dataclass(frozen=True)
class Run:
    """Artifacts that belong together, by kind, and the images they were made from.

    Attributes
    ----------
    name : str
    folder : Path
    found : mapping of str to Found
    notes : tuple of str
        What is missing, and what follows.
    dataset : Dataset or None
        None where the images cannot be had; pictures are then left out.
    """

    name: str
    folder: Path
    found: Mapping[str, Found]
    notes: tuple[str, ...] = ()
    dataset: Dataset | None = None

    def open(self, kind: str) -> Artifact | None:
        """Open the artifact of a kind, or return None where there is none."""
        return open_artifact(self.found[kind].path) if kind in self.found else None

    @cached_property
    def samples(self) -> Mapping[str, Sample]:
        """Its samples by id; empty where the images cannot be had."""
        return {} if self.dataset is None else {sample.id: sample for sample in self.dataset.samples()}


@dataclass(frozen=True)
class Images:
    """Where images are looked for: a dataset's name, its folder, and the options of its reader."""

    dataset: str | None = None
    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def runs_of_config(config: RunConfig) -> list[Run]:
    """Return an experiment's run, and a run for each of its ``cmgl experiment`` artifacts.

    Raises
    ------
    InputError
        There is no artifact at all.
    """
    repeated = []
    for path in sorted((config.folder / EXPERIMENTS).glob("*.h5")):
        try:
            one = Found.at(path)
        except InputError:
            continue
        if ".partial" not in path.name and one.kind == "experiment":
            repeated.append(Run(f"{config.name}/{path.stem}", path.parent, {one.kind: one}))
    if repeated and not any(config.folder.glob("*.h5")):
        return repeated
    return [run_of_config(config), *repeated]


def run_of_config(config: RunConfig) -> Run:
    """Return everything there is of an experiment, and note which artifacts of it do not exist yet.

    Raises
    ------
    InputError
        There is no artifact at all.
    """
    folder, found, notes = config.folder, dict[str, Found](), list[str]()
    for path in sorted(folder.glob("*.h5")):
        if ".partial" in path.name or ".shard-" in path.name:
            continue
        try:
            one = Found.at(path)
        except InputError as error:
            notes.append(f"{path.name} is left out: {_one_line(error)}")
            continue
        if found.setdefault(one.kind, one) is not one:
            notes.append(f"{path.name} is left out: {found[one.kind].path.name} is of the same kind")
    if not found:
        raise InputError(
            "there is nothing to report on yet", f"{folder} holds no artifact", "run: cmgl run CONFIG, then again"
        )
    there = {one.path.name for one in found.values()}
    wanted = steps_of(config) if config.dataset and set(there) & {"nodes.h5", "features.h5"} else []
    for step in wanted:
        if step.output not in there:
            notes.append(f"{step.output} does not exist yet: {step.label} has not run")
    run = Run(config.name, folder, found, tuple(notes + stale_notes(found)))
    return with_images(run, Images(config.dataset, config.root, config.dataset_options))


def runs_of_files(paths: Sequence[Path], images: Images | None = None) -> list[Run]:
    """Sort artifacts into runs, and add what they were made from where it lies beside them.

    Files of one folder make one run; a second one of the same kind begins another. A folder that holds nothing but
    what another run was made from becomes part of that run.

    Raises
    ------
    InputError
        A path is no artifact.
    """
    given = [Found.at(path) for path in dict.fromkeys(path.resolve() for path in paths)]
    pool = {one.digest: one for one in given}
    groups: list[list[Found]] = []
    for one in given:
        home = next((group for group in groups if _takes(group, one)), None)
        if home is None:
            groups.append([one])
        else:
            home.append(one)
    closed = [_closure(group, pool) for group in groups]
    kept = [i for i, group in enumerate(groups) if not _is_part(group, closed[:i] + closed[i + 1 :])] or [0]
    runs = [_as_run(groups[i], closed[i]) for i in kept]
    return [with_images(run, images or Images()) for run in _told_apart(runs)]


def _takes(group: list[Found], one: Found) -> bool:
    """Tell whether a file belongs to a group: same folder, and no other of its kind in it."""
    return group[0].path.parent == one.path.parent and all(other.kind != one.kind for other in group)


def _closure(group: list[Found], pool: Mapping[str, Found]) -> tuple[dict[str, Found], list[str]]:
    """Return the files of a group and all that they were made from by kind, and what of that is not there."""
    found, notes, waiting = dict[str, Found](), list[str](), list(group)
    while waiting:
        one = waiting.pop(0)
        if found.setdefault(one.kind, one) is not one:
            continue
        for entry in one.identity.inputs.values():
            source = pool.get(entry["digest"]) or _beside(one.path.parent / entry["file"], entry["digest"])
            if source is not None:
                waiting.append(source)
            else:
                digest = short_digest(entry["digest"])
                notes.append(f"{one.path.name} was made from {entry['file']} ({digest}), which is not here")
    return found, list(dict.fromkeys(notes))


def _beside(path: Path, digest: str) -> Found | None:
    try:
        one = Found.at(path, given=False)
    except CmglError:
        return None
    return one if one.digest == digest else None


def _is_part(group: list[Found], others: list[tuple[dict[str, Found], list[str]]]) -> bool:
    """Tell whether another run was made from all files of a group."""
    digests = {one.digest for found, _ in others for one in found.values()}
    return all(one.digest in digests for one in group)


def _as_run(group: list[Found], closed: tuple[dict[str, Found], list[str]]) -> Run:
    folder = group[0].path.parent
    return Run(folder.name or str(folder), folder, closed[0], tuple(closed[1]))


def _told_apart(runs: list[Run]) -> list[Run]:
    """Give runs of one folder names of their own."""
    names = [run.name for run in runs]
    return [
        replace(run, name=f"{run.name}/{_main(run).path.stem}") if names.count(run.name) > 1 else run for run in runs
    ]


def _main(run: Run) -> Found:
    return next(one for one in run.found.values() if one.given)


def stale_notes(found: Mapping[str, Found]) -> list[str]:
    """Say which artifacts were made from others than those beside them."""
    digests = {one.path.name: one.digest for one in found.values()}
    notes = []
    for one in found.values():
        for entry in one.identity.inputs.values():
            beside = digests.get(Path(entry["file"]).name)
            if beside is not None and beside != entry["digest"]:
                notes.append(f"{one.path.name} was made from another {entry['file']} than the one beside it")
    return notes


def with_images(run: Run, images: Images) -> Run:
    """Return the run with the dataset its images come from, or with a note why they are left out."""
    name = images.dataset or (run.folder.name if run.folder.name in DATASETS else None)
    if "image features" not in run.found and "nodes" not in run.found:
        return run
    if name is None:
        return replace(run, notes=(*run.notes, "no --dataset was named, so photographs are left out"))
    try:
        dataset = open_dataset(name, images.root, **images.options)
        _require_same(run, dataset)
    except CmglError as error:
        return replace(run, notes=(*run.notes, f"photographs are left out: {_one_line(error)}"))
    return replace(run, dataset=dataset)


def _require_same(run: Run, dataset: Dataset) -> None:
    """Refuse a dataset that is not the one that was encoded."""
    features = run.found.get("image features")
    if features is None:
        return
    with open_artifact(features.path) as artifact:
        table = SampleTable.read(artifact)
    known = {sample.id: sample for sample in dataset.samples()}
    chosen = [known[name] for name in table.ids.tolist() if name in known]
    if len(chosen) < len(table) or dataset.fingerprint(chosen) != features.identity.digests.get("dataset"):
        raise InputError(
            "they are not the images that were encoded", f"dataset {dataset.name}", "give the --root that was encoded"
        )


def short_digest(digest: str) -> str:
    """Return as much of a digest as a reader compares."""
    return digest.removeprefix("sha256:")[:12]


def _one_line(error: CmglError) -> str:
    return "; ".join(part for part in (error.what, error.where) if part)


def kinds(runs: Iterable[Run], kind: str) -> list[Run]:
    """Return the runs that have an artifact of a kind."""
    return [run for run in runs if kind in run.found]
