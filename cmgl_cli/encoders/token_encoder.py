"""A text encoder for comparison: token embeddings of any sentence-transformers model.

The toolkit itself draws texts as images and reads them with the image encoder; this is the other way, with a text
encoder of its own. sentence-transformers is an extra: ``pip install 'cmgl[text]'``.
"""

from collections.abc import Sequence

import numpy as np

from cmgl_cli.errors import InputError, UsageError

BATCH_TEXTS = 32


def token_embeddings(model: str, texts: Sequence[str]) -> list[np.ndarray]:
    """Return the last layer's embeddings of every text's tokens, special tokens included, padding left out.

    Parameters
    ----------
    model : str
        A local folder or a hub id. Only safetensors weights are read and no code of a checkpoint is ever run.
    texts : sequence of str

    Returns
    -------
    list of ndarray of float32, [tokens, width]

    Raises
    ------
    UsageError
        sentence-transformers is not installed.
    InputError
        The model cannot be had or loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UsageError(
            "a text encoder needs sentence-transformers, which is not installed",
            str(error),
            "run: pip install 'cmgl[text]', or leave --text-encoder out",
        ) from None
    try:
        encoder = SentenceTransformer(
            model, device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            "the text encoder cannot be loaded",
            f"{model}: {reason}",
            "give a folder with a sentence-transformers model, or a hub id that this machine can reach",
        ) from error
    found = encoder.encode(
        list(texts), output_value="token_embeddings", batch_size=BATCH_TEXTS, show_progress_bar=False
    )
    return [np.asarray(tokens.detach().float().cpu().numpy()) for tokens in found]
