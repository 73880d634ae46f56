"""Make a sentence-transformers folder of the static token embeddings that come inside the package wordllama.

    pip install wordllama 'cmgl[text]'
    python scripts/static_text_encoder.py static-text
    cmgl experiment text-encoding --text-encoder ./static-text --config ...

A small pretrained text encoder (16 MB, 256 numbers a token, distilled from the embeddings of language models) for
machines that reach no hub: docs/results.md compares it with rendered texts.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
from transformers import PreTrainedTokenizerFast


def main(output: str) -> None:
    """Write the folder `output`."""
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        sys.exit("wordllama is not installed; run: pip install wordllama")
    package = Path(spec.origin).parent
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(package / "tokenizers" / "l2_supercat_tokenizer_config.json"),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    vectors = load_file(package / "weights" / "l2_supercat_256.safetensors")["embedding.weight"].float()
    tokens = WordEmbeddings(tokenizer, vectors)
    SentenceTransformer(modules=[tokens, Pooling(vectors.shape[1], "mean")], device="cpu").save(output)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
