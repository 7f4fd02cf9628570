from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from sparse_sts_index import DataError, SparseStsEncoder, load_pairs
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.vectors.trace import words_of_tokens

if TYPE_CHECKING:
    from sparse_sts_index.vectors.trace import Trace

SENTENCES = [
    "A cat sleeps on the mat.",
    "",
    "Unaffordability's rise - 12.5% in 2019 - worries everyone, economists included; nobody knows why.",
    "cat",
    "A man, a plan, a canal: Panama! The man with the plan is the man of the canal.",
    " \t ",
    "Playing guitars   outdoors\nis forbidden?",
    *load_pairs("sample", "dev").sentence1[:25],
]


class OwnEncoder(SparseEncoder):
    """Of a class of its own, so that it does not get the fused head."""


def stock(**options: Any) -> SparseEncoder:
    return OwnEncoder(str(tiny_folder()), **options)


def summing(**options: Any) -> SparseEncoder:
    transformer = Transformer(str(tiny_folder()), transformer_task="fill-mask")
    return OwnEncoder(modules=[transformer, SpladePooling(pooling_strategy="sum")], **options)


@pytest.fixture(scope="module")
def unfused() -> SparseStsEncoder:
    encoder = SparseStsEncoder(stock(), "unfused", precision="float32")
    assert not encoder._used.fused
    return encoder


@pytest.fixture(scope="module")
def plain() -> SparseEncoder:
    """What the brute force asks; no encoder of ours ever has it."""
    return stock().eval()


def tokens_and_logits(model: SparseEncoder, sentence: str) -> tuple[list[str], list[int], torch.Tensor]:
    features = model.preprocess([sentence], prompt=None)
    with torch.inference_mode():
        logits = model(dict(features))["token_embeddings"][0]
    ids = features["input_ids"][0].tolist()
    assert logits.shape == (len(ids), 30522)
    return model.tokenizer.convert_ids_to_tokens(ids), ids, logits


def words_by_hashes(tokens: Sequence[str]) -> list[int | None]:
    """Which word each WordPiece token is part of, from the tokens alone: ## goes on with the last word."""
    words: list[int | None] = []
    word = -1
    for token in tokens:
        if token in ("[CLS]", "[SEP]"):
            words.append(None)
            continue
        word += not token.startswith("##")
        words.append(word)
    return words


def spans_by_pattern(sentence: str) -> list[tuple[int, int]]:
    """BERT's words of ASCII text: runs of letters and digits, and each other character that is no space."""
    return [match.span() for match in re.finditer(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]", sentence)]


def texts(sentence: str, trace: Trace) -> list[str]:
    return [sentence[start:end] for start, end in trace.words]


def assert_same(found: Trace, wanted: Trace) -> None:
    assert found.vector.shape == wanted.vector.shape
    assert found.vector.indices.tolist() == wanted.vector.indices.tolist()
    np.testing.assert_allclose(found.vector.data, wanted.vector.data, atol=1e-5)
    assert found.words == wanted.words
    assert dict(found.sources) == dict(wanted.sources)
    assert found.literal == wanted.literal


@pytest.mark.parametrize("fused", [True, False])
def test_each_terms_source_is_the_word_of_its_largest_logit(
    tiny: SparseStsEncoder, unfused: SparseStsEncoder, plain: SparseEncoder, fused: bool
) -> None:
    """Against all logits of the stock model; words from the tokens' text and from a pattern, not from offsets."""
    sentences = [sentence for sentence in SENTENCES if sentence.isascii() and sentence.strip()]
    assert len(sentences) > 25
    several = unambiguous = expansions = 0
    for sentence, trace in zip(sentences, (tiny if fused else unfused).trace(sentences), strict=True):
        tokens, ids, logits = tokens_and_logits(plain, sentence)
        assert trace.literal == frozenset(ids)
        assert list(trace.words) == spans_by_pattern(sentence)
        of_tokens = words_by_hashes(tokens)
        largest = logits.max(dim=0).values
        assert set(trace.sources) == set(trace.vector.indices.tolist())
        assert set(torch.nonzero(largest > 1e-4).flatten().tolist()) <= set(trace.sources)
        for term, source in trace.sources.items():
            assert largest[term] > 0
            near = torch.nonzero(logits[:, term] >= largest[term] - 1e-4).flatten().tolist()
            candidates = {of_tokens[position] for position in near}
            assert source in candidates, (sentence, term)
            unambiguous += len(candidates) == 1
            several += len(set(of_tokens)) > 2
            expansions += term not in trace.literal
    assert unambiguous > 400
    assert several > 400
    assert expansions > 100


def test_under_sum_pooling_the_token_with_the_largest_share() -> None:
    """And its vectors are those that encode gives."""
    encoder, plain = SparseStsEncoder(summing(), "sum"), summing().eval()
    sentences = [sentence for sentence in SENTENCES[:12] if sentence.isascii()]
    traces = encoder.trace(sentences)
    for sentence, trace, vector in zip(sentences, traces, encoder.encode(sentences).toarray(), strict=True):
        np.testing.assert_allclose(trace.vector.toarray()[0], vector, atol=1e-6)
        tokens, _, logits = tokens_and_logits(plain, sentence)
        of_tokens = words_by_hashes(tokens)
        for term, source in trace.sources.items():
            near = torch.nonzero(logits[:, term] >= logits[:, term].max() - 1e-4).flatten().tolist()
            assert source in {of_tokens[position] for position in near}


def test_vectors_are_those_of_encode(tiny: SparseStsEncoder, unfused: SparseStsEncoder) -> None:
    for encoder in (tiny, unfused):
        traces = encoder.trace(SENTENCES)
        encoded = encoder.encode(SENTENCES)
        assert len(traces) == len(SENTENCES)
        for row, trace in enumerate(traces):
            assert trace.vector.dtype == np.float32
            assert trace.vector.shape == (1, 30522)
            assert trace.vector.has_sorted_indices
            np.testing.assert_allclose(trace.vector.toarray(), encoded[[row]].toarray(), atol=1e-5)
            length = np.linalg.norm(trace.vector.data.astype(np.float64))
            assert length == pytest.approx(1 if SENTENCES[row].strip() else 0, abs=1e-6)


def test_fused_and_unfused_agree(tiny: SparseStsEncoder, unfused: SparseStsEncoder) -> None:
    for found, wanted in zip(tiny.trace(SENTENCES), unfused.trace(SENTENCES), strict=True):
        assert_same(found, wanted)


@pytest.mark.parametrize("batch_tokens", [1, 60, 1 << 20])
def test_padding_and_order_shift_nothing(tiny: SparseStsEncoder, batch_tokens: int) -> None:
    alone = [tiny.trace([sentence])[0] for sentence in SENTENCES]
    encoder = SparseStsEncoder(tiny.model, "tiny", precision="float32", batch_tokens=batch_tokens)
    for together in (encoder.trace(SENTENCES), encoder.trace(SENTENCES[::-1])[::-1]):
        for found, wanted in zip(together, alone, strict=True):
            assert_same(found, wanted)


def test_in_bfloat16(tiny: SparseStsEncoder) -> None:
    rounded = SparseStsEncoder(tiny.model, "tiny", precision="bfloat16")
    for trace, vector in zip(rounded.trace(SENTENCES), rounded.encode(SENTENCES).toarray(), strict=True):
        np.testing.assert_allclose(trace.vector.toarray()[0], vector, atol=1e-5)
        assert trace.sources.keys() == set(trace.vector.indices.tolist())


@pytest.mark.parametrize("sentence", ["", " \t\n "])
def test_a_sentence_without_words(tiny: SparseStsEncoder, unfused: SparseStsEncoder, sentence: str) -> None:
    ends = {tiny.model.tokenizer.cls_token_id, tiny.model.tokenizer.sep_token_id}
    for encoder in (tiny, unfused):
        (trace,) = encoder.trace([sentence])
        assert trace.words == ()
        assert trace.vector.nnz == 0
        assert dict(trace.sources) == {}
        assert trace.literal == ends


def test_a_sentence_without_active_terms() -> None:
    for kind in (SparseEncoder, OwnEncoder):
        encoder = SparseStsEncoder(kind(str(tiny_folder())), "silent", precision="float32")
        with torch.no_grad():
            encoder.model.transformers_model.cls.predictions.bias -= 1000
        (trace,) = encoder.trace(["a cat"])
        assert trace.vector.nnz == 0
        assert trace.vector.shape == (1, 30522)
        assert dict(trace.sources) == {}
        assert texts("a cat", trace) == ["a", "cat"]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("😀 a cat", ["😀", "a", "cat"]),
        ("a 👨\u200d👩\u200d👧 cat", ["a", "👨\u200d👩\u200d👧", "cat"]),
        ("C'est une ça\u0301fe ici", ["C", "'", "est", "une", "ça\u0301fe", "ici"]),
        ("Zürich's naïve Straße", ["Zürich", "'", "s", "naïve", "Straße"]),
        ("東京 cat", ["東", "京", "cat"]),
        ("\u00a0cat\u2003dog\ufeff bird", ["cat", "dog", "bird"]),
        ("\U0001d518nicode cat", ["\U0001d518nicode", "cat"]),
        ("a\x00b cat", ["a\x00b", "cat"]),
    ],
)
def test_spans_are_code_points_of_the_sentence(
    tiny: SparseStsEncoder, unfused: SparseStsEncoder, sentence: str, words: list[str]
) -> None:
    for encoder in (tiny, unfused):
        (trace,) = encoder.trace([sentence])
        assert texts(sentence, trace) == words
        assert {source for source in trace.sources.values() if source is not None} <= set(range(len(words)))
        if "cat" in words:
            cat = tiny.model.tokenizer.convert_tokens_to_ids("cat")
            assert trace.sources[cat] == words.index("cat")


def test_a_combining_character_at_the_end_is_part_of_the_word(tiny: SparseStsEncoder) -> None:
    sentence = "a cafe\u0301 here"
    assert texts(sentence, tiny.trace([sentence])[0]) == ["a", "cafe\u0301", "here"]


def test_the_models_maximum_length(plain: SparseEncoder) -> None:
    """The word that is cut within has an end all the same."""
    sentence = "The cat plays unaffordability guitars with everyone in town"
    pieces = plain.tokenizer.tokenize(sentence)
    assert pieces[3:5] == ["una", "##ff"]
    for kind in (SparseEncoder, OwnEncoder):
        encoder = SparseStsEncoder(kind(str(tiny_folder())), "short", precision="float32")
        encoder.model.max_seq_length = 7
        (trace,) = encoder.trace([sentence])
        words = texts(sentence, trace)
        assert words[:3] == ["The", "cat", "plays"]
        assert len(words) == 4
        assert words[3].startswith("unaff")
        assert "unaffordability".startswith(words[3])
        assert trace.literal == set(plain.tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", *pieces[:5]]))
        np.testing.assert_allclose(trace.vector.toarray(), encoder.encode([sentence]).toarray(), atol=1e-5)
        assert {source for source in trace.sources.values() if source is not None} <= {0, 1, 2, 3}
    long = "word " * 700 + "cat"
    (trace,) = SparseStsEncoder(stock(), "long").trace([long])
    assert len(trace.words) == 510
    assert set(texts(long, trace)) == {"word"}


@pytest.mark.parametrize("kind", [SparseEncoder, OwnEncoder])
@pytest.mark.parametrize("prompt", ["weather report: ", "query:", "wéathe\u0301r 😀 "])
def test_a_prompt_shifts_nothing(
    tiny: SparseStsEncoder, plain: SparseEncoder, kind: type[SparseEncoder], prompt: str
) -> None:
    """Its words are none of the sentence; what comes from them comes from no word."""
    model = kind(str(tiny_folder()), prompts={"x": prompt, "y": "another"}, default_prompt_name="x")
    encoder = SparseStsEncoder(model, "prompted", precision="float32")
    sentences = ["A cat sleeps on the mat.", "", "Playing guitars outdoors"]
    for sentence, trace, bare in zip(sentences, encoder.trace(sentences), tiny.trace(sentences), strict=True):
        assert trace.words == bare.words
        if not sentence:
            assert trace.vector.nnz == 0
            continue
        np.testing.assert_allclose(trace.vector.toarray(), tiny.encode([prompt + sentence]).toarray(), atol=1e-5)
        tokens, ids, logits = tokens_and_logits(plain, prompt + sentence)
        assert trace.literal == set(ids)
        first = len(plain.tokenizer.tokenize(prompt)) + 1
        shifted = words_by_hashes(tokens[first:])
        of_tokens = [None] * first + shifted
        for term, source in trace.sources.items():
            near = torch.nonzero(logits[:, term] >= logits[:, term].max() - 1e-4).flatten().tolist()
            assert source in {of_tokens[position] for position in near}


def test_a_word_that_a_prompt_runs_into() -> None:
    model = SparseEncoder(str(tiny_folder()), prompts={"x": "rain"}, default_prompt_name="x")
    (trace,) = SparseStsEncoder(model, "prompted", precision="float32").trace(["bow cat"])
    assert texts("bow cat", trace) == ["bow", "cat"]
    assert trace.sources[model.tokenizer.convert_tokens_to_ids("rainbow")] == 0


@pytest.mark.parametrize("kind", [SparseEncoder, OwnEncoder])
def test_only_the_terms_that_are_kept(tiny: SparseStsEncoder, kind: type[SparseEncoder]) -> None:
    encoder = SparseStsEncoder(kind(str(tiny_folder())), "few", precision="float32", max_active_dims=5)
    encoded = encoder.encode(SENTENCES)
    for row, (trace, whole) in enumerate(zip(encoder.trace(SENTENCES), tiny.trace(SENTENCES), strict=True)):
        np.testing.assert_allclose(trace.vector.toarray(), encoded[[row]].toarray(), atol=1e-5)
        assert trace.vector.nnz == min(5, whole.vector.nnz)
        assert trace.sources.keys() == set(trace.vector.indices.tolist())
        assert all(whole.sources[term] == source for term, source in trace.sources.items())
        assert trace.words == whole.words
        assert trace.literal == whole.literal


def test_what_is_not_a_list_of_sentences(tiny: SparseStsEncoder, unfused: SparseStsEncoder) -> None:
    for encoder in (tiny, unfused):
        assert encoder.trace([]) == []
        with pytest.raises(ValueError, match="not one string"):
            encoder.trace("abc")
        with pytest.raises(DataError, match="sentence 2: text holds an unpaired surrogate"):
            encoder.trace(["fine", "\udcff"])


def byte_level(trim: bool) -> Tokenizer:
    """As RoBERTa has it; a character that it does not know is several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(["a cat sleeps on the mat"] * 5, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 1), ("<s>", 0), trim_offsets=trim, add_prefix_space=False
    )
    return tokenizer


def metaspace(split: bool) -> Tokenizer:
    """As XLM-R (`split`) and others have it."""
    tokenizer = Tokenizer(models.Unigram())
    parts = [pre_tokenizers.WhitespaceSplit()] * split + [pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    trainer = trainers.UnigramTrainer(vocab_size=40, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(["a cat sleeps on the mat"] * 5, trainer)
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        pytest.param(lambda: byte_level(True), id="byte level, trimmed"),
        pytest.param(lambda: metaspace(True), id="metaspace, split"),
        pytest.param(lambda: byte_level(False), id="byte level"),
        pytest.param(lambda: metaspace(False), id="metaspace"),
    ],
)
def test_words_of_other_tokenizers(tokenizer: Any) -> None:
    text, prompt = "the cat 😀 sleeps  on", "mat: "
    for before in ("", prompt):
        encoding = tokenizer().encode(before + text)
        words, of_tokens = words_of_tokens(encoding, len(before), text)
        assert [text[start:end] for start, end in words] == ["the", "cat", "😀", "sleeps", "on"]
        assert len(of_tokens) == len(encoding.ids)
        numbers = [number for number in of_tokens if number is not None]
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(5))
        for number, (_, end) in zip(of_tokens, encoding.offsets, strict=True):
            if number is not None:
                assert words[number][0] < end - len(before) <= words[number][1]
