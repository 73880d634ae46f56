"""Signed twofold restoration: arrays in, arrays out (see docs/restoration.md)."""

from cmgl_cli.restoration.alternation import Restoration, TwofoldConfig, additive_fill, restore
from cmgl_cli.restoration.graph_learning import LearntGraph, learn_graph
from cmgl_cli.restoration.polarity import signed_laplacian, signed_polarity
from cmgl_cli.restoration.signal_solver import SolvedSignal, solve_signal, undetermined_cells
from cmgl_cli.restoration.training import TrainingBatch, TrainingConfig, TrainingState, train
from cmgl_cli.restoration.unrolled import UnrolledConfig, UnrolledRestorer

__all__ = [
    "LearntGraph",
    "Restoration",
    "SolvedSignal",
    "TrainingBatch",
    "TrainingConfig",
    "TrainingState",
    "TwofoldConfig",
    "UnrolledConfig",
    "UnrolledRestorer",
    "additive_fill",
    "learn_graph",
    "restore",
    "signed_laplacian",
    "signed_polarity",
    "solve_signal",
    "train",
    "undetermined_cells",
]
