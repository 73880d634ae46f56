"""The pipeline as a table, and the four things done with it: plan, status, execute, run.

Stages meet only through artifacts, so the table names modules as text and nothing here imports torch.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cmgl_cli.artifacts import (
    SCHEMAS,
    Artifact,
    Identity,
    clear_leftovers,
    create_artifact,
    open_artifact,
    partial_path,
    read_header,
)
from cmgl_cli.config import RunConfig
from cmgl_cli.console import Console
from cmgl_cli.errors import CmglError, InputError, StaleError, UsageError
from cmgl_cli.settings import identity_settings


@dataclass(frozen=True)
class Input:
    """One artifact a step reads: its role (also the name of the flag), its usual file name and schema.

    What is not `implied` is read only when its path is given.
    What a portable one was made from need not be what lies beside it: a decoder labels images it never saw.
    """

    role: str
    file: str
    schema: str
    required: bool = True
    implied: bool = True
    portable: bool = False


@dataclass(frozen=True)
class Step:
    """One row of the table: a stage, or one variant of it, with what it reads and writes.

    Attributes
    ----------
    stage, variant : str
        The command; and which of its outputs, empty when it has one.
    version : int
        Raised by hand when the numbers change.
    ignores : frozenset of str
        Settings that decide nothing in this variant.
    alone : bool
        It is not part of the chain that ``cmgl run`` brings up to date.
    needs_masks : bool
        It has nothing to do for a dataset without masks.
    room : str
        Module below ``cmgl_cli.stages``, where it is not the stage's.
    settles_fast : bool
        What it reads beside artifacts can be looked at in milliseconds, so `status` does it.
    """

    stage: str
    variant: str
    version: int
    schema: str
    output: str
    inputs: tuple[Input, ...] = ()
    ignores: frozenset[str] = frozenset()
    settles_fast: bool = False
    alone: bool = False
    needs_masks: bool = False
    room: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.stage} ({self.variant})" if self.variant else self.stage

    @property
    def module(self) -> str:
        """The module that computes it: the stage's, or the variant's own."""
        return "cmgl_cli.stages." + (self.room or self.stage.replace("-", "_"))


_FEATURES = Input("features", "features.h5", "features")
_TEXT_FEATURES = Input("text_features", "text_features.h5", "features", required=False)
_NODES = Input("nodes", "nodes.h5", "nodes")
_PRIOR = Input("prior", "prior.h5", "prior")
_GRAPHS = Input("graphs", "graphs.h5", "graphs", required=False)
_PATCH_GRAPHS = Input("patch_graphs", "patch_graphs.h5", "graphs", required=False)
_REGION_GRAPHS = Input("region_graphs", "region_graphs.h5", "graphs")
_OPTIONAL_FEATURES = Input("features", "features.h5", "features", required=False)
_MASKS = Input("masks", "masks.h5", "masks")
_OPTIONAL_MASKS = Input("masks", "masks.h5", "masks", required=False)
_DECODER = Input("model", "decoder.h5", "decoder", portable=True)

_OF_THE_ENCODER = frozenset(
    {"encoder", "revision", "dtype", "precision", "attention", "max_patches", "store"}  # masks are not encoded
)
_OF_TRAINING = frozenset({"decoder", "graph", "epochs", "learning_rate", "dice", "batch_size", "seed"})
_OF_REGIONS = frozenset({"region", "windows", "appearance"})
_OF_PREDICTION = frozenset({"split", "probabilities"})

STEPS: tuple[Step, ...] = (
    Step("render-text", "", 1, "renders", "renders.h5", settles_fast=True),
    Step("extract", "image", 1, "features", "features.h5", ignores=frozenset({"mask_size"})),
    Step(
        "extract",
        "text",
        1,
        "features",
        "text_features.h5",
        (Input("renders", "renders.h5", "renders"),),
        ignores=frozenset({"split", "limit", "seed", "mask_size"}),
    ),
    Step("extract", "mask", 1, "masks", "masks.h5", ignores=_OF_THE_ENCODER, needs_masks=True, room="extract_masks"),
    Step("distill", "", 2, "nodes", "nodes.h5", (_FEATURES, _TEXT_FEATURES, _OPTIONAL_MASKS)),
    Step("prior", "", 1, "prior", "prior.h5", (_NODES,)),
    Step("fit-graphs", "image", 2, "graphs", "graphs.h5", (_NODES, _PRIOR), ignores=_OF_REGIONS),
    Step(
        "fit-graphs",
        "patch",
        2,
        "graphs",
        "patch_graphs.h5",
        (_NODES, _PRIOR, _OPTIONAL_FEATURES, _TEXT_FEATURES),
        ignores=_OF_REGIONS,
    ),
    Step(
        "fit-graphs",
        "region",
        2,
        "graphs",
        "region_graphs.h5",
        (_NODES, _PRIOR, _FEATURES, _MASKS),
        ignores=frozenset({"scope"}),
        needs_masks=True,
    ),
    Step("fit-graphs", "given", 2, "graphs", "graphs.h5", alone=True),
    Step(
        "classify", "", 1, "classification", "classification.h5", (_NODES, _GRAPHS, _PATCH_GRAPHS, _OPTIONAL_FEATURES)
    ),
    Step(
        "segment",
        "train",
        2,
        "decoder",
        "decoder.h5",
        (_FEATURES, _NODES, _MASKS, _REGION_GRAPHS),
        ignores=_OF_PREDICTION,
        room="segment_train",
    ),
    Step(
        "segment",
        "predict",
        2,
        "segmentation",
        "segmentation.h5",
        (_DECODER, _FEATURES),
        ignores=_OF_TRAINING,
        room="segment_predict",
    ),
    Step(
        "twofold-restore",
        "",
        1,
        "restoration",
        "restored.h5",
        (Input("model", "network.h5", "network", required=False, implied=False),),
        ignores=frozenset({"epochs", "folds"}),
        alone=True,
    ),
    Step(
        "twofold-restore",
        "network",
        1,
        "network",
        "network.h5",
        ignores=frozenset({"method", "compare", "bounds"}),
        alone=True,
    ),
    Step("experiment", "", 1, "experiment", "experiments/EXPERIMENT.h5", alone=True),
)


# the setting of a stage that says which of its variants are wanted, and the words that mean all
_SELECTORS: Mapping[str, tuple[str, frozenset[str]]] = MappingProxyType(
    {
        "extract": ("modality", frozenset({"all"})),
        "fit-graphs": ("observations", frozenset({"auto"})),
        "segment": ("mode", frozenset({"all"})),
    }
)


@dataclass(frozen=True)
class Job:
    """One step with everything it needs to run: settings, paths, and how to talk to the user."""

    step: Step
    run: RunConfig
    inputs: Mapping[str, Path]
    output: Path
    console: Console
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    force: bool = False
    dry_run: bool = False
    verify: bool = False

    @property
    def config(self) -> Any:
        """The settings of this job's stage."""
        return self.run.stages[self.step.stage]

    def command(self, stage: str) -> str:
        """Return the command that runs another stage of the same experiment, to be pasted."""
        where = f" --dataset {self.run.dataset}" if self.run.dataset else f" --name {self.run.name}"
        if self.run.dataset and self.run.name != self.run.dataset:
            where += f" --name {self.run.name}"
        return f"cmgl {stage}{where}"


@dataclass(frozen=True)
class Prepared:
    """What a stage found out before computing: digests of what it reads beside artifacts, and what it opened.

    `wanted` names what is to be made beside the output, and so again, even where the output is up to date.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    state: Any = None
    wanted: str = ""


@dataclass(frozen=True)
class StepState:
    """What `status` says of one step: missing, partial, stale or up to date, and why."""

    step: Step
    state: str
    reasons: tuple[str, ...] = ()


def steps_of(run: RunConfig, stage: str | None = None) -> list[Step]:
    """Return the steps that the settings switch on: of one stage, or those wanted and all that they read."""
    if stage is None and run.stages["fit-graphs"].covariance:
        raise UsageError(
            "covariances of your own are fitted by one command, not by a chain of stages",
            f"fit-graphs: covariance = {str(run.stages['fit-graphs'].covariance)!r}",
            "run: cmgl fit-graphs --config FILE, or take the key out",
        )
    own_prior = run.stages["fit-graphs"].own_prior
    chosen = [_with_own_prior(step) if own_prior else step for step in STEPS if _switched_on(step, run)]
    if stage:
        return [step for step in chosen if step.stage == stage]
    wanted = {step.output for step in chosen if step.stage in run.until}
    for step in reversed(chosen):
        if step.output in wanted:
            wanted.update(item.file for item in step.inputs)
    return [step for step in chosen if step.output in wanted and not step.alone]


def _switched_on(step: Step, run: RunConfig) -> bool:
    """Return whether the settings ask for a step: by its name, or with all others that the dataset has data for."""
    config = run.stages[step.stage]
    if step.stage == "fit-graphs" and (config.covariance or step.variant == "given"):
        return bool(config.covariance) and step.variant == "given"
    if step.stage == "twofold-restore":
        return (step.variant == "network") == config.train
    key, everything = _SELECTORS.get(step.stage, ("", frozenset()))
    word = getattr(config, key) if key else step.variant
    if word == "both":
        return step.variant in {"image", "patch"}
    return word == step.variant or (word in everything and (not step.needs_masks or _has_masks(run)))


def _has_masks(run: RunConfig) -> bool:
    from cmgl_cli.datasets import has_masks

    return run.dataset is not None and has_masks(run.dataset, run.root, **run.dataset_options)


def _with_own_prior(step: Step) -> Step:
    """Return the step of fit-graphs without its prior artifact: the user's own takes its place."""
    if step.stage != "fit-graphs":
        return step
    return replace(step, inputs=tuple(item for item in step.inputs if item.role != "prior"))


def make_job(
    step: Step,
    run: RunConfig,
    console: Console,
    paths: Mapping[str, Path] | None = None,
    **flags: Any,
) -> Job:
    """Give a step its paths: those typed, and for the rest the usual names in the experiment's folder.

    Parameters
    ----------
    paths : mapping
        Role (or ``output``) to a path given by hand.
    **flags
        `options`, `force`, `dry_run`, `verify` of `Job`.
    """
    paths = {role: path for role, path in (paths or {}).items() if path is not None}
    if not run.name and ("output" not in paths or any(item.role not in paths for item in step.inputs if item.required)):
        raise UsageError(
            "no dataset named",
            f"cmgl {step.stage}",
            "give --dataset NAME (see: cmgl datasets), --name NAME, or every path",
        )
    inputs = {item.role: paths.get(item.role, run.folder / item.file) for item in step.inputs}
    for item in step.inputs:
        if item.role in paths and not paths[item.role].exists():
            raise InputError(f"the {item.role} artifact does not exist", str(paths[item.role]), "check the path")
    found = {item.role for item in step.inputs if item.implied and inputs[item.role].exists()}
    present = {item.role: inputs[item.role] for item in step.inputs if item.required or item.role in {*found, *paths}}
    return Job(step, run, MappingProxyType(present), paths.get("output", run.folder / step.output), console, **flags)


def execute(job: Job) -> bool:
    """Bring one step's output up to date; return whether anything was computed.

    Raises
    ------
    InputError, StaleError
        An input is missing, invalid, or was made from other inputs than the ones beside it.
    """
    headers = _read_inputs(job)
    module = importlib.import_module(job.step.module)
    with _damage_explained(job.inputs.values()):
        prepared: Prepared = module.prepare(job)
    identity = _identity(job, headers, prepared.digests)
    reasons = _reasons(job, identity) or ([prepared.wanted] if prepared.wanted else [])
    if not reasons and not job.force:
        if job.verify:
            _verify(job.inputs.values())
        if not job.dry_run:
            clear_leftovers(job.output)
        job.console.info(f"{job.step.label}: up to date ({job.output})")
        return False
    why = "; ".join(reasons) or "forced"
    if job.dry_run:
        job.console.info(f"{job.step.label}: would write {job.output} because {why}")
        return False
    job.console.info(f"{job.step.label}: {why}")
    with _open_inputs(job, headers) as inputs, create_artifact(job.output, identity, job.console.info) as out:
        with _damage_explained(job.inputs.values()):
            module.compute(job, prepared.state, inputs, out)
    return True


def is_current(job: Job) -> bool:
    """Tell whether a step's output exists and is what its settings and inputs would make; nothing is computed."""
    if not job.output.exists():
        return False
    try:
        prepared: Prepared = importlib.import_module(job.step.module).prepare(job)
        return not _reasons(job, _identity(job, _read_inputs(job), prepared.digests))
    except CmglError:
        return False


def summarize(job: Job) -> None:
    """Print what the step's output says."""
    with _damage_explained([job.output]), open_artifact(job.output, job.step.schema) as artifact:
        importlib.import_module(job.step.module).summarize(artifact, job)


def status(run: RunConfig, console: Console) -> list[StepState]:
    """Return the state of every step of an experiment, without loading any model."""
    states: dict[str, StepState] = {}
    for step in steps_of(run):
        states[step.output] = _state(step, run, console, states)
    return list(states.values())


def run_all(run: RunConfig, console: Console, *, force: bool = False, verify: bool = False) -> list[Job]:
    """Bring every stale step of an experiment up to date; return the jobs of the stages it is for."""
    wanted = []
    for step in steps_of(run):
        job = make_job(step, run, console, force=force, verify=verify)
        execute(job)
        wanted += [job] if job.step.stage in run.until else []
    return wanted


def _state(step: Step, run: RunConfig, console: Console, upstream: Mapping[str, StepState]) -> StepState:
    job = make_job(step, run, console)
    late = [item.file for item in step.inputs if item.file in upstream and upstream[item.file].state != "up to date"]
    late = [file for file in late if (run.folder / file).exists() or _required(step, file)]
    if not job.output.exists():
        unfinished = partial_path(job.output).exists()
        return StepState(
            step, "partial" if unfinished else "missing", ("unfinished; the next run goes on",) if unfinished else ()
        )
    try:
        found, _ = read_header(job.output)
        digests = importlib.import_module(job.step.module).prepare(job).digests if step.settles_fast else found.digests
        headers = {role: read_header(path) for role, path in job.inputs.items() if path.exists()}
        reasons = _identity(job, headers, digests).differences(found)
    except CmglError as error:
        return StepState(step, "stale", (" ".join(str(error).splitlines()[:2]),))
    reasons += [f"waits for {upstream[file].step.label}" for file in late]
    return StepState(step, "stale" if reasons else "up to date", tuple(reasons))


def _required(step: Step, file: str) -> bool:
    return any(item.required for item in step.inputs if item.file == file)


def _reasons(job: Job, identity: Identity) -> list[str]:
    if not job.output.exists():
        return ["the output does not exist yet"]
    try:
        found, _ = read_header(job.output)
        if job.verify:
            _verify([job.output])
    except InputError as error:
        return [f"the output that is there is unusable: {error.what}"]
    return identity.differences(found)


def _identity(job: Job, headers: Mapping[str, tuple[Identity, str]], digests: Mapping[str, str]) -> Identity:
    step = job.step
    settings = {key: value for key, value in identity_settings(job.config).items() if key not in step.ignores}
    if step.variant:
        settings["variant"] = step.variant
    inputs = {role: {"file": job.inputs[role].name, "digest": digest} for role, (_, digest) in headers.items()}
    return Identity(
        step.schema, SCHEMAS[step.schema].version, step.stage, step.version, settings, inputs, dict(digests)
    )


def _read_inputs(job: Job) -> dict[str, tuple[Identity, str]]:
    """Read the headers of all inputs, and refuse inputs that do not belong together."""
    writers = {step.output: step.stage for step in STEPS}
    declared = {item.role: item for item in job.step.inputs}
    headers = {}
    for role, path in job.inputs.items():
        if not path.exists():
            raise InputError(
                f"{job.step.label} needs the {role} artifact",
                f"{path} does not exist",
                f"run: {job.command(writers[declared[role].file])}",
            )
        headers[role] = read_header(path, declared[role].schema)
    for role, (identity, _) in headers.items():
        for other, entry in identity.inputs.items():
            if other in headers and not declared[role].portable and entry["digest"] != headers[other][1]:
                raise StaleError(
                    f"the {role} artifact was made from another {other} artifact than the one given",
                    f"{job.inputs[role]} wants {entry['digest'][:19]}, {job.inputs[other]} is {headers[other][1][:19]}",
                    f"run: {job.command(identity.stage)}",
                )
    return headers


@contextmanager
def _open_inputs(job: Job, headers: Mapping[str, tuple[Identity, str]]) -> Iterator[dict[str, Artifact]]:
    """Open the inputs whose headers were read, and no others that took their names in between."""
    schemas = {item.role: item.schema for item in job.step.inputs}
    with ExitStack() as stack:
        inputs = {
            role: stack.enter_context(open_artifact(path, schemas[role], verify=job.verify))
            for role, path in job.inputs.items()
        }
        for role, artifact in inputs.items():
            if artifact.digest != headers[role][1]:
                raise StaleError(
                    f"the {role} artifact was replaced while {job.step.label} was starting",
                    str(artifact.path),
                    "run the same command again",
                )
        yield inputs


def _verify(paths: Iterable[Path]) -> None:
    """Recompute the digests of artifacts; raise `InputError` at the first that is damaged."""
    for path in paths:
        with open_artifact(path, verify=True):
            pass


@contextmanager
def _damage_explained(paths: Iterable[Path]) -> Iterator[None]:
    """Where something breaks that should not, look whether the artifacts it read are damaged, and say so."""
    try:
        yield
    except CmglError:
        raise
    except Exception:
        _verify(path for path in paths if path.exists())
        raise
