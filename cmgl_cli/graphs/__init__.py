"""The statistics of CM-GLasso: normal scores, priors, joint estimation with certificates, selection.

Arrays in, arrays out. See docs/graphs.md for the problem and the solvers.
"""

from cmgl_cli.graphs.covariance import Moments, class_covariances, conditional_sample, correlation
from cmgl_cli.graphs.criteria import ebic, ebic_per_class, log_likelihood
from cmgl_cli.graphs.estimator import JointGraphicalLasso
from cmgl_cli.graphs.export import edge_table, edges_csv, edges_graphml, named_edges, partial_correlation
from cmgl_cli.graphs.grid import Cell, Grid, Selection
from cmgl_cli.graphs.joint import fit_joint
from cmgl_cli.graphs.nonparanormal import Nonparanormal, shapiro_pass_rate
from cmgl_cli.graphs.prior import (
    PriorSummary,
    attention_prior,
    penalty_scale,
    prior_midpoint,
    prior_weights,
    summarize_prior,
)
from cmgl_cli.graphs.result import JointResult
from cmgl_cli.graphs.selection import select_joint
from cmgl_cli.graphs.stability import Stability, draws, edge_frequencies, edge_stability, resampled, stars

__all__ = [
    "stars",
    "resampled",
    "edge_stability",
    "edge_frequencies",
    "draws",
    "Stability",
    "partial_correlation",
    "edge_table",
    "edges_csv",
    "edges_graphml",
    "named_edges",
    "JointGraphicalLasso",
    "Cell",
    "Grid",
    "JointResult",
    "Moments",
    "Nonparanormal",
    "PriorSummary",
    "Selection",
    "attention_prior",
    "class_covariances",
    "conditional_sample",
    "correlation",
    "ebic",
    "ebic_per_class",
    "fit_joint",
    "log_likelihood",
    "penalty_scale",
    "prior_midpoint",
    "prior_weights",
    "select_joint",
    "shapiro_pass_rate",
    "summarize_prior",
]
