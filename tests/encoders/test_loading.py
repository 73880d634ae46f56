"""What loading refuses: weights that are not all there, pickles, foreign code, an unreachable hub, a missing GPU."""

import json
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from cmgl_cli.encoders import load_encoder
from cmgl_cli.encoders.compute import choose_dtype
from cmgl_cli.errors import InputError, UsageError


@pytest.fixture
def copy(checkpoint, tmp_path):
    """Return a function that copies a family's checkpoint to where a test may spoil it."""

    def make(family):
        folder = tmp_path / family
        shutil.copytree(checkpoint(family)[0], folder)
        return folder

    return make


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("family", "lost"),
    [
        ("siglip", "vision_model.post_layernorm.bias"),
        ("clip", "vision_model.embeddings.class_embedding"),
        ("siglip2", "vision_model.encoder.layers.1.mlp.fc1.weight"),
        ("dinov2", "layernorm.weight"),
    ],
)
def test_a_missing_weight_is_named_and_refused(family, lost, copy):
    folder = copy(family)
    change_weights(folder, lambda weights: weights.pop(lost))
    with pytest.raises(InputError, match=lost.removeprefix("vision_model.").replace(".", r"\.")):
        load_encoder(str(folder), device="cpu")


def test_a_weight_of_another_shape_is_named_and_refused(copy):
    folder = copy("siglip")
    name = "vision_model.embeddings.position_embedding.weight"
    change_weights(folder, lambda weights: weights.update({name: torch.zeros(9, 32)}))
    with pytest.raises(InputError, match="position_embedding"):
        load_encoder(str(folder), device="cpu")


def test_a_layer_that_the_configuration_does_not_know_is_refused(copy):
    folder = copy("vit")
    change_json(folder / "config.json", num_hidden_layers=1)
    with pytest.raises(InputError, match=r"not in the configuration: .*layers?\.1\."):
        load_encoder(str(folder), device="cpu")


def test_weights_that_inference_never_uses_may_be_missing(copy):
    folder = copy("dinov2")
    change_weights(folder, lambda weights: weights.pop("embeddings.mask_token"))
    assert load_encoder(str(folder), device="cpu").model_type == "dinov2"


def test_pickled_weights_are_refused(copy):
    folder = copy("vit")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="pickled"):
        load_encoder(str(folder), device="cpu")


def test_truncated_weights_are_refused(copy):
    folder = copy("vit")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        load_encoder(str(folder), device="cpu")


def test_code_in_a_checkpoint_is_not_run(copy, tmp_path):
    folder = copy("vit")
    witness = tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(witness)!r}, 'w')\nclass Own: pass\n")
    auto = {"AutoConfig": "modeling_own.Own", "AutoModel": "modeling_own.Own"}
    change_json(folder / "config.json", model_type="own_vit", auto_map=auto)
    with pytest.raises(InputError):
        load_encoder(str(folder), device="cpu")
    assert not witness.exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "bert"}', '{"model_type": "no_such"}', "{}"])
def test_unusable_configurations_are_refused(content, copy):
    folder = copy("vit")
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError):
        load_encoder(str(folder), device="cpu")


def test_a_checkpoint_without_preprocessor_or_config_is_refused(copy):
    folder = copy("vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="image processor"):
        load_encoder(str(folder), device="cpu")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="no config.json"):
        load_encoder(str(folder), device="cpu")


def test_a_preprocessor_that_keeps_the_aspect_ratio_is_refused(copy):
    folder = copy("clip")
    change_json(folder / "preprocessor_config.json", do_center_crop=False)
    with pytest.raises(InputError, match="different sizes"):
        load_encoder(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "unknown device"),
        ({"device": "cuda:99"}, "CUDA"),
        ({"dtype": "bfloat"}, "bfloat16"),
        ({"precision": "low"}, "unknown precision"),
        ({"attention": "flash"}, "unknown attention"),
    ],
)
def test_unusable_options(options, message, checkpoint):
    with pytest.raises(UsageError, match=message):
        load_encoder(str(checkpoint("vit")[0]), **{"device": "cpu", **options})


def test_cuda_is_not_silently_replaced(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="not available"):
        load_encoder(str(checkpoint("vit")[0]), device="cuda")
    assert load_encoder(str(checkpoint("vit")[0]), device="auto").device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "units", "expected"),
    [
        ("cpu", {}, torch.float32),
        ("cpu", {"avx512_bf16": True}, torch.bfloat16),
        ("cpu", {"amx_bf16": True}, torch.bfloat16),
        ("cuda", {}, torch.bfloat16),
    ],
)
def test_dtype_auto_follows_the_hardware(device, units, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert choose_dtype("auto", torch.device(device)) is expected


@pytest.mark.parametrize("name", ["builtin:tny", "no/such/folder", "./nowhere", "a b"])
def test_names_that_are_no_encoder(name):
    with pytest.raises(UsageError):
        load_encoder(name, device="cpu")


def test_a_cached_download_is_all_that_local_files_only_uses(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="builtin:tiny"):
        load_encoder("nobody/never-downloaded", device="cpu", local_files_only=True)


def test_a_silent_hub_is_given_up_quickly_with_the_two_ways_out(tmp_path):
    """A server that accepts and never answers; in a process of its own, for the hub's address is read at import."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        code = (
            "import time; from cmgl_cli.encoders.sources import find_checkpoint\n"
            "import huggingface_hub; start = time.monotonic()\n"
            "try: find_checkpoint('google/siglip2-base-patch16-224')\n"
            "except Exception as error: print(type(error).__name__, round(time.monotonic() - start), error)"
        )
        environment = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
            "no_proxy": "127.0.0.1",
            "PATH": "",
        }
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    kind, seconds, message = run.stdout.split(maxsplit=2)
    assert kind == "InputError" and int(seconds) < 20
    assert "local directory" in message and "builtin:tiny" in message and "google/siglip2" in message


def test_the_digest_knows_every_weight_and_no_dtype(checkpoint, copy):
    folder = copy("vit")
    original = load_encoder(str(folder), device="cpu").weights_digest
    assert load_encoder(str(checkpoint("vit")[0]), device="cpu", dtype="float16").weights_digest == original

    def nudge(weights):
        weights["vit.layernorm.bias"][3] += 1e-3

    change_weights(folder, nudge)
    assert load_encoder(str(folder), device="cpu").weights_digest != original


def test_importing_the_package_imports_no_torch():
    code = "import sys, cmgl_cli.encoders; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
