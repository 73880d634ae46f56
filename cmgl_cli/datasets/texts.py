"""Text files: sentences by class, or by sample, from JSON, YAML or CSV.

JSON and YAML hold ``class -> sentence`` or ``class -> [sentences]``. CSV has a header, ``class,text`` or
``id,text``, and one sentence a row. Everything is read as text: a YAML class ``no`` or ``3`` keeps its name.
Sentences keep their order, repeated ones included; a repeated class is an error in JSON and YAML, where one
of the two would get lost.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cmgl_cli.errors import InputError

_NULLS = ("~", "null", "Null", "NULL")
_PLAIN_TAGS = ("!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")))


@dataclass(frozen=True)
class TextTable:
    """The sentences of a file.

    Attributes
    ----------
    key : {"class", "id"}
        What the sentences belong to: classes, or single samples.
    texts : dict of str to tuple of str
        Sentences by class name or sample id, in the order of the file.
    """

    key: Literal["class", "id"]
    texts: dict[str, tuple[str, ...]]


def read_text_table(path: Path) -> TextTable:
    """Read sentences from a ``.json``, ``.yaml``, ``.yml`` or ``.csv`` file (UTF-8).

    Raises
    ------
    InputError
        A file that is missing, of another kind, malformed, or holds an empty sentence; file, class and line
        are named.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], TextTable]] = {
        ".json": lambda path: TextTable("class", parse_json_texts(read_json(path), path)),
        ".yaml": lambda path: TextTable("class", parse_yaml_texts(_read(path), path)),
        ".yml": lambda path: TextTable("class", parse_yaml_texts(_read(path), path)),
        ".csv": lambda path: parse_csv_texts(_read(path), path),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            "texts are read from JSON, YAML or CSV files",
            f"{path}",
            "rename it to .json, .yaml or .csv as it is written",
        )
    return _storable(reader(path), path)


def read_texts(path: Path) -> dict[str, tuple[str, ...]]:
    """Read class texts from a file of any kind; arguments and errors as for `read_text_table`.

    Raises
    ------
    InputError
        Moreover, a CSV of sample ids.
    """
    table = read_text_table(path)
    if table.key != "class":
        raise InputError("the file holds texts of samples, not of classes", f"{path}", "give a CSV with class,text")
    return table.texts


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file; a repeated key is an error.

    Raises
    ------
    InputError
        If it is missing or is not JSON; the place of the mistake is named.
    """
    try:
        return json.loads(_read(path), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError("a file of the dataset is not valid JSON", f"{path}: {error}", "correct the file") from error


def parse_json_texts(content: Any, path: Path) -> dict[str, tuple[str, ...]]:
    """Return class texts of a JSON object of class -> sentence, or list of sentences.

    Raises
    ------
    InputError
        If it is not such an object, or a sentence is empty.
    """
    if not isinstance(content, dict) or not content:
        raise _not_texts(path, f"{'nothing' if content == {} else 'a ' + type(content).__name__} at the top level")
    return {name: _sentences(path, name, value) for name, value in content.items()}


def parse_yaml_texts(content: str, path: Path) -> dict[str, tuple[str, ...]]:
    """Return class texts of a YAML mapping; scalars are taken as written and tags are refused.

    Raises
    ------
    InputError
        As for JSON, and for a tag that would build an object; the line is named.
    """
    import yaml

    try:
        root = yaml.compose(content, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError("a text file is not valid YAML", f"{path}: {error}", "correct the file") from error
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise _not_texts(path, "no mapping at the top level")
    texts: dict[str, tuple[str, ...]] = {}
    for key, value in root.value:
        name = _scalar(key, path)
        if name in texts:
            raise InputError(
                "a class is listed twice", f"{path}, line {_line(key, path)}: {name!r}", "put its texts together"
            )
        line = _line(value, path)
        items = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not items:
            raise _empty(path, line, name)
        texts[name] = tuple(_scalar(item, path, name) for item in items)
    return texts


def parse_csv_texts(content: str, path: Path) -> TextTable:
    """Return the texts of a CSV with the header ``class,text`` or ``id,text``.

    Raises
    ------
    InputError
        Another header, a row of another length, or an empty cell; the line is named.
    """
    rows = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(rows, [])]
        if sorted(header) not in (["class", "text"], ["id", "text"]):
            raise InputError(
                "a CSV of texts has the header class,text or id,text", f"{path}, line 1: {header}", "add the header"
            )
        key: Literal["class", "id"] = "class" if "class" in header else "id"
        texts: dict[str, list[str]] = {}
        for row in rows:
            if not row:
                continue
            if len(row) != 2:
                raise InputError(
                    "a row of the CSV does not have two cells",
                    f"{path}, line {rows.line_num}: {len(row)} cells",
                    'put sentences that contain commas between double quotes: owl,"small, round, brown"',
                )
            name, text = row[header.index(key)].strip(), row[header.index("text")]
            if not name or not text.strip():
                raise _empty(path, rows.line_num, name)
            texts.setdefault(name, []).append(text)
    except csv.Error as error:
        raise InputError(
            "a text file is not valid CSV", f"{path}, line {rows.line_num}: {error}", "correct the file"
        ) from error
    if not texts:
        raise InputError("a text file has no rows", f"{path}", "write one sentence a row under the header")
    return TextTable(key, {name: tuple(sentences) for name, sentences in texts.items()})


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            "a file of the dataset cannot be read", f"{path}: {error.strerror}", "restore the file"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError("a file of the dataset is not UTF-8", f"{path}: {error}", "save it as UTF-8") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is listed twice")
    return content


def _line(node: Any, path: Path) -> int:
    """Return the line of a YAML node, from 1, refusing tags."""
    line = int(node.start_mark.line) + 1
    if node.tag not in _PLAIN_TAGS:
        raise InputError("tags are refused in text files", f"{path}, line {line}: {node.tag}", "remove the tag")
    return line


def _scalar(node: Any, path: Path, name: str | None = None) -> str:
    """Return the text of a YAML scalar, which must be plain text and not empty."""
    line = _line(node, path)
    if node.id != "scalar":
        raise InputError(
            "the file does not hold class texts",
            f"{path}, line {line}{'' if name is None else f', class {name!r}'}: a {node.id} where a sentence belongs",
            "put sentences that contain a colon between quotes",
        )
    if not node.value.strip() or (node.style is None and node.value in _NULLS):
        raise _empty(path, line, name or "")
    return str(node.value)


def _sentences(path: Path, name: str, value: Any) -> tuple[str, ...]:
    sentences = [value] if isinstance(value, str) else value
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise _not_texts(path, f"class {name!r}: expected a list of sentences")
    if not sentences or not all(sentence.strip() for sentence in sentences):
        raise _not_texts(path, f"class {name!r}: an empty text")
    return tuple(sentences)


def _storable(table: TextTable, path: Path) -> TextTable:
    """Refuse halves of characters and NUL, which JSON and YAML can spell and no file can hold."""
    for name, sentences in table.texts.items():
        for text in (name, *sentences):
            if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
                raise InputError(
                    "a text holds NUL or half a character", f"{path}: {ascii(name)}: {ascii(text)[:200]}", "correct it"
                )
    return table


def _empty(path: Path, line: int, name: str) -> InputError:
    return InputError("a text is empty", f"{path}, line {line}: {name!r}", "write a sentence, or remove the entry")


def _not_texts(path: Path, found: str) -> InputError:
    return InputError(
        "the file does not hold class texts", f"{path}: {found}", 'write it as {"class": ["sentence", "sentence"]}'
    )
