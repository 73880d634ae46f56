"""Heads: what is done with nodes and graphs. Arrays in, arrays out.

The generative classifier of equation (18), its calibration and its combination with others, the metrics, and the
baselines and controls beside which it has to hold its own.
"""

from cmgl_cli.heads.baselines import compare, pool_patches
from cmgl_cli.heads.calibration import ScoreCombination, fit_temperature, log_softmax
from cmgl_cli.heads.comparison import Row, Scored, Split, row
from cmgl_cli.heads.controls import graph_controls, random_graph
from cmgl_cli.heads.discriminant import GraphDiscriminant
from cmgl_cli.heads.gaussian import ClassMoments, class_moments, regularised_discriminant
from cmgl_cli.heads.metrics import ClassificationReport, Reliability, classification_report, reliability_curve
from cmgl_cli.heads.shrinkage import Shares, ShrinkageChoice, choose_shares, choose_shrinkage, shrink, validation_loss

__all__ = [
    "ClassMoments",
    "ClassificationReport",
    "GraphDiscriminant",
    "Reliability",
    "Row",
    "ScoreCombination",
    "Scored",
    "Shares",
    "ShrinkageChoice",
    "Split",
    "choose_shares",
    "choose_shrinkage",
    "class_moments",
    "classification_report",
    "compare",
    "fit_temperature",
    "graph_controls",
    "log_softmax",
    "pool_patches",
    "random_graph",
    "regularised_discriminant",
    "reliability_curve",
    "row",
    "shrink",
    "validation_loss",
]
