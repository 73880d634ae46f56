"""Vision encoders behind one small interface: photographs and rendered texts in, patch tokens out.

Any local directory or hub id of a vision tower that transformers knows (SigLIP, SigLIP 2 with and without NaFlex,
CLIP, DINOv2, DINOv3, ViT) and the bundled ``builtin:tiny`` go through the same code. The patch grid, width,
normalisation and resize rule come from the checkpoint's own configuration. torch and transformers are imported when
a name of this package is first used, not when the package is imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmgl_cli.encoders.encoder import Encoder, Tokens
    from cmgl_cli.encoders.loading import load_encoder
    from cmgl_cli.encoders.mirroring import AnyEncoder, MirroredEncoder
    from cmgl_cli.encoders.preprocessing import Pixels
    from cmgl_cli.encoders.streaming import EncodedBatch, encode_stream
    from cmgl_cli.encoders.tiling import TiledEncoder

__all__ = [
    "AnyEncoder",
    "EncodedBatch",
    "Encoder",
    "MirroredEncoder",
    "Pixels",
    "TiledEncoder",
    "Tokens",
    "encode_stream",
    "load_encoder",
]

_HOME = {
    "AnyEncoder": "mirroring",
    "EncodedBatch": "streaming",
    "Encoder": "encoder",
    "MirroredEncoder": "mirroring",
    "Pixels": "preprocessing",
    "TiledEncoder": "tiling",
    "Tokens": "encoder",
    "encode_stream": "streaming",
    "load_encoder": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
