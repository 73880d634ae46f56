"""From an encoder's name to a folder with its files: the bundled one, a local directory, or the hub."""

import re
from pathlib import Path

from cmgl_cli.errors import InputError, UsageError, suggest

BUILTIN = {"builtin:tiny": Path(__file__).parent / "tiny"}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CONFIGURATION = ["config.json", "preprocessor_config.json", "processor_config.json"]
_FILES = [*_CONFIGURATION, "*.safetensors", "*.safetensors.index.json"]
_WAYS_OUT = "give a local directory (--encoder path/to/checkpoint), or use the bundled encoder: --encoder builtin:tiny"
# Seconds to wait for the hub's first answer: a machine without network should say so at once.
_HUB_TIMEOUT = 3.0


def find_checkpoint(name: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Return the folder that holds an encoder's configuration and weights.

    Parameters
    ----------
    name : str
        ``builtin:tiny``, a local directory, or a hub id such as ``google/siglip2-base-patch16-224``.
    revision : str, optional
        Branch, tag or commit on the hub.
    local_files_only : bool
        Use only what an earlier run has downloaded.

    Raises
    ------
    UsageError
        For a name that is none of the three.
    InputError
        For a directory without the needed files, or a hub id that cannot be had.
    """
    if name.startswith("builtin:"):
        if name not in BUILTIN:
            raise UsageError("unknown bundled encoder", f"encoder: {name!r}", suggest(name, BUILTIN))
        folder = BUILTIN[name]
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
    elif _HUB_ID.fullmatch(name):
        folder = _download(name, revision, local_files_only)
    else:
        raise UsageError("the encoder is neither a directory nor a hub id", f"encoder: {name!r}", _WAYS_OUT)
    _check_files(folder, name)
    return folder


def _check_files(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise InputError("the checkpoint has no config.json", f"encoder: {name!r} (looked in {folder})", _WAYS_OUT)
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise InputError(
            "the weights are pickled, and unpickling can run any code: only safetensors files are read",
            f"encoder: {name!r} ({', '.join(pickled)} in {folder})",
            'convert them where you trust them: python -c "from transformers import AutoModel; '
            f"AutoModel.from_pretrained('{name}', use_safetensors=False).save_pretrained('converted')\"",
        )
    raise InputError("the checkpoint has no *.safetensors file", f"encoder: {name!r} (looked in {folder})", _WAYS_OUT)


def _download(name: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    failure: Exception | None = None
    if not local_files_only:
        try:
            # This call alone keeps to its time limit; a download waits on a silent server without end.
            revision = HfApi().model_info(name, revision=revision, timeout=_HUB_TIMEOUT).sha
        except Exception as error:  # the HTTP library's own errors have no common base with OSError
            failure = error
    offline = local_files_only or failure is not None
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, local_files_only=offline))
    except (OSError, ValueError) as error:
        cause = failure or error
        raise InputError(
            f"the encoder cannot be had from the hub ({type(cause).__name__}: {first_line(cause)})",
            f"encoder: {name!r}, which is no local directory" + (f", revision {revision!r}" if revision else ""),
            _WAYS_OUT,
        ) from cause


def first_line(error: Exception, most: int = 200) -> str:
    """Return the first line of another library's error, cut to a length that leaves an error message readable."""
    line = (str(error).strip() or "no reason given").splitlines()[0]
    return line if len(line) <= most else line[:most] + " ..."
