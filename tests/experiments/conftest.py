"""A run on a few of the bundled digits, which all tests of the ablations share."""

import pytest
import torch

from cmgl_cli.config import build_run
from cmgl_cli.experiments import Chain
from tests.cli_helpers import cmgl

SETTINGS = """
dataset: digits
artifacts: {folder}
extract: {{encoder: "builtin:tiny", limit: 160}}
distill: {{nodes: 6, key_width: 8, epochs: 2}}
fit-graphs: {{k: "0,10", rho: 0.05, gamma: 0.05, select: ebic, observations: image}}
classify: {{observations: image, figures: false}}
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """Return the settings of a run on a few digits, whose features exist."""
    folder = tmp_path_factory.mktemp("ablations")
    path = folder / "digits.yaml"
    path.write_text(SETTINGS.format(folder=folder / "artifacts"))
    for stage in ("render-text", "extract", "distill", "prior", "fit-graphs", "classify"):
        cmgl(stage, "--config", path)
    return path


@pytest.fixture(scope="session")
def chain(config):
    """Return what cells of ablations share on them."""
    return Chain.of(build_run(config))


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory):
    """Return a small sentence-transformers model with random weights; no pretrained one is at hand."""
    models = pytest.importorskip("sentence_transformers.models")
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("text-encoder")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    small = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(small).save_pretrained(folder / "bert")
    tower = models.Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[tower, models.Pooling(16)], device="cpu").save(str(folder / "model"))
    return folder / "model"
