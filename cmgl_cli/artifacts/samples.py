"""The table every sample-wise artifact carries: ids, splits, labels; and the parts made of the splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmgl_cli.errors import InputError

VALIDATION_SPLITS = ("val", "validation", "valid")
# VOC's list trainaug is its train and more: the others are told apart, and trained on
TRAINING_SPLITS = ("train", "aug")
VALIDATION_SHARE = 0.1
AUTO = "auto"


@dataclass(frozen=True)
class SampleTable:
    """Samples in order of row.

    Attributes
    ----------
    ids, splits : ndarray of str, [n]
    values, offsets : ndarray of int64
        Ragged labels: sample i has ``values[offsets[i]:offsets[i + 1]]``.
    items : ndarray of int64, [n]
        Index of the item a row belongs to; pages of one text share it.
    classes : ndarray of str, [C]
    part : ndarray of str, [n], or None
        What every sample is used for, where that was settled with other labels than these.
    """

    ids: np.ndarray
    splits: np.ndarray
    values: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    classes: np.ndarray
    part: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        splits: Sequence[str],
        labels: Sequence[Sequence[int]],
        classes: Sequence[str],
        items: Sequence[int] | None = None,
    ) -> "SampleTable":
        """Build a table from lists; `items` defaults to one item a row."""
        counts = [len(row) for row in labels]
        return cls(
            np.array(ids, dtype=object).astype(str) if len(ids) else np.array([], dtype="U1"),
            np.array(splits).astype(str),
            np.array([label for row in labels for label in row], dtype=np.int64),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.arange(len(ids)) if items is None else np.array(items, dtype=np.int64),
            np.array(classes).astype(str),
        )

    @classmethod
    def read(cls, artifact: Mapping[str, np.ndarray], group: str = "") -> "SampleTable":
        """Read the table from an artifact, at its root or below a modality's group."""
        prefix = f"{group}/" if group else ""
        return cls(
            ids=artifact[prefix + "id"],
            splits=artifact[prefix + "split"],
            values=artifact[prefix + "labels/values"],
            offsets=artifact[prefix + "labels/offsets"],
            items=artifact[prefix + "item"],
            classes=artifact["classes"],
            part=artifact[prefix + "part"] if prefix + "part" in artifact else None,
        )

    def to_arrays(self, group: str = "") -> dict[str, np.ndarray]:
        """Return the data sets that `read` reads; the class names only at the root."""
        prefix = f"{group}/" if group else ""
        arrays = {
            "id": self.ids,
            "split": self.splits,
            "label": self.label,
            "labels/values": self.values,
            "labels/offsets": self.offsets,
            "item": self.items,
            **({} if self.part is None else {"part": self.part}),
        }
        named = {prefix + name: values for name, values in arrays.items()}
        return named if group else {**named, "classes": self.classes}

    def slice(self, start: int, stop: int) -> "SampleTable":
        """Return rows `start` to `stop`."""
        low, high = self.offsets[start], self.offsets[stop]
        return SampleTable(
            self.ids[start:stop],
            self.splits[start:stop],
            self.values[low:high],
            self.offsets[start : stop + 1] - low,
            self.items[start:stop],
            self.classes,
        )

    @staticmethod
    def concatenate(tables: "Sequence[SampleTable]") -> "SampleTable":
        """Return the rows of all tables, one after the other."""
        shifts = np.concatenate([[0], np.cumsum([len(table.values) for table in tables])])
        offsets = [table.offsets[1:] + shift for table, shift in zip(tables, shifts, strict=False)]
        return SampleTable(
            np.concatenate([table.ids for table in tables]),
            np.concatenate([table.splits for table in tables]),
            np.concatenate([table.values for table in tables]),
            np.concatenate([np.zeros(1, dtype=np.int64), *offsets]),
            np.concatenate([table.items for table in tables]),
            tables[0].classes,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def label(self) -> np.ndarray:
        """The class of every sample [n], -1 where there is none or more than one."""
        counts = np.diff(self.offsets)
        label = np.full(len(counts), -1, dtype=np.int64)
        label[counts == 1] = self.values[self.offsets[:-1][counts == 1]]
        return label

    @property
    def multi_label(self) -> bool:
        """Whether some sample belongs to more than one class."""
        return bool((np.diff(self.offsets) > 1).any())

    @property
    def presence(self) -> np.ndarray:
        """Whether a sample belongs to a class, bool [n, C]."""
        presence = np.zeros((len(self), len(self.classes)), dtype=bool)
        presence[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.values] = True
        return presence

    @property
    def labelled(self) -> np.ndarray:
        """Whether a sample has any label, bool [n]."""
        return np.diff(self.offsets) > 0

    @property
    def parts(self) -> np.ndarray:
        """What every sample is used for [n]: ``train``, ``validation``, or its split's own name.

        A validation split is what choices are made by only where another split is left to report on. Where there is
        none, as in VOC, ADE20K and COCO, it is what is reported, and as where a dataset has no validation split, a
        tenth of every class's training samples is set aside: those whose ids hash lowest, so that every stage sets
        the same ones aside.
        """
        if self.part is not None:
            return self.part
        parts = self.splits.astype(object)
        given, training = (np.isin(self.splits, names) for names in (VALIDATION_SPLITS, TRAINING_SPLITS))
        parts[training] = "train"
        # where nothing is labelled, labels are not what samples are judged by
        judged = (self.labelled | ~self.labelled.any()) & ~given & ~training
        if given.any() and judged.any():
            parts[given] = "validation"
        else:
            train = np.flatnonzero(training)
            parts[train[_lowest_tenth(self.ids[train], self.label[train])]] = "validation"
        return parts.astype(str)

    def part_of(self, split: str) -> str:
        """Return which of `parts` a split's name means; ``auto`` is what is left to report on, test before others."""
        parts = set(self.parts)
        if split == AUTO:
            judged = set(self.parts[self.labelled | ~self.labelled.any()]) - {"train", "validation"}
            return "test" if "test" in judged or not judged else min(judged)
        return "validation" if split in VALIDATION_SPLITS and split not in parts else split

    def require_classes(self, rows: np.ndarray, what: str) -> None:
        """Raise `InputError` naming the classes that have no sample among `rows`."""
        counts = self.presence[rows].sum(axis=0)
        if (counts == 0).any():
            names = ", ".join(self.classes[counts == 0][:10])
            raise InputError(
                f"{int((counts == 0).sum())} classes have no {what}",
                f"without any: {names}",
                "add samples, take a larger --limit in extract, or leave these classes out of the dataset",
            )


def _lowest_tenth(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return positions of the tenth of every class with the lowest hashes; a class of one keeps it."""
    order = np.argsort([hashlib.sha256(text.encode()).hexdigest() for text in ids], kind="stable")
    chosen = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        share = 0 if len(rows) < 2 else max(1, round(len(rows) * VALIDATION_SHARE))
        chosen.append(rows[:share])
    return np.sort(np.concatenate(chosen)) if chosen else np.array([], dtype=np.int64)
