"""From what was typed to the steps that run: implied settings, outputs, shards."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cmgl_cli.artifacts import read_header
from cmgl_cli.config import RunConfig, build_run
from cmgl_cli.console import Console
from cmgl_cli.errors import UsageError
from cmgl_cli.pipeline import execute, make_job, summarize
from cmgl_cli.settings import STAGE_CONFIGS
from cmgl_cli.sharding import Shard, requested_shard, shard_path
from cmgl_cli.steps import Step, steps_of

OWN_PRIORS = (".npz", ".npy", ".csv")
# what of extract decides how an image is encoded
_ENCODING = ("encoder", "revision", "dtype", "precision", "attention", "max_patches", "tiles", "mirror", "store")


@dataclass(frozen=True)
class Request:
    """What was typed after a stage's name; None where nothing was.

    Attributes
    ----------
    stage : str
    config : Path or None
        YAML file.
    settings : mapping
        The stage's settings, and dataset, root, name, artifacts.
    paths : mapping
        Input roles and ``output``.
    options : mapping
        Flags that only this stage has.
    """

    stage: str
    config: Path | None
    settings: Mapping[str, Any]
    paths: Mapping[str, Path | None]
    options: Mapping[str, Any]


def run_stage(
    request: Request, console: Console, *, force: bool = False, dry_run: bool = False, verify: bool = False
) -> None:
    """Run one stage in all variants that the settings ask for, and say what came out."""
    if request.stage == "segment" and request.options["images"] is not None:
        encode, request = _photographs(request)
        run_stage(encode, console, force=force, dry_run=dry_run, verify=verify)
    imply = {
        "extract": _with_implied,
        "fit-graphs": _with_own_matrices,
        "twofold-restore": _named_after_input,
        "experiment": _named_after_experiment,
    }.get(request.stage)
    request = imply(request) if imply else request
    run = build_run(request.config, request.settings, request.stage)
    shard = _shard(request)
    for step in _steps(request, run, shard, console):
        own = {item.role for item in step.inputs} | {"output"}
        paths = {key: path for key, path in request.paths.items() if key in own and path is not None}
        options = MappingProxyType(dict(request.options))
        job = make_job(step, run, console, paths, options=options, force=force, dry_run=dry_run, verify=verify)
        if step.variant == _divided(run):
            job = replace(job, output=shard_path(job.output, shard))
        execute(job)
        if not dry_run and job.output.exists():
            summarize(job)
    if shard.count > 1:
        console.info(
            f"shard {shard.index} of {shard.count}: when all are done, run the same command with --merge in its place"
        )


def _with_implied(request: Request) -> Request:
    """Let --images and --renders choose what is encoded, and name the experiment after them."""
    images, renders = request.options["images"], request.paths["renders"]
    if images is not None and renders is not None:
        raise UsageError("--images and --renders exclude each other", "cmgl extract", "run it twice, once with each")
    settings = dict(request.settings)
    if images is not None:
        settings["modality"], fallback = "image", images.resolve().name
    elif renders is not None:
        settings["modality"], fallback = settings["modality"] or "text", renders.resolve().parent.name
    else:
        return request
    run = build_run(request.config, settings, request.stage)
    return _named(replace(request, settings=settings), run, fallback)


def _photographs(request: Request) -> tuple[Request, Request]:
    """Return what encodes a folder of images as the training images were, and what labels them then.

    Raises
    ------
    UsageError
        No experiment is named, so there is no decoder.
    InputError
        The experiment has no features.
    """
    folder = Path(request.options["images"]).resolve()
    run = build_run(request.config, request.settings, request.stage)
    if not run.name:
        raise UsageError(
            "no experiment named whose decoder shall label these images",
            f"cmgl segment --images {request.options['images']}",
            "add --name NAME (the folder below artifacts/ that holds decoder.h5)",
        )
    known = read_header(run.folder / "features.h5", "features")[0].config
    encoding = {key: known[key] for key in _ENCODING if known.get(key) is not None}
    settings = {**dict.fromkeys(_field_names("extract")), **encoding, "modality": "image"}
    common = {key: request.settings[key] for key in ("root", "artifacts", "dataset_options")}
    settings |= {**common, "dataset": None, "name": run.name, "device": request.settings["device"]}
    features = request.paths["features"] or run.folder / f"{folder.name}.features.h5"
    paths = {"renders": None, "output": features}
    options = {"images": folder, "shard": None, "merge": False}
    encode = Request("extract", None, settings, paths, options)
    output = request.paths["output"] or run.folder / f"{folder.name}.segmentation.h5"
    label = replace(
        request,
        settings={**request.settings, "mode": "predict", "baselines": False},
        paths={**request.paths, "features": features, "output": output},
    )
    return encode, label


def _field_names(stage: str) -> list[str]:
    return [item.name for item in fields(STAGE_CONFIGS[stage])]


def _named_after_input(request: Request) -> Request:
    """Name the experiment after the record that is restored."""
    run = build_run(request.config, request.settings, request.stage)
    record = next(iter(run.stages[request.stage].input), None)
    return _named(request, run, record.stem if record else "stations")


def _named_after_experiment(request: Request) -> Request:
    """Put the output among the experiments of the data's folder; what has no data has a folder of its own."""
    run = build_run(request.config, request.settings, request.stage)
    wanted = run.stages[request.stage].experiment or "experiment"
    request = _named(request, run, wanted)
    output = run.artifacts / request.settings["name"] / "experiments" / f"{Path(wanted).name}.h5"
    return replace(request, paths={**request.paths, "output": request.paths["output"] or output})


def _named(request: Request, run: RunConfig, fallback: str) -> Request:
    """Name the experiment, unless the configuration or what was typed does."""
    return replace(request, settings={**request.settings, "name": run.name or fallback})


def _with_own_matrices(request: Request) -> Request:
    """Let --prior name a file of the user's own, and --covariance stand for all other inputs."""
    settings, paths = dict(request.settings), dict(request.paths)
    run = build_run(request.config, settings, request.stage)
    covariance = run.stages["fit-graphs"].covariance
    prior = paths["prior"]
    if prior is not None and (covariance or prior.suffix.lower() in OWN_PRIORS):
        settings["own_prior"], paths["prior"] = str(prior), None
    if not covariance:
        return replace(request, settings=settings, paths=paths)
    surplus = [role for role in ("nodes", "features", "text_features") if paths[role] is not None]
    if surplus:
        raise UsageError(
            "--covariance takes the place of all observations",
            f"cmgl fit-graphs: --covariance {covariance} and --{surplus[0].replace('_', '-')} {paths[surplus[0]]}",
            "give one of them",
        )
    return _named(replace(request, settings=settings, paths=paths), run, covariance.stem)


def _shard(request: Request) -> Shard:
    """Return which part of the images this process encodes; only `extract` is ever split."""
    if request.stage != "extract" or request.options["merge"]:
        return Shard(0, 1)
    return requested_shard(request.options["shard"])


def _divided(run: RunConfig) -> str:
    """Return which variant of extract processes divide among them: the images, or further looks at them alone."""
    return "augmented" if run.stages["extract"].modality == "augmented" else "image"


def _steps(request: Request, run: RunConfig, shard: Shard, console: Console) -> list[Step]:
    steps = steps_of(run, request.stage)
    if request.stage == "extract":
        extract = run.stages["extract"]
        if extract.augment and extract.modality == "all" and not any(step.variant == "augmented" for step in steps):
            console.warn(
                "extract: augment does nothing here: further looks are for segmentation, and there are no masks"
            )
        # texts and masks are quickly done: the first process does them all, and there is nothing to join
        if request.options["merge"] or shard.index > 0:
            steps = [step for step in steps if step.variant == _divided(run)]
        elif request.settings["modality"] is None and not (run.folder / "renders.h5").exists():
            console.info("extract (text): no rendered texts yet; cmgl render-text makes them")
            steps = [step for step in steps if step.variant != "text"]
        if shard.count > 1 and _divided(run) == "image" and any(step.variant == "augmented" for step in steps):
            console.info("extract (augmented): by the same command with --modality augmented, once the masks are there")
            steps = [step for step in steps if step.variant != "augmented"]
    if request.paths["output"] is not None and len(steps) > 1:
        raise UsageError(
            f"--output names one file, but {request.stage} would write {len(steps)}",
            ", ".join(step.output for step in steps),
            f"say which: {'--modality' if request.stage == 'extract' else '--observations'} {steps[0].variant}",
        )
    return steps
