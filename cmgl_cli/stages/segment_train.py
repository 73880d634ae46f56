"""Training of ``cmgl segment``: the decoder that was asked for, the baseline, and the controls, all tuned alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmgl_cli.artifacts import Artifact, ArtifactWriter
from cmgl_cli.datasets import Dataset, open_dataset
from cmgl_cli.heads.choice import simplest_of_the_best
from cmgl_cli.heads.segmentation_training import DecoderSettings, TrainingTask, score_decoder, tune_decoder
from cmgl_cli.pipeline import Job, Prepared
from cmgl_cli.segmentation.bench import SHRINKAGES, Bench, Candidate, open_bench
from cmgl_cli.settings import SegmentConfig

CONTROLS = ("diagonal", "random", "none")
BALANCES = (0.0, 0.5)


@dataclass(frozen=True)
class Learned:
    """A trained decoder: its state, how it was trained, and its scores on the validation part, image by image."""

    candidate: Candidate
    state: Mapping[str, np.ndarray]
    numbers: Mapping[str, float]
    loss: np.ndarray
    overlaps: np.ndarray


def prepare(job: Job) -> Prepared:
    """Open the dataset: decoders may look at the images themselves."""
    if not job.run.dataset:
        return Prepared()
    dataset = open_dataset(job.run.dataset, job.run.root, **job.run.dataset_options)
    return Prepared({"dataset": dataset.fingerprint(dataset.samples())}, dataset)


def compute(job: Job, state: Dataset | None, inputs: Mapping[str, Artifact], out: ArtifactWriter) -> None:
    """Train every decoder of the comparison; the one asked for is stored as chosen."""
    with job.console.progress("segment: shrinkage", len(SHRINKAGES), "weights") as ticker:
        bench = open_bench(job.config, state, inputs, lambda _: ticker.advance())
    chosen, learned = _learn_all(job, bench, out)
    graphs, maps, view = inputs["region_graphs"], bench.data.maps, bench.data.view
    palette = maps.palette if maps.palette is not None else default_palette(len(maps.classes))
    for name, values in {
        "classes": maps.classes,
        "offset": np.array([maps.offset]),
        "ignore_label": np.array([maps.ignore_label]),
        "palette": palette,
        "grid": np.array(view.grid),
        "picture_size": np.array([maps.maps.shape[1]]),
        "chosen": np.array([chosen], dtype=object),
    }.items():
        out.write(name, values)
    out.write_group("weights", view.distiller.to_arrays())
    out.write_group("transform", graphs.group("transform"))
    evidence = {name: getattr(bench.evidence, name) for name in ("precision", "common", "means", "priors")}
    evidence["fitted"] = bench.fitted
    evidence["windows"] = np.array(bench.evidence.windows, dtype=np.int64)
    evidence["appearance"] = np.array(bench.evidence.appearance)
    out.write_group("graphs", evidence)
    for index, item in enumerate(learned):
        out.write_group(f"decoders/{index}", item.state)
        out.write(f"history/{index}/loss", item.loss)
    out.write_group("table", _table(learned))


def _asked(config: SegmentConfig) -> list[Candidate]:
    """Return the decoders among which the validation part chooses, the simplest first."""
    if config.decoder == "auto":
        # without graphs too: where they do not pay, the default is not to be held back by them
        return [Candidate("generative", config.graph), Candidate("unet", "none"), Candidate("unet", config.graph)]
    # a linear layer has no graph
    return [Candidate(config.decoder, "per-class" if config.decoder == "linear" else config.graph)]


def _others(chosen: Candidate, done: list[Candidate]) -> list[Candidate]:
    """Return baseline and controls of the chosen decoder."""
    wanted = [Candidate("linear", "per-class"), Candidate("generative", "per-class")]
    if chosen.decoder != "linear":
        graphs = CONTROLS if chosen.decoder != "generative" else CONTROLS[:2]
        wanted += [Candidate(chosen.decoder, graph) for graph in graphs]
    if chosen.decoder == "generative":
        wanted.append(Candidate("unet", "none"))  # what the image gives without graphs
    return [item for item in wanted if item not in done]


def _learn_all(job: Job, bench: Bench, out: ArtifactWriter) -> tuple[str, list[Learned]]:
    """Train one after the other; what is finished is kept and not trained again after an interruption."""
    config, kept = bench.config, out.load_checkpoint() or {}
    tasks = bench.tasks(bench.train, bench.judge())
    learned: list[Learned] = []

    def learn(candidate: Candidate, balances: tuple[float, ...], looks: Sequence[bool]) -> None:
        index = len(learned)
        found = {key.split("/", 1)[1]: value for key, value in kept.items() if key.startswith(f"{index}/")}
        chosen = {look: tasks[look] for look in looks}
        learned.append(_from_arrays(candidate, found) if found else _learn(bench, chosen, candidate, balances))
        out.save_checkpoint({f"{i}/{k}": v for i, item in enumerate(learned) for k, v in _arrays(item).items()})
        ticker.advance()

    asked = _asked(config)
    total = len(asked) + (len(_others(asked[-1], asked)) if config.baselines else 0)
    with job.console.progress("segment: training", total, "decoders") as ticker:
        for candidate in asked:
            learn(candidate, BALANCES, tuple(tasks))
        best = learned[simplest_of_the_best([item.overlaps for item in learned], config.seed)]
        for candidate in _others(best.candidate, asked) if config.baselines else []:
            # controls are trained as the decoder they control; the baseline is tuned like it
            own = candidate.decoder == best.candidate.decoder
            if own:
                learn(candidate, (best.numbers["balance"],), (bool(best.numbers.get("looks")),))
            else:
                learn(candidate, BALANCES, tuple(tasks))
    return best.candidate.label, learned


def _learn(
    bench: Bench, tasks: Mapping[bool, TrainingTask], candidate: Candidate, balances: tuple[float, ...]
) -> Learned:
    """Train a decoder with every class balance, on the images alone and with further looks; the best one is kept."""
    config = bench.config
    settings = [
        DecoderSettings(epochs=config.epochs, balance=balance, dice=config.dice, learning_rate=config.learning_rate)
        for balance in balances
    ]
    tuned = {
        looks: tune_decoder(lambda: bench.build(candidate), task, settings, seed=config.seed)
        for looks, task in tasks.items()
    }
    looks = max(tuned, key=lambda choice: tuned[choice][1].history.best_score)
    decoder, winner, _ = tuned[looks]
    batches = bench.data.batches(bench.validation, shuffle=False)(0)
    scores = score_decoder(decoder, batches, bench.evidence.n_classes, bench.data.maps.ignore_label)
    report = scores.report()
    numbers = {
        "balance": winner.settings.balance,
        "looks": float(looks),
        "best_epoch": float(winner.history.best_epoch),
        "mean_iou": report.mean_iou,
        "mean_dice": report.mean_dice,
        "pixel_accuracy": report.pixel_accuracy,
    }
    state = {name: tensor.detach().cpu().numpy() for name, tensor in decoder.state_dict().items()}
    return Learned(candidate, state, numbers, np.array(winner.history.loss), scores.overlaps)


def _arrays(item: Learned) -> dict[str, np.ndarray]:
    numbers = {f"numbers/{name}": np.array(value) for name, value in item.numbers.items()}
    whole = {"loss": item.loss, "overlaps": item.overlaps}
    return {**numbers, **whole, **{f"state/{name}": values for name, values in item.state.items()}}


def _from_arrays(candidate: Candidate, arrays: Mapping[str, np.ndarray]) -> Learned:
    def below(prefix: str) -> dict[str, np.ndarray]:
        return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}

    numbers = {name: float(value) for name, value in below("numbers/").items()}
    return Learned(candidate, below("state/"), numbers, arrays["loss"], arrays["overlaps"])


def _table(learned: list[Learned]) -> dict[str, np.ndarray]:
    columns: dict[str, Any] = {name: np.array([item.numbers[name] for item in learned]) for name in learned[0].numbers}
    texts = {
        "method": [item.candidate.label for item in learned],
        "decoder": [item.candidate.decoder for item in learned],
        "graph": [item.candidate.graph for item in learned],
    }
    return {**columns, **{name: np.array(values, dtype=object) for name, values in texts.items()}}


def default_palette(n_classes: int) -> np.ndarray:
    """Return the colours of PASCAL VOC's palette, uint8 [C, 3]: far apart, black first."""
    index = np.arange(n_classes)
    palette = np.zeros((n_classes, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> channel) & 1) << (7 - bit)).astype(np.uint8)
        index = index >> 3
    return palette


def summarize(artifact: Artifact, job: Job) -> None:
    """Print the comparison on the validation part, best first."""
    columns = artifact.group("table")
    order = np.argsort(-columns["mean_iou"], kind="stable")
    chosen = artifact["chosen"][0]
    looks = columns.get("looks", np.zeros(len(order)))
    lines = [
        (
            columns["method"][i] + (" <- chosen" if columns["method"][i] == chosen else ""),
            *(round(float(columns[name][i]), 4) for name in ("mean_iou", "pixel_accuracy")),
            f"{columns['balance'][i]:g}",
            "yes" if looks[i] else "no",
            int(columns["best_epoch"][i]),
        )
        for i in order
    ]
    heads = ("decoder", "mIoU", "pixel accuracy", "balance", "further looks", "epoch")
    job.console.table("segment: validation part", heads, lines)
    job.console.fields(job.step.label, {"chosen": chosen, "output": str(job.output)})
