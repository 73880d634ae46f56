"""The prior: how much the nodes' footprints overlap, class by class."""

from collections.abc import Sequence

from cmgl_cli.graphs import summarize_prior
from cmgl_cli.reports.graph_figures import prior_figure
from cmgl_cli.reports.material import Run
from cmgl_cli.reports.page import Section
from cmgl_cli.reports.sections.parts import figure, first

WORDS = {
    "text-to-image": "Rendered texts say which nodes of photographs belong together.",
    "image-to-text": "Photographs say which nodes of rendered texts belong together.",
    "self": "Photographs advise their own graphs: a control, since they say nothing that the data do not.",
}


def sections(runs: Sequence[Run]) -> list[Section]:
    """Return heat maps and distribution of the first run's prior."""
    run = first(runs, "prior")
    artifact = run.open("prior") if run else None
    if artifact is None:
        return []
    with artifact:
        direction, values, names = artifact.config["direction"], artifact["prior"], artifact["classes"].tolist()
    if direction == "none":
        return [Section("The prior", ["No prior was used: every edge was penalised alike."])]
    summary = summarize_prior(values)
    shown = figure(
        "prior",
        prior_figure(values, names),
        "Prior of some classes, and how the priors of all pairs of nodes and classes are distributed",
        "A strongly coloured cell means that two nodes read the same places, so an edge between them is penalised "
        "less. The nodes stand in one order in all maps, found by clustering. A histogram crowded on one value means "
        "that the prior has no preference among edges.",
    )
    verdict = f"Nine in ten of the priors lie within {summary.spread:.2f} of each other" + (
        ", so they do tell edges apart." if summary.informative else ": they hardly tell edges apart."
    )
    return [Section("The prior", [WORDS[direction], verdict], (), [shown])]
