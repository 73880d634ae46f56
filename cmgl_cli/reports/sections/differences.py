"""What tells two classes apart: the divergence of their graphs, edge by edge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmgl_cli.heads.contributions import DivergenceParts, divergence, divergence_parts
from cmgl_cli.reports.difference_figures import difference_figure
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Section, Table
from cmgl_cli.reports.sections.model import Node, View, describe_nodes, order_of, view
from cmgl_cli.reports.sections.parts import figure, first, signed

EDGES_LISTED = 12
MEANING = (
    "J is the log-likelihood ratio of the two classes that is expected when one of them is true, both directions "
    "added: the larger, the easier they are told apart. It is a sum over edges and nodes. What edges hold through "
    "the means is often negative: nodes that move together would count the same evidence twice, and their edge takes "
    "the surplus away."
)
FORMULA = """\
J            =  KL(a‖b) + KL(b‖a)  =  all edges + all nodes, exactly
edge i – j   =  (Ω_b − Ω_a)[i,j] (Σ_a − Σ_b)[i,j]   the graphs differ
             +  (Ω_a + Ω_b)[i,j] δ[i] δ[j]          the means differ
node i       =  half of the same with j = i
Σ = Ω⁻¹,  δ = m_a − m_b,  Ω the precision, m the mean"""


@dataclass(frozen=True)
class Pair:
    """Two classes and what tells them apart.

    Attributes
    ----------
    first, second : int
    why : str
        Why this pair.
    parts : DivergenceParts
    """

    first: int
    second: int
    why: str
    parts: DivergenceParts


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the edges that distinguish the most confused pair of classes."""
    found = clearest(runs)
    return [_section(*found)] if found else []


def clearest(runs: Sequence[Run]) -> "tuple[Run, View, Pair] | None":
    """Return the kind of observation in whose pair of classes the graphs themselves differ most."""
    found = []
    for kind in ("image", "patch"):
        run = first(runs, f"{kind} graphs")
        seen = view(run, kind) if run else None
        if run is not None and seen is not None:
            found.append((run, seen, telling_pair(run, seen)))
    return max(found, key=lambda one: structure_share(one[2].parts), default=None)


def structure_share(parts: DivergenceParts) -> float:
    """Return how much of a divergence is there because the graphs differ, in 0..1."""
    return float(np.triu(parts.structure).sum() / parts.total) if parts.total > 0 else 0.0


def telling_pair(run: Run, seen: View) -> Pair:
    """Return the pair most often confused, or the most alike one where nothing was confused."""
    apart = divergence(seen.model.precision, seen.model.means)
    np.fill_diagonal(apart, np.inf)
    a, b = (int(i) for i in np.unravel_index(int(apart.argmin()), apart.shape))
    why = "the two classes whose models are most alike"
    artifact = run.open("classification")
    if artifact is not None:
        with artifact:
            counts = artifact["confusion"].astype(np.int64)
        wrong = np.triu(counts + counts.T, 1)
        if len(counts) == len(apart) and wrong.max() > 0:
            a, b = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
            why = f"the pair most often confused ({int(wrong[a, b])} test images)"
    a, b = min(a, b), max(a, b)
    return Pair(a, b, why, divergence_parts(seen.model.precision[[a, b]], seen.model.means[[a, b]]))


def _section(run: Run, seen: View, pair: Pair) -> Section:
    nodes = describe_nodes(run)
    a, b = seen.classes[pair.first], seen.classes[pair.second]
    edges = telling_edges(pair.parts)[:EDGES_LISTED]
    partial = [partial_correlations(seen.model.precision[c]) for c in (pair.first, pair.second)]
    with run.open(f"{seen.kind} graphs") as artifact:  # type: ignore[union-attr]
        order = order_of(artifact)
    paragraphs = [
        f"Shown for {a} and {b}, {pair.why}, in {seen.kind} observations: J = {pair.parts.total:.3g} nats "
        f"{'an image' if seen.kind == 'image' else 'a patch'}. Their graphs differ by "
        f"{structure_share(pair.parts):.0%} of that, their means by the rest{_drawn_together(seen)}.",
        MEANING,
    ]
    tables, figures = [_shares(pair.parts)], []
    if edges:
        tables.append(_table(pair, edges, partial, (a, b), nodes))
        figures.append(
            figure(
                "differences",
                difference_figure(partial, pair.parts.structure, edges, (a, b), order=order),
                f"The edges in which the graphs of {a} and {b} differ most tellingly",
                f"Left and middle: the same edges in the graph of {a} and in that of {b}; solid orange joins nodes "
                "that rise together, dashed blue nodes that move against each other, wide means strong. Right: how "
                "many nats each edge adds because it is not the same in both; bars to the left take away.",
            )
        )
    return Section(f"What tells {a} from {b}?", paragraphs, tables, figures, listing=FORMULA)


def _drawn_together(seen: View) -> str:
    drawn = [
        f"{name} {share:.0%}" for name, share in (("graph", seen.shares.graph), ("mean", seen.shares.means)) if share
    ]
    if not drawn:
        return ""
    return f"; the validation part had drawn every class's {' and its '.join(drawn)} of the way to what they share"


def telling_edges(parts: DivergenceParts) -> list[tuple[int, int]]:
    """Return the pairs of nodes that are worth anything because the graphs differ, those worth most first."""
    rows, columns = np.triu_indices(len(parts.structure), 1)
    worth = np.abs(parts.structure[rows, columns])
    top = np.argsort(-worth, kind="stable")
    return [(int(rows[i]), int(columns[i])) for i in top if worth[i] > 0]


def _shares(parts: DivergenceParts) -> Table:
    rows = []
    for name, matrix in (("the graphs differ", parts.structure), ("the means differ", parts.means)):
        own = float(np.diagonal(matrix).sum())
        between = float(np.triu(matrix, 1).sum())
        rows.append([name, *(signed(value) for value in (own, between, own + between))])
    columns = ("because", "single nodes, nats", "edges, nats", "together, nats")
    return Table(columns, rows, "What the divergence J is made of")


def partial_correlations(precision: np.ndarray) -> np.ndarray:
    """Return -Omega_ij / sqrt(Omega_ii Omega_jj), zero on the diagonal."""
    scale = np.sqrt(np.diagonal(precision))
    values = -precision / np.outer(scale, scale)
    np.fill_diagonal(values, 0.0)
    return values


def _table(
    pair: Pair,
    edges: Sequence[tuple[int, int]],
    partial: Sequence[np.ndarray],
    names: tuple[str, str],
    nodes: Sequence[Node],
) -> Table:
    parts = pair.parts
    rows = [
        [
            f"{i} – {j}",
            f"{nodes[i].words or i}; {nodes[j].words or j}",
            *(f"{matrix[i, j]:+.2f}" for matrix in partial),
            signed(parts.structure[i, j]),
            signed(parts.means[i, j]),
        ]
        for i, j in edges
    ]
    columns = (
        "nodes",
        "where they look, and which class moves them",
        f"partial correlation in {names[0]}",
        f"in {names[1]}",
        "graphs differ, nats",
        "means differ, nats",
    )
    return Table(columns, rows, f"The {len(rows)} edges that are worth most because the graphs differ")
