"""What an artifact *is*: everything that decides its content, and nothing else.

Two artifacts with equal identities hold equal numbers, so an identity decides whether an output is up to
date and whether a half-written one may be continued. Time stamps, hosts, devices, batch sizes are not in it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Identity:
    """The identity of one stage output.

    Attributes
    ----------
    schema, stage : str
        Names of the schema and of the stage that wrote it.
    schema_version, stage_version : int
        Raised by hand: the first when the layout changes, the second when the numbers do.
    config : mapping
        The settings that affect results, JSON types only.
    inputs : mapping
        Role to ``{"file": name, "digest": content digest}``; only the digest counts for equality.
    digests : mapping
        Digests of what is read beside artifacts: ``weights``, ``dataset``, ``font``...
    """

    schema: str
    schema_version: int
    stage: str
    stage_version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes that hold this identity."""
        return {
            "schema": self.schema,
            "schema_version": self.schema_version,
            "stage": self.stage,
            "stage_version": self.stage_version,
            "config": canonical_json(dict(self.config)),
            "inputs": canonical_json({role: dict(entry) for role, entry in self.inputs.items()}),
            "digests": canonical_json(dict(self.digests)),
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "Identity":
        """Rebuild an identity from root attributes.

        Raises
        ------
        ValueError, TypeError, KeyError
            An attribute is missing or not of its kind.
        """
        inputs = json_object(attributes["inputs"])
        if not all(
            isinstance(entry, dict) and _texts(entry) and {"file", "digest"} <= {*entry} for entry in inputs.values()
        ):
            raise ValueError("inputs must hold file and digest of every role")
        digests = json_object(attributes["digests"])
        if not _texts(digests):
            raise ValueError("digests must be texts")
        return cls(
            schema=str(attributes["schema"]),
            schema_version=int(attributes["schema_version"]),
            stage=str(attributes["stage"]),
            stage_version=int(attributes["stage_version"]),
            config=json_object(attributes["config"]),
            inputs=inputs,
            digests=digests,
        )

    def header_digest(self, content_digest: str) -> str:
        """Return ``sha256:<hex>`` of all that the root attributes say of the content, its digest included."""
        text = canonical_json({**self.attributes(), "content_digest": content_digest})
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def key(self) -> str:
        """Return the text that two equal identities share; file names of inputs do not count."""
        attributes = self.attributes()
        attributes["inputs"] = canonical_json({role: entry["digest"] for role, entry in self.inputs.items()})
        return canonical_json(attributes)

    def differences(self, other: "Identity") -> list[str]:
        """Say in words what differs from `other`, the identity found on disk; empty when nothing does."""
        reasons = []
        for name in ("schema", "schema_version", "stage", "stage_version"):
            was, now = getattr(other, name), getattr(self, name)
            if was != now:
                reasons.append(f"{name.replace('_', ' ')} {was} -> {now}")
        reasons += _mapping_differences("setting", other.config, self.config)
        was_inputs = {role: entry["digest"] for role, entry in other.inputs.items()}
        now_inputs = {role: entry["digest"] for role, entry in self.inputs.items()}
        reasons += _mapping_differences("input", was_inputs, now_inputs, shorten=12)
        reasons += _mapping_differences("digest of the", other.digests, self.digests, shorten=12)
        return reasons


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object without NaN and infinity.

    Raises
    ------
    ValueError
        It is none.
    """
    found = json.loads(text, parse_constant=_refuse)
    if not isinstance(found, dict):
        raise ValueError(f"a JSON {type(found).__name__} where an object belongs")
    return found


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _texts(values: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in values.values())


def _mapping_differences(kind: str, was: Mapping, now: Mapping, shorten: int | None = None) -> list[str]:
    reasons = []
    absent = "its default" if kind == "setting" else "none"
    for key in sorted({*was, *now}):
        before, after = was.get(key, absent), now.get(key, absent)
        if before == after:
            continue
        parts = _object_in(before), _object_in(after)
        if parts[0] and parts[1]:
            reasons += _mapping_differences(f"{kind} {key}:", *parts)
            continue
        if shorten:
            before, after = str(before)[:shorten], str(after)[:shorten]
        reasons.append(f"{kind} {key} changed: {before} -> {after}")
    return reasons


def _object_in(value: Any) -> dict[str, Any]:
    """Return the JSON object that a text holds, an empty one for any other value."""
    if not (isinstance(value, str) and value.startswith("{")):
        return {}
    try:
        return json_object(value)
    except (ValueError, RecursionError):
        return {}
