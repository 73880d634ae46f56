"""JSON files beside a dataset: class texts and descriptions, read with checks."""

import json
from pathlib import Path
from typing import Any

from cmgl_cli.errors import InputError


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file.

    Raises
    ------
    InputError
        If it is missing or is not JSON; the place of the mistake is named.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(
            "A file of the dataset cannot be read", f"{path}: {error.strerror}", "restore the file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError("A file of the dataset is not valid JSON", f"{path}: {error}", "correct the file") from error


def read_texts(path: Path) -> dict[str, tuple[str, ...]]:
    """Read class texts: a JSON object of class -> sentence, or list of sentences.

    Raises
    ------
    InputError
        If the file is not such an object, or a sentence is empty.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise _not_texts(path, f"a {type(content).__name__} at the top level")
    return {name: _sentences(path, name, value) for name, value in content.items()}


def _sentences(path: Path, name: str, value: Any) -> tuple[str, ...]:
    sentences = [value] if isinstance(value, str) else value
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise _not_texts(path, f"class {name!r}: expected a list of sentences")
    if not sentences or not all(sentence.strip() for sentence in sentences):
        raise _not_texts(path, f"class {name!r}: an empty text")
    return tuple(sentences)


def _not_texts(path: Path, found: str) -> InputError:
    return InputError(
        "The file does not hold class texts", f"{path}: {found}", 'write it as {"class": ["sentence", "sentence"]}'
    )
