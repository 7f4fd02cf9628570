"""Refuse a model that could run code or write files.

Whoever made a model is not trusted with this machine: no code of theirs is run. Code that comes with a model is never
loaded (``trust_remote_code`` is off), modules are of a short list, and weights are safetensors; a folder with nothing
but a pickle is refused, and one from the hub goes through torch's weights-only reader. A model's own settings could
turn that reader off (``weights_only`` among the ``model_args`` of ``sentence_bert_config.json``), or have weights
written anywhere (``offload_folder``): a model that has such settings is refused, and they are overruled besides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from sentence_transformers.util import load_file_path
from transformers import dynamic_module_utils

from sparse_sts_index._utils.text import printable
from sparse_sts_index.errors import ModelError

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
MODEL_KWARGS: dict[str, Any] = {
    "weights_only": True,
    "device_map": None,
    "offload_folder": None,
    "gguf_file": None,
    "use_kernels": False,
    "kernel_config": None,
}


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
                if taken := {"use_safetensors", *MODEL_KWARGS}.intersection(values):
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


@contextmanager
def no_questions() -> Iterator[None]:
    """Keep transformers from asking on stdin whether to run code that comes with a model: it is not run."""
    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = before
