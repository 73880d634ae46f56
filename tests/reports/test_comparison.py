"""Methods side by side: seeds are averaged, other runs are not, and chance is not sold as gain."""

import numpy as np

from cmgl_cli.reports.sections.comparison import (
    Comparison,
    best_peer,
    beyond_chance,
    many_table,
    one_table,
    only_seeds_differ,
    verdicts,
)


def table(run="a", accuracies=(0.9, 0.7, 0.89, 0.95), n=1000, **settings) -> Comparison:
    methods = ["graph classifier (image)", "control: diagonal (image)", "control: random graph (image)", "kNN"]
    columns = {
        "method": np.array(methods[: len(accuracies)], dtype=object),
        "inputs": np.array(["z"] * len(accuracies), dtype=object),
        "chosen": np.array(["shrinkage 0.5"] * len(accuracies), dtype=object),
        **{name: np.array(accuracies, dtype=float) for name in ("accuracy", "macro_f1", "nll", "ece")},
    }
    return Comparison(run, columns, n, methods[0], {"nodes.h5: seed": 0, **settings})


def test_seeds_are_averaged_and_other_settings_are_not():
    seeds = [table("a"), table("b", (0.8, 0.7), **{"nodes.h5: seed": 1})]
    assert only_seeds_differ(seeds)
    rows = {row[0]: row for row in many_table(seeds).rows}
    assert rows["graph classifier (image)"][2] == "85.0 ± 7.1 %"
    assert rows["kNN"][2] == "95.0 %" and rows["kNN"][-1] == "1"
    nodes = [table("a", **{"nodes.h5: nodes": 8}), table("b", (0.8, 0.7), **{"nodes.h5: nodes": 16})]
    assert not only_seeds_differ(nodes)
    made = many_table(nodes)
    assert "nodes.h5: nodes" in made.caption and made.columns[2:] == ("a", "b")
    assert [row[3] for row in made.rows if row[0] == "kNN"] == ["–"]
    assert not only_seeds_differ([table("a"), table("b")]), "equal settings repeat nothing"


def test_chance_is_called_chance():
    (line,) = verdicts(table())
    assert "Beyond chance, it is worse without its edges (-20.0 points)." in line
    assert "Within chance: with its edges between other nodes (-1.0 points)." in line
    (line,) = verdicts(table(accuracies=(0.7, 0.9)))
    assert "there the graph does harm" in line
    assert beyond_chance(0.9, 0.7, 100) and not beyond_chance(0.9, 0.85, 100)


def test_best_first_with_intervals_and_the_chosen_one_marked():
    made = one_table(table())
    assert [row[0] for row in made.rows][:2] == ["kNN", "graph classifier (image)"]
    assert made.emphasised == [1] and made.rows[1][3] == "88.1% to 91.8%"
    assert best_peer(table()) == ("kNN on z", 0.95)
    assert best_peer(table(accuracies=(0.9, 0.7))) is None
