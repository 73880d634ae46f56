"""The table of steps: what every stage and variant reads and writes, and which of them the settings ask for.

Stages meet only through artifacts, so the table names modules as text and nothing here imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cmgl_cli.config import RunConfig
from cmgl_cli.errors import UsageError


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
_AUGMENTED = Input("augmented", "augmented.h5", "augmented", required=False)
_DECODER = Input("model", "decoder.h5", "decoder", portable=True)

_OF_THE_ENCODER = frozenset(
    {"encoder", "revision", "dtype", "precision", "attention", "max_patches", "tiles", "mirror", "store"}
)
_OF_TRAINING = frozenset({"decoder", "graph", "epochs", "learning_rate", "dice", "batch_size", "seed"})
_OF_REGIONS = frozenset({"region", "windows", "appearance", "cross_fit"})
_OF_PREDICTION = frozenset({"split", "probabilities"})

STEPS: tuple[Step, ...] = (
    Step("render-text", "", 1, "renders", "renders.h5", settles_fast=True),
    Step("extract", "image", 1, "features", "features.h5", ignores=frozenset({"mask_size", "augment"})),
    Step(
        "extract",
        "text",
        1,
        "features",
        "text_features.h5",
        (Input("renders", "renders.h5", "renders"),),
        ignores=frozenset({"split", "limit", "seed", "mask_size", "tiles", "mirror", "augment"}),
    ),
    Step(
        "extract",
        "mask",
        1,
        "masks",
        "masks.h5",
        ignores=_OF_THE_ENCODER | {"augment"},  # masks are not encoded
        needs_masks=True,
        room="extract_masks",
    ),
    Step(
        "extract",
        "augmented",
        1,
        "augmented",
        "augmented.h5",
        (_MASKS,),
        ignores=frozenset({"mask_size"}),
        needs_masks=True,
    ),
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
        4,
        "graphs",
        "region_graphs.h5",
        (_NODES, _PRIOR, _FEATURES, _MASKS),
        ignores=frozenset({"scope"}),
        needs_masks=True,
    ),
    Step("fit-graphs", "given", 2, "graphs", "graphs.h5", ignores=frozenset({"cross_fit"}), alone=True),
    Step(
        "classify", "", 1, "classification", "classification.h5", (_NODES, _GRAPHS, _PATCH_GRAPHS, _OPTIONAL_FEATURES)
    ),
    Step(
        "segment",
        "train",
        6,
        "decoder",
        "decoder.h5",
        (_FEATURES, _NODES, _MASKS, _REGION_GRAPHS, _AUGMENTED),
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
        5,
        "restoration",
        "restored.h5",
        (Input("model", "network.h5", "network", required=False, implied=False),),
        ignores=frozenset({"epochs", "folds"}),
        alone=True,
    ),
    Step(
        "twofold-restore",
        "network",
        2,
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
    if step.variant == "augmented" and word != "augmented" and not config.augment:
        return False
    return word == step.variant or (word in everything and (not step.needs_masks or _has_masks(run)))


def _has_masks(run: RunConfig) -> bool:
    from cmgl_cli.datasets import has_masks

    return run.dataset is not None and has_masks(run.dataset, run.root, **run.dataset_options)


def _with_own_prior(step: Step) -> Step:
    """Return the step of fit-graphs without its prior artifact: the user's own takes its place."""
    if step.stage != "fit-graphs":
        return step
    return replace(step, inputs=tuple(item for item in step.inputs if item.role != "prior"))
