"""Load a SPLADE model, or a dense one, by name: a folder, a hub id, or the name of a bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers.utils import logging as transformers_logging

from sparse_sts_index._utils.fork_guard import TORCH
from sparse_sts_index._utils.hub import hub_access
from sparse_sts_index._utils.text import printable
from sparse_sts_index.encoding.bundled import MINI, MINILM, bundled_folder, splade_path
from sparse_sts_index.encoding.fused_encoder import fuse
from sparse_sts_index.encoding.model_safety import MODEL_KWARGS, check_model, no_questions
from sparse_sts_index.errors import HubUnreachableError, ModelError

_MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


def load_splade(name: str | Path, *, device: str | None = None) -> SparseEncoder:
    """Load a SPLADE model with sentence-transformers, and give it the fused head.

    Parameters
    ----------
    name : str or Path
        A folder (a saved ``SparseEncoder``, or a masked-language model, which gets max pooling), the id of a model on
        the Hugging Face hub, or the name of a bundled one: ``"mini"`` or ``"tiny"``.
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
    path = splade_path(name)
    local = path.is_dir()
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
    check_symmetric(model, str(name))
    return fuse(model)


#: Prompts that sentence-transformers puts before queries, and before documents.
_PROMPTS = ("query", "document", "passage", "corpus")


def check_symmetric(model: SparseEncoder, name: str) -> None:
    """Refuse a model that encodes queries and documents differently: similarity here is the same both ways.

    Raises
    ------
    ModelError
        It has routes for queries and documents, or a prompt for either that is not its default prompt.
    """
    if any(isinstance(module, Router) for module in model.modules()):
        raise ModelError(
            f"{name} has different routes for queries and documents (a Router), for which the cosine of two sentences "
            "depends on their order; use a model with one route"
        )
    default = model.prompts.get(model.default_prompt_name or "") or ""
    for kind in _PROMPTS:
        if (prompt := model.prompts.get(kind) or "") and prompt != default:
            raise ModelError(
                f"{name} has a prompt of its own for {kind} ({printable(prompt, 30)!r}), for which the cosine of two "
                "sentences depends on their order; remove it (model.prompts = {}, save_pretrained), or make it the "
                "default for all sentences (default_prompt_name)"
            )


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


Loaded = TypeVar("Loaded", SparseEncoder, SentenceTransformer)


def _load(kind: type[Loaded], source: str, local: bool, reachable: bool, device: str | None) -> Loaded:
    local_files_only = local or not reachable
    check_model(source, local_files_only=local_files_only)
    kwargs = {**MODEL_KWARGS, "use_safetensors": True} if local else MODEL_KWARGS
    TORCH.enter()
    with no_questions():
        return kind(source, device=device, local_files_only=local_files_only, model_kwargs=dict(kwargs))


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
    name: str, local: bool, reachable: bool, error: BaseException, bundled: str = MINI
) -> ModelError | HubUnreachableError:
    """Return the error to raise for one of a loader; re-raise what is not an error of loading, such as an interrupt."""
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
