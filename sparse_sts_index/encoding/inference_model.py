"""A SPLADE model read from its files for inference, without sentence-transformers and the modules of transformers.

Those take seconds to import, which a single query would wait for. Only a folder in which all is as expected is read
this way: a masked-language model of the BERT family, to be computed in float32, and max pooling. Any other is for
sentence-transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from sparse_sts_index.encoding.packed_layers import FAMILIES, PackedLayers, supports
from sparse_sts_index.encoding.splade_head import DecoderScreen
from sparse_sts_index.encoding.term_weights import TermWeights, pool, token_places
from sparse_sts_index.encoding.tokenization import Batch, PackedTokens, SentenceTokenizer, TokenizedSentences

#: How sentence-transformers saves a SPLADE model: its modules, and what it says of the first and the second.
_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
    {
        **{"idx": 1, "name": "1", "path": "1_SpladePooling"},
        "type": "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
    },
]
_TRANSFORMER = {
    "transformer_task": "fill-mask",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "token_embeddings",
}
_STATE_PREFIX = "0.model."  # of the names of the transformer's weights in a SparseEncoder
_MODEL_SETTINGS = {
    *("__version__", "default_prompt_name", "max_active_dims", "model_type", "prompts", "similarity_fn_name"),
}
_POOLING_SETTINGS = {"activation_function", "embedding_dimension", "pooling_strategy"}
#: Settings of a configuration that are used here, or that change nothing in inference.
_CONFIG_SETTINGS = {
    *("model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path"),
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id", "position_embedding_type"),
    *("dim", "n_layers", "n_heads", "hidden_dim", "activation", "relative_attention_num_buckets", "is_decoder"),
    *("tie_word_embeddings", "tie_weights_", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "classifier_dropout"),
    *("qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "initializer_range", "use_cache"),
    *("add_cross_attention", "gradient_checkpointing"),
}
_SPECIAL = ("cls_token", "mask_token", "pad_token", "sep_token", "unk_token")
#: The same for a tokenizer.
_TOKENIZER_SETTINGS = {
    *_SPECIAL,
    *("tokenizer_class", "backend", "model_max_length", "do_lower_case", "strip_accents", "tokenize_chinese_chars"),
    *("do_basic_tokenize", "clean_up_tokenization_spaces", "is_local", "local_files_only", "max_length", "stride"),
    *("pad_to_multiple_of", "pad_token_type_id", "padding_side", "truncation_side", "truncation_strategy"),
    *("model_input_names", "name_or_path", "special_tokens_map_file", "tokenizer_file", "added_tokens_decoder"),
}
_RENAMED = {"gamma": "weight", "beta": "bias"}
_MOST_TOKENS = 1 << 20  # of a sentence; tokenizers without a limit have a greater number


class _UnknownError(Exception):
    """Something in a folder is not as expected."""


class FileTokenizer(SentenceTokenizer):
    """A tokenizer of the ``tokenizers`` library.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        It does not pad. Its truncation is set here.
    prompt : str
    max_length : int
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str, max_length: int) -> None:
        tokenizer.enable_truncation(max_length)
        self._tokenizer, self._prompt, self._max_length = tokenizer, prompt, max_length

    @property
    def prompt(self) -> str:
        """The text before each sentence."""
        return self._prompt

    @property
    def max_length(self) -> int:
        """Most tokens of a sentence, with those that begin and end it."""
        return self._max_length

    def token_ids(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each sentence."""
        return [found.ids for found in self._tokenizer.encode_batch_fast(self._texts(sentences))]

    def encodings(self, sentences: Sequence[str]) -> list[Any]:
        """Return a ``tokenizers.Encoding`` for each sentence."""
        return self._tokenizer.encode_batch(self._texts(sentences))

    def _texts(self, sentences: Sequence[str]) -> list[str]:
        return [self._prompt + sentence for sentence in sentences]


class InferenceModel:
    """A SPLADE model of the BERT family on the CPU, for inference.

    Attributes
    ----------
    path : Path
        The folder.
    tokenizer : FileTokenizer
    fused : bool
        True, as for a :class:`.encoding.stock_model.StockModel` with the fused head.
    device : torch.device
    max_active_dims : int or None
        Most terms of a sentence, or None for all.
    """

    fused = True
    device = torch.device("cpu")

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        pooling: tuple[str, str],
        max_active_dims: int | None,
        tokenizer: FileTokenizer,
        vocabulary: dict[str, int],
        probes: Mapping[str, list[int]],
    ) -> None:
        self.path, self.tokenizer = path, tokenizer
        self.max_active_dims = max_active_dims
        self.vocabulary = vocabulary, int(config["vocab_size"])
        self._config, self._weights, self._pooling, self._probes = config, weights, pooling, probes
        self._family = FAMILIES[config["model_type"]]
        self._layers: PackedLayers | None = None
        self._screen = DecoderScreen(frozen=True)

    @classmethod
    def read(cls, path: Path, probes: Sequence[str]) -> Self | None:
        """Read a model from a folder, or return None if it takes sentence-transformers to load it.

        Parameters
        ----------
        path : Path
        probes : sequence of str
            Texts that :meth:`probe` may be asked for.
        """
        path = path.absolute()
        try:
            config = _json(path / "config.json")
            prompt, pooling, max_length, max_active_dims = _settings(path)
            weights = _weights(path, config)
            tokenizer, longest = _tokenizer(path, max_length)
            if max_length is None:
                longest = min(longest, config["max_position_embeddings"])
            if not len(tokenizer.encode("").ids) < longest < _MOST_TOKENS:
                return None
            found = {text: tokenizer.encode(text).ids for text in probes}
            vocabulary = tokenizer.get_vocab(with_added_tokens=True)
            file_tokenizer = FileTokenizer(tokenizer, prompt, longest)
        except BaseException as error:  # whatever is wrong, the stock loader tells; panics of Rust are no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            return None
        return cls(path, config, weights, pooling, max_active_dims, file_tokenizer, vocabulary, found)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_layers": None, "_screen": DecoderScreen(frozen=True)}

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide a vector, but for those of the tokenizer."""
        return {
            "architecture": self._config["model_type"],
            "attention_heads": self._config[self._family.heads_setting],
            "activation": str(self._config.get("hidden_act")),
            "epsilon": self._config.get("layer_norm_eps"),
            "pooling": list(self._pooling),
        }

    def probe(self, text: str) -> list[int]:
        """Return the token ids of a text, without prompt or truncation."""
        return self._probes[text]

    def state(self) -> dict[str, Tensor]:
        """Return all weights, by the names that a ``SparseEncoder`` gives them."""
        return {_STATE_PREFIX + name: weight for name, weight in self._weights.items()}

    def start(self) -> bool:
        """Prepare the weights for inference.

        Returns
        -------
        bool
            True: batches may be computed side by side.
        """
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        if self._layers is None or self._layers.dtype != dtype:
            self._layers = PackedLayers(self._config["model_type"], self._config, self._weights, dtype)
        self._screen.rounded(self._decoder("weight"), torch.float32)
        return True

    def tokenize(self, sentences: Sequence[str], batch_tokens: int, workers: int) -> TokenizedSentences:
        """Return batches for :meth:`term_weights`; see :meth:`.SentenceTokenizer.packed_batches`."""
        return self.tokenizer.packed_batches(sentences, batch_tokens, workers)

    def term_weights(self, batch: Batch) -> TermWeights:
        """Return the term weights of a batch; after :meth:`start`, under the same autocast."""
        assert isinstance(batch, PackedTokens)
        assert self._layers is not None
        hidden = self._layers(batch.ids, batch.lengths)
        weight, bias = self._decoder("weight"), self._decoder("bias")
        places = token_places(batch.lengths)
        return pool(hidden, batch.lengths, weight, bias, self._pooling[1], self._screen, places)

    def _decoder(self, part: str) -> Tensor:
        return self._weights[f"{self._family.decoder}.{part}"]


def _json(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise _UnknownError
    return values


def _settings(path: Path) -> tuple[str, tuple[str, str], int | None, int | None]:
    """Return the prompt, the pooling with its activation, and the greatest number of tokens and of terms, if set."""
    files = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
    if any(path.rglob("pytorch_model*")) or (path / "adapter_config.json").exists():
        raise _UnknownError
    if not any((path / file).exists() for file in files):
        return "", ("max", "relu"), None, None  # a masked-language model as such
    model, transformer = (_json(path / file) for file in files[1:])
    max_length = transformer.pop("max_seq_length", None)
    if json.loads((path / files[0]).read_text(encoding="utf-8")) != _MODULES or transformer != _TRANSFORMER:
        raise _UnknownError
    pooling = _json(path / "1_SpladePooling" / "config.json")
    prompts = {name: text or "" for name, text in model["prompts"].items()}
    prompt = prompts[model["default_prompt_name"]] if model["default_prompt_name"] else ""
    known = model.keys() <= _MODEL_SETTINGS and pooling.keys() <= _POOLING_SETTINGS and type(prompt) is str
    if not known or model["model_type"] != "SparseEncoder" or set(prompts.values()) - {"", prompt}:
        raise _UnknownError
    if pooling["pooling_strategy"] != "max" or pooling["activation_function"] not in ("relu", "log1p_relu"):
        raise _UnknownError
    terms = model.get("max_active_dims")
    if any(size is not None and (type(size) is not int or size < 1) for size in (max_length, terms)):
        raise _UnknownError
    return prompt, ("max", pooling["activation_function"]), max_length, terms


def _weights(path: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights by all their names: those that are tied are in the file once."""
    family = FAMILIES[config["model_type"]]
    if not config.keys() <= _CONFIG_SETTINGS or not str(config["architectures"]).endswith("ForMaskedLM']"):
        raise _UnknownError
    names = family.shapes(config)
    content = load_file(path / "model.safetensors")
    # Without a type in the configuration, the one of the file's first tensor counts.
    dtype = config.get("dtype", config.get("torch_dtype"))
    floating = {weight.dtype for weight in content.values() if weight.is_floating_point()}
    if dtype != "float32" and (dtype is not None or floating != {torch.float32}):
        raise _UnknownError
    weights = {name: weight.float() for key, weight in content.items() if (name := _current_name(key)) in names}
    if config.get("tie_word_embeddings", True):
        pairs = [(f"{family.decoder}.weight", f"{family.base}.embeddings.word_embeddings.weight")]
        pairs += [(f"{family.decoder}.bias", family.bias)]
        for one, other in pairs:
            if one in weights and other in weights and not torch.equal(weights[one], weights[other]):
                raise _UnknownError
            weights[one] = weights[other] = weights[one] if one in weights else weights[other]
    if not supports(config["model_type"], config, weights):
        raise _UnknownError
    return weights


def _current_name(name: str) -> str:
    """Return the name of a weight today: those of layer norms were gamma and beta once."""
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_RENAMED.get(last, last)}"


def _tokenizer(path: Path, max_length: int | None) -> tuple[Tokenizer, int]:
    """Return the tokenizer and its maximum length, where transformers would make the same one of the folder."""
    options = _json(path / "tokenizer_config.json")
    content = _json(path / "tokenizer.json")
    special = {name: options[name] for name in _SPECIAL}
    added = {str(token["id"]): token for token in content["added_tokens"]}
    model = content["model"]
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    expected = [
        ({name for name, value in options.items() if value not in (None, [], {})} <= _TOKENIZER_SETTINGS, True),
        (options["tokenizer_class"].removesuffix("Fast") in ("BertTokenizer", "DistilBertTokenizer"), True),
        (options.get("truncation_side", "right"), "right"),
        (sorted(token["content"] for token in added.values()), sorted(special.values())),
        (all(token == _special_token(token) for token in added.values()), True),
        (_decoded(options.get("added_tokens_decoder", added)), _decoded(added)),
        ((path / "added_tokens.json").exists(), False),
        (_special_map(path, special), special),
        (
            content["normalizer"],
            {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": options.get("tokenize_chinese_chars", True),
                "strip_accents": options.get("strip_accents"),
                "lowercase": options.get("do_lower_case", True),
            },
        ),
        (content["pre_tokenizer"], {"type": "BertPreTokenizer"}),
        ({name: value for name, value in model.items() if name != "vocab"}, _wordpiece(special["unk_token"])),
        ([next(iter(part)) for part in content["post_processor"]["single"]], _TEMPLATE),
        (tokenizer.encode("").ids, [tokenizer.token_to_id(special[name]) for name in ("cls_token", "sep_token")]),
    ]
    if any(found != wanted for found, wanted in expected):
        raise _UnknownError
    return tokenizer, int(options["model_max_length"]) if max_length is None else max_length


_TEMPLATE = ["SpecialToken", "Sequence", "SpecialToken"]


def _wordpiece(unknown: str) -> dict[str, Any]:
    """Return the settings of the model of BERT's tokenizers."""
    settings = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    return {"type": "WordPiece", "unk_token": unknown, **settings}


def _special_token(token: Mapping[str, Any]) -> dict[str, Any]:
    """Return a special token as transformers makes one."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"id": token["id"], "content": token["content"], **flags}


def _decoded(tokens: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return added tokens by id, without repeating the ids."""
    return {number: {k: v for k, v in token.items() if k != "id"} for number, token in tokens.items()}


def _special_map(path: Path, special: dict[str, str]) -> dict[str, str]:
    """Return the special tokens that an older file of them names, where there is one."""
    file = path / "special_tokens_map.json"
    if not file.exists():
        return special
    return {name: token if isinstance(token, str) else token["content"] for name, token in _json(file).items()}
