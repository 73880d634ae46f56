"""What is done with a step: plan it as a job, say its state, execute it, run all that are stale.

Stages are imported by name when they run, so nothing here imports torch.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from cmgl_cli.artifacts import (
    SCHEMAS,
    Artifact,
    DamagedUnfinishedError,
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
from cmgl_cli.steps import STEPS, Step, steps_of


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
    try:
        _compute(job, module, prepared.state, headers, identity)
    except DamagedUnfinishedError as error:
        # a kill tore it in the middle of a write: what was finished is made again
        job.console.info(f"{job.step.label}: {error.what}: starting over")
        _compute(job, module, prepared.state, headers, identity)
    return True


def _compute(
    job: Job, module: ModuleType, state: Any, headers: Mapping[str, tuple[Identity, str]], identity: Identity
) -> None:
    with _open_inputs(job, headers) as inputs, create_artifact(job.output, identity, job.console.info) as out:
        with _damage_explained(job.inputs.values()):
            module.compute(job, state, inputs, out)


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
