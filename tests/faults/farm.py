"""One small experiment in which every stage has run once undisturbed: what the faults are measured against."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from cmgl_cli.artifacts import read_header
from tests.faults.nursery import Nursery

NAME = "smoke"
HOME = Path("artifacts") / NAME
MONTHS, STATIONS = 72, 8
RUN = ["--config", "settings.yaml"]


@dataclass(frozen=True)
class Work:
    """A command, and the artifacts it writes."""

    arguments: tuple[str, ...]
    outputs: tuple[str, ...]


WORKS: Mapping[str, Work] = {
    "render-text": Work(("render-text", *RUN), ("renders",)),
    "extract": Work(("extract", *RUN), ("features", "text_features", "masks")),
    "distill": Work(("distill", *RUN), ("nodes",)),
    "prior": Work(("prior", *RUN), ("prior",)),
    "fit-graphs": Work(("fit-graphs", *RUN), ("graphs", "patch_graphs", "region_graphs")),
    "classify": Work(("classify", *RUN), ("classification",)),
    "segment train": Work(("segment", *RUN, "--mode", "train"), ("decoder",)),
    "segment predict": Work(("segment", *RUN, "--mode", "predict"), ("segmentation",)),
    "twofold-restore": Work(("twofold-restore", *RUN, "--name", NAME), ("restored",)),
    "twofold-restore train": Work(("twofold-restore", *RUN, "--name", NAME, "--train"), ("network",)),
    "experiment": Work(("experiment", *RUN, "--output", str(HOME / "experiment.h5")), ("experiment",)),
}
SETTINGS = {
    "dataset": NAME,
    "dataset_options": {"images": 80},
    "render-text": {"preview": "pages.png"},
    "extract": {"encoder": "builtin:tiny", "batch_size": "8"},
    "distill": {"nodes": 4, "key_width": 8, "epochs": 3, "proxy": "pixel"},
    "fit-graphs": {"k": "0,10", "rho": 0.1, "gamma": 0.1, "select": "ebic", "edges": "edges.csv", "figures": False},
    "classify": {"baselines": False, "figures": False},
    "segment": {"epochs": 3, "decoder": "hybrid", "baselines": False, "png": "labels"},
    "twofold-restore": {
        "input": "records.csv",
        "stations": "stations.csv",
        "export": "filled.csv",
        "epochs": 2,
        "folds": 2,
        "compare": False,
        "figures": False,
    },
    "experiment": {"experiment": "twofold-synthetic", "quick": True, "only": "method=graph low-pass,method=svd"},
}


class Farm:
    """The undisturbed experiment.

    Attributes
    ----------
    folder : Path
    digests : dict
        Content digest of every artifact.
    """

    def __init__(self, folder: Path, nursery: Nursery):
        self.folder, self.nursery = folder, nursery
        folder.mkdir()
        write_records(folder)
        (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
        self.digests: dict[str, str] = {}

    def grow(self, until: str) -> None:
        """Run the stages, once, in the parent, up to the one named."""
        for name, work in WORKS.items():
            if work.outputs[0] not in self.digests:
                report = self.nursery.run(self.folder, work.arguments, warm=True)
                assert report.code == 0, f"{name}: {report.err}"
                self.digests |= {output: read_header(self.path(output))[1] for output in work.outputs}
            if name == until:
                return

    def path(self, output: str) -> Path:
        """Return where an artifact lies."""
        return self.folder / HOME / f"{output}.h5"

    def copy(self, folder: Path, without: str) -> Path:
        """Copy the experiment as it was before a stage ran first."""
        self.grow(without)
        shutil.copytree(self.folder, folder)
        for path in made_by(folder, without):
            path.unlink()
        return folder


def made_by(folder: Path, work: str) -> Iterator[Path]:
    """Yield the artifacts of a stage that exist."""
    for output in WORKS[work].outputs:
        path = folder / HOME / f"{output}.h5"
        if path.exists():
            yield path


def write_records(folder: Path) -> None:
    """Write a monthly record of two variables with gaps, and its stations."""
    rng = np.random.default_rng(0)
    months = np.arange(MONTHS)
    season, shared = 10 * np.sin(months * 2 * np.pi / 12), rng.standard_normal(MONTHS)
    rows = ["station,time,warm,rain"]
    for station in range(STATIONS):
        for month in range(MONTHS):
            noise = 0.3 * rng.standard_normal(2)
            wet = max(0.0, 50 - 20 * shared[month] - 40 * (month % 6 == 0) + 5 * noise[1] - 30 * (month % 12 == 0))
            cells = 15 + station + season[month] + shared[month] + noise[0], wet
            texts = [f"{cell:.2f}" if rng.random() > 0.1 else "" for cell in cells]
            rows.append(f"s{station},{2000 + month // 12}-{month % 12 + 1:02d},{','.join(texts)}")
    (folder / "records.csv").write_text("\n".join(rows) + "\n")
    places = [f"s{i},{35 + i / 10},{139 + i % 3 / 5},{20 * i}" for i in range(STATIONS)]
    (folder / "stations.csv").write_text("\n".join(["station,latitude,longitude,elevation", *places]) + "\n")
