"""Sparse forms of a fit: an edge table, as arrays, CSV and GraphML, and the partial correlations."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmgl_cli.graphs.result import JointResult

GRAPHML = "http://graphml.graphdrawing.org/xmlns"
# characters that XML 1.0 cannot hold at all
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def partial_correlation(precision: ArrayLike) -> NDArray[np.float64]:
    """Return -Omega_ij / sqrt(Omega_ii Omega_jj) with unit diagonal, for [..., p, p]."""
    omega = np.asarray(precision, dtype=np.float64)
    scale = 1.0 / np.sqrt(np.diagonal(omega, axis1=-2, axis2=-1))
    result = -omega * scale[..., :, None] * scale[..., None, :]
    np.einsum("...ii->...i", result)[...] = 1.0
    return result


def edge_table(result: JointResult, stability: ArrayLike | None = None) -> dict[str, NDArray[Any]]:
    """Return the edges of every class as columns of equal length, ordered by class, i, j.

    Columns: ``class``, ``i``, ``j`` (i < j), ``weight`` (Omega_ij), ``partial_correlation``, ``common_share`` =
    |Theta_ij| / (|Theta_ij| + |S_ij|), ``specific_share`` = 1 - common_share, and ``stability`` (NaN when not given).

    Parameters
    ----------
    result : JointResult
    stability : array [C, p, p], optional
        Edge frequencies; see `edge_stability`.
    """
    omega = np.asarray(result.precision, dtype=np.float64)
    common, specific = np.asarray(result.common, dtype=np.float64), np.asarray(result.specific, dtype=np.float64)
    label, i, j = np.nonzero(np.triu(omega != 0, 1))
    shared, own = np.abs(common[i, j]), np.abs(specific[label, i, j])
    share = shared / (shared + own)
    return {
        "class": label,
        "i": i,
        "j": j,
        "weight": omega[label, i, j],
        "partial_correlation": partial_correlation(omega)[label, i, j],
        "common_share": share,
        "specific_share": 1.0 - share,
        "stability": np.full(len(i), np.nan) if stability is None else np.asarray(stability)[label, i, j],
    }


def named_edges(
    columns: Mapping[str, NDArray[Any]], classes: Sequence[str], nodes: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Return the columns of `edge_table` with classes by name and, where there are node names, both ends by name too.

    The ends' names are the columns ``source`` and ``target``.
    """
    named = {**columns, "class": np.asarray(classes, dtype=str)[columns["class"]]}
    if len(nodes):
        ends = np.asarray(nodes, dtype=str)
        named.update(source=ends[columns["i"]], target=ends[columns["j"]])
    return named


def edges_csv(columns: Mapping[str, NDArray[Any]]) -> str:
    """Return columns of equal length as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    return text.getvalue()


def edges_graphml(columns: Mapping[str, NDArray[Any]], names: Sequence[str]) -> bytes:
    """Return named edges as one undirected GraphML graph, parallel edges told apart by their ``class``.

    Parameters
    ----------
    columns : mapping
        See `named_edges`; ``i`` and ``j`` become the ends, every other column an attribute. NaN is left out.
    names : sequence of str, length p
        Every node is written, linked or not.
    """
    attributes = {name: values for name, values in columns.items() if name not in ("i", "j", "source", "target")}
    root = ElementTree.Element("graphml", xmlns=GRAPHML)
    key = {"id": "name", "for": "node", "attr.name": "name", "attr.type": "string"}
    ElementTree.SubElement(root, "key", key)
    for name, values in attributes.items():
        kind = "double" if values.dtype.kind == "f" else "string"
        ElementTree.SubElement(root, "key", {"id": name, "for": "edge", "attr.name": name, "attr.type": kind})
    graph = ElementTree.SubElement(root, "graph", id="graphs", edgedefault="undirected")
    for index, name in enumerate(names):
        node = ElementTree.SubElement(graph, "node", id=f"n{index}")
        ElementTree.SubElement(node, "data", key="name").text = _NOT_XML.sub("\ufffd", name)
    for row in range(len(columns["i"])):
        ends = {"source": f"n{columns['i'][row]}", "target": f"n{columns['j'][row]}"}
        edge = ElementTree.SubElement(graph, "edge", {"id": f"e{row}", **ends})
        for name, values in attributes.items():
            if values.dtype.kind != "f" or not np.isnan(values[row]):
                ElementTree.SubElement(edge, "data", key=name).text = _NOT_XML.sub("\ufffd", str(values[row]))
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
