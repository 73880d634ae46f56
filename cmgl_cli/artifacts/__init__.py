"""HDF5 artifacts: the only room that knows the file format.

`open_artifact` reads any artifact; `create_artifact` writes one, block by block, resumably, and
publishes it under its final name in one step. The format is written down in docs/artifacts.md.
"""

from cmgl_cli.artifacts.blocks import BlockSet, BlockSpec
from cmgl_cli.artifacts.disk import publish_bytes, publish_file
from cmgl_cli.artifacts.identity import Identity, canonical_json
from cmgl_cli.artifacts.locking import output_lock
from cmgl_cli.artifacts.reader import Artifact, open_artifact, read_header, read_plain, require_plain
from cmgl_cli.artifacts.samples import SampleTable
from cmgl_cli.artifacts.schemas import SCHEMAS, Field, Schema
from cmgl_cli.artifacts.writer import (
    ArtifactWriter,
    DamagedUnfinishedError,
    clear_leftovers,
    create_artifact,
    partial_path,
)

__all__ = [
    "SCHEMAS",
    "Artifact",
    "ArtifactWriter",
    "BlockSet",
    "BlockSpec",
    "Field",
    "Identity",
    "SampleTable",
    "Schema",
    "canonical_json",
    "clear_leftovers",
    "DamagedUnfinishedError",
    "create_artifact",
    "open_artifact",
    "output_lock",
    "partial_path",
    "publish_bytes",
    "publish_file",
    "read_header",
    "read_plain",
    "require_plain",
]
