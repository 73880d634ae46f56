"""Reports: figures from arrays, a page from plain data, and the report of an experiment from its artifacts."""

from cmgl_cli.reports.attention_figures import attention_figure
from cmgl_cli.reports.classification_figures import confusion_figure, reliability_figure
from cmgl_cli.reports.curve_figures import convergence_figure, path_figure, selection_figure, training_figure
from cmgl_cli.reports.graph_figures import circle_figure, matrix_figure, node_order, prior_figure
from cmgl_cli.reports.page import Figure, Section, Table, build_page
from cmgl_cli.reports.segmentation_figures import (
    attention_centres,
    attention_grid_figure,
    graph_on_image_figure,
    overlay_figure,
)
from cmgl_cli.reports.style import png

__all__ = [
    "Figure",
    "Section",
    "Table",
    "attention_centres",
    "attention_figure",
    "attention_grid_figure",
    "build_page",
    "circle_figure",
    "confusion_figure",
    "convergence_figure",
    "graph_on_image_figure",
    "matrix_figure",
    "node_order",
    "overlay_figure",
    "path_figure",
    "png",
    "prior_figure",
    "reliability_figure",
    "selection_figure",
    "training_figure",
]
