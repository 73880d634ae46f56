"""What the graph says, in plain words: made from the numbers, and honest where they disappoint."""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.artifacts import Artifact
from cmgl_cli.heads.contributions import divergence
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Section
from cmgl_cli.reports.sections import restoration
from cmgl_cli.reports.sections.comparison import (
    OURS,
    Comparison,
    best_peer,
    beyond_chance,
    comparisons,
    kinds_of,
    only_seeds_differ,
)
from cmgl_cli.reports.sections.differences import clearest, structure_share, telling_edges
from cmgl_cli.reports.sections.graphs import partial_correlation
from cmgl_cli.reports.sections.model import Node, describe_nodes, view
from cmgl_cli.reports.sections.parts import first

EDGES_TOLD = 3
INTRODUCTION = (
    "Nodes are learnt summaries of places in an input; an edge joins two nodes of which one tells something about "
    "the other that no third node tells. A positive edge joins nodes that rise together, a negative one nodes that "
    "move against each other. What follows is computed from the artifacts; the sections below show it."
)
OF_STATIONS = (
    "Nodes are stations in one graph and variables in the other; an edge joins two of them that help to fill each "
    "other's gaps. What follows is computed from the artifacts; the sections below show it."
)


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return the opening of the report; nothing where there is no graph."""
    points = [*_graph_points(runs), *_worth(runs)]
    of_stations = [point for run in runs for point in restoration.says(run)]
    paragraphs = ([INTRODUCTION] if points else []) + ([OF_STATIONS] if of_stations else [])
    tables = comparisons(runs)
    if len(tables) > 1:
        paragraphs.append(
            f"Pictures, and numbers without a spread, are of {tables[0].run}, the first of {len(tables)} runs."
        )
    return [Section("What the graph says", paragraphs, points=[*points, *of_stations])] if paragraphs else []


def _graph_points(runs: Sequence[Run]) -> list[str]:
    kind = next((kind for kind in ("image", "patch", "given") if first(runs, f"{kind} graphs")), None)
    run = first(runs, f"{kind} graphs") if kind else None
    artifact = run.open(f"{kind} graphs") if run else None
    if run is None or artifact is None:
        return []
    with artifact:
        points = [_strongest(artifact, describe_nodes(run)), _shared(artifact)]
    return [point for point in (*points, *_prior(runs), _alike(run, str(kind)), _apart(runs)) if point]


def _strongest(artifact: Artifact, nodes: Sequence[Node]) -> str:
    """Name the strongest edges that all classes share."""
    edges = partial_correlation(artifact["common"], artifact["precision"])
    named = artifact["nodes"].tolist() if "nodes" in artifact else None
    rows, columns = np.triu_indices(len(edges), 1)
    values = edges[rows, columns]
    top = [i for i in np.argsort(-np.abs(values), kind="stable")[:EDGES_TOLD] if values[i]]
    if not top:
        return "No edge is common to all classes."
    told = []
    for i in top:
        how = "rise together" if values[i] > 0 else "move against each other"
        ends = " and ".join(_name(int(end), nodes, named) for end in (rows[i], columns[i]))
        told.append(f"{ends} {how} ({values[i]:+.2f})")
    return f"Strongest edges in what all classes share (partial correlation): {'; '.join(told)}."


def _name(node: int, nodes: Sequence[Node], named: Sequence[str] | None) -> str:
    if named:
        return str(named[node])
    words = nodes[node].words if node < len(nodes) else ""
    return f"node {node} ({words})" if words else f"node {node}"


def _shared(artifact: Artifact) -> str:
    """Say how much of the graphs is common and which class departs most."""
    upper = np.triu_indices(artifact["common"].shape[0], 1)
    common = artifact["common"][upper] != 0
    specific = artifact["specific"][:, upper[0], upper[1]]
    names, n_pairs = artifact["classes"].tolist(), len(upper[0])
    own = (specific != 0).sum(axis=1)
    text = f"{int(common.sum())} of {n_pairs} possible edges are common to all {len(names)} classes"
    if len(names) == 1:
        return text.replace("common to all 1 classes", "there") + "."
    if not own.any():
        return f"{text}; no class has an edge of its own, so the classes share one graph."
    weight = np.abs(specific).sum(axis=1)
    most, least = names[int(weight.argmax())], names[int(weight.argmin())]
    text += f"; on top of these a class changes {own.mean():.0f} on average, most strongly {most}, least {least}."
    if common.mean() > 0.8 or own.mean() > 0.8 * n_pairs:
        text += " So dense a graph is hardly sparse: read its strong edges, not which edges are there."
    return text


def _prior(runs: Sequence[Run]) -> list[str]:
    """Say for each kind of observation whether the prior was used."""
    lines = []
    for kind in ("image", "patch"):
        run = first(runs, f"{kind} graphs", "prior")
        graphs, prior = (run.open(f"{kind} graphs"), run.open("prior")) if run else (None, None)
        if graphs is None or prior is None:
            continue
        with graphs, prior:
            k, direction = graphs["k"], prior.config["direction"]
        if direction != "none":
            lines.append(f"In {kind} observations the prior ({direction}) {_use(k)}.")
    return lines


def _use(k: np.ndarray) -> str:
    used = int((k > 0).sum())
    if not used:
        return "was rejected in every class: it did not help to predict held-out data"
    if used == len(k):
        return f"was used in every class (sharpness k = {k.mean():.1f} on average)"
    return f"was used in {used} of {len(k)} classes and rejected in the others"


def _alike(run: Run, kind: str) -> str:
    seen = view(run, kind)
    if seen is None:
        return ""
    apart = divergence(seen.model.precision, seen.model.means)
    rows, columns = np.triu_indices(len(apart), 1)
    values = apart[rows, columns]
    near, far = int(values.argmin()), int(values.argmax())
    if near == far:
        return ""
    pair = [f"{seen.classes[rows[i]]} and {seen.classes[columns[i]]}" for i in (near, far)]
    return (
        f"To the classifier of {kind} observations, {pair[0]} are most alike ({values[near]:.3g} nats) and {pair[1]} "
        f"least ({values[far]:.3g} nats)."
    )


def _apart(runs: Sequence[Run]) -> str:
    found = clearest(runs)
    if found is None:
        return ""
    _, seen, pair = found
    a, b = seen.classes[pair.first], seen.classes[pair.second]
    share = structure_share(pair.parts)
    edges = ", ".join(f"{i} – {j}" for i, j in telling_edges(pair.parts)[:EDGES_TOLD])
    text = (
        f"Told apart by the classifier of {seen.kind} observations: {a} and {b}, {pair.why}, {1 - share:.0%} by their"
    )
    text += f" means and {share:.0%} by their graphs"
    return f"{text}, first of all by the edges {edges}." if edges and share >= 0.01 else f"{text}."


def _worth(runs: Sequence[Run]) -> list[str]:
    """Say whether the graph earned its keep."""
    tables = comparisons(runs)
    if not tables:
        return []
    lines = [line for kind in kinds_of(tables[0]) if (line := _edges_worth(tables[0], kind))]
    if only_seeds_differ(tables):
        lines += [line for kind in kinds_of(tables[0]) if (line := _over_seeds(tables, kind))]
    peer, ours = best_peer(tables[0]), tables[0].accuracy(tables[0].chosen)
    if peer is None or ours is None:
        return lines
    sure = beyond_chance(ours, peer[1], tables[0].n_samples)
    how = ("ahead of" if ours > peer[1] else "behind") if sure else "level, within chance, with"
    return [
        *lines,
        f"In all, the {tables[0].chosen} ({ours:.1%}) is {how} the best baseline, {peer[0]} ({peer[1]:.1%}).",
    ]


def _over_seeds(tables: Sequence[Comparison], kind: str) -> str:
    """Say what the edges are worth from seed to seed."""
    pairs = [(one.accuracy(f"{OURS} ({kind})"), one.accuracy(f"control: diagonal ({kind})")) for one in tables]
    gains = np.array([100 * (ours - without) for ours, without in pairs if ours is not None and without is not None])
    if len(gains) < 2:
        return ""
    spread = f"{gains.mean():+.1f} ± {gains.std(ddof=1):.1f} points"
    return f"Over {len(gains)} seeds the edges of {kind} observations add {spread}."


def _edges_worth(table: Comparison, kind: str) -> str:
    ours, without = table.accuracy(f"{OURS} ({kind})"), table.accuracy(f"control: diagonal ({kind})")
    if ours is None or without is None:
        return ""
    gain = 100 * (ours - without)
    if not beyond_chance(ours, without, table.n_samples):
        level = f"{ours:.1%} with them, {without:.1%} without"
        return f"In {kind} observations the edges did not earn their keep: {level}, a difference within chance."
    word = "earned their keep" if gain > 0 else "do harm"
    share = f"{ours:.1%} right with them, {without:.1%} without"
    return f"In {kind} observations the edges {word}: {share} ({gain:+.1f} points)."
