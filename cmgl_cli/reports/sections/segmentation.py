"""Which pixel is what: label maps beside their images and masks, with scores."""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Figure, Section, Table
from cmgl_cli.reports.sections.parts import first

SCORES = ("mean_iou", "mean_dice", "pixel_accuracy", "boundary_f1")


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the label maps of the first run that has some."""
    run = first(runs, "segmentation")
    artifact = run.open("segmentation") if run else None
    if run is None or artifact is None:
        return []
    with artifact:
        count, table = len(artifact["id"]), _comparison(artifact)
    captions = {
        "overlay": "Images, true and predicted labels",
        "graphs": "Graphs of the classes found in an image, drawn where their nodes look",
    }
    figures = [
        Figure(f"segmentation-{name}", path.read_bytes(), caption, caption, photo=True)
        for name, caption in captions.items()
        for path in [run.folder / f"segmentation-{name}.png"]
        if path.exists()
    ]
    text = f"{count} images were labelled pixel by pixel with the class graphs of what masks show."
    return [Section("Which pixel is what?", [text], [table] if table.rows else [], figures)]


def _comparison(artifact: Artifact) -> Table:
    columns = artifact.group("table")
    order = np.argsort(-columns["mean_iou"], kind="stable").tolist() if columns else []
    rows = [
        [columns["method"][i], *("" if np.isnan(columns[n][i]) else f"{columns[n][i]:.4f}" for n in SCORES)]
        for i in order
    ]
    return Table(
        ("decoder", "mean IoU", "mean Dice", "pixel accuracy", "boundary F-score"),
        rows,
        "Label maps at the size of the images; the decoder in bold was chosen on the validation part.",
        [at for at, i in enumerate(order) if i == 0],
    )
