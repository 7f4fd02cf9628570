"""Sentences to token ids, against sentence-transformers' own preprocessing."""

import itertools

import pytest
from hypothesis import given, settings, strategies as st
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

from sparse_sts_index import SparseStsEncoder, load_pairs
from sparse_sts_index.encoding import tokenization
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.stock_model import StockTokenizer
from sparse_sts_index.encoding.tokenization import PackedTokens


def test_batches_are_of_similar_length_within_the_budget(tiny: SparseStsEncoder) -> None:
    sentences = [*load_pairs("sample", "train").sentence1, "", "word " * 700, "a"] * 3
    encoder = SparseStsEncoder(tiny.model, "tiny", batch_tokens=300)
    tokenized = encoder.tokenize(sentences)
    assert tokenized.count == len(sentences)
    wanted = [row for row, sentence in enumerate(sentences) if sentence]  # blank ones are in no batch
    assert sorted(i for positions, _ in tokenized.batches for i in positions) == wanted
    padding = total = 0
    for positions, packed in tokenized.batches:
        assert isinstance(packed, PackedTokens)
        assert packed.lengths == sorted(packed.lengths, reverse=True)
        assert len(positions) == len(packed.lengths)
        assert len(packed.ids) == sum(packed.lengths)
        padded = len(positions) * packed.lengths[0]
        assert len(positions) == 1 or (len(packed.ids) <= 300 and padded <= 2 * 300)
        padding += padded - len(packed.ids)
        total += padded
    assert padding < 0.1 * total
    assert max(packed.lengths[0] for _, packed in tokenized.batches if isinstance(packed, PackedTokens)) == 512


@pytest.mark.parametrize(("words", "batches"), [(300, 1), (600, 2), (1200, 2)])
def test_as_many_batches_as_workers_where_there_is_enough_to_do(
    tiny: SparseStsEncoder, words: int, batches: int
) -> None:
    sentences = ["word " * (words // 20)] * 20 + ["x"]
    tokenized = tiny._used.tokenize(sentences, 1024, 2)
    sizes = [len(packed.ids) for _, packed in tokenized.batches if isinstance(packed, PackedTokens)]
    assert len(sizes) == batches
    assert max(sizes) <= 1.2 * min(sizes)


@given(st.lists(st.text("ab", max_size=12), max_size=40))
def test_not_too_much_is_tokenized_together(sentences: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "_TOKENIZED_TOGETHER", 5)
        patch.setattr(tokenization, "_CHARACTERS_TOGETHER", 20)
        runs = [list(run) for run in tokenization._runs(sentences)]
    assert [sentence for run in runs for sentence in run] == sentences
    for run, after in itertools.pairwise([*runs, [""]]):
        size = sum(map(len, run))
        assert 1 <= len(run) <= 5
        assert size <= 20 or len(run) == 1
        assert after == [""] or len(run) == 5 or size + len(after[0]) > 20  # no more calls than need be


def test_sentences_of_a_megabyte_one_at_a_time(tiny: SparseStsEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = ["A short one.", "The quick brown fox. " * 50_000, "Another one."]
    kind = type(tiny._used.tokenizer)
    together, seen, token_ids = tiny.encode(sentences), [], kind.token_ids
    monkeypatch.setattr(kind, "token_ids", lambda s, run: seen.append(len(run)) or token_ids(s, run))
    assert abs(tiny.encode(sentences) - together).max() == 0
    assert seen == [1, 1, 1]


_INVISIBLE = " \t\r\n\u00a0\u2003\u200b\u200d\ufeff\u00ad\x00\x07\ue000"


@settings(deadline=None)
@given(before=st.text(_INVISIBLE, max_size=8), text=st.sampled_from(["", "a"]), after=st.text(_INVISIBLE, max_size=8))
@pytest.mark.parametrize("prompt", ["", "a prompt:"])
def test_invisible_characters_are_blank(
    tiny: SparseStsEncoder, prompt: str, before: str, text: str, after: str
) -> None:
    model = SparseEncoder(modules=list(tiny.model), prompts={"x": prompt}, default_prompt_name="x")
    assert StockTokenizer(model).are_blank([before + text + after]).tolist() == [not text]


@pytest.mark.parametrize("prompt", ["", "a prompt:"])
def test_blank_sentences_have_no_terms(tiny: SparseStsEncoder, prompt: str) -> None:
    model = SparseEncoder(modules=list(tiny.model), prompts={"x": prompt}, default_prompt_name="x")
    encoder, done = SparseStsEncoder(model, "tiny"), []
    vectors = encoder.encode(["", "a cat", " \u200b\n"], progress=done.append)
    assert [vectors[[row]].nnz > 0 for row in range(3)] == [False, True, False]
    assert sum(done) == 3
    assert encoder.score_pairs(["", "a"], [" ", "a"]) == pytest.approx([0, 1])


@pytest.mark.parametrize("options", [{}, {"processing_kwargs": {"text": {"max_length": 9}}}])
def test_tokens_are_those_of_sentence_transformers(options: dict[str, object], tiny: SparseStsEncoder) -> None:
    model = SparseEncoder(
        modules=[
            Transformer(str(tiny_folder()), transformer_task="fill-mask", **options),
            SpladePooling(),
        ],
        prompts={"x": "a prompt: "},
        default_prompt_name="x",
    )
    odd = ["", " ", "\t a\u00a0b \n", "Ünï ça\u0301fé", "[MASK] [SEP]", "東京", "word " * 600, "a\x00b", "😀" * 20]
    sentences = [*odd, *load_pairs("sample", "dev").sentence1]
    encoder = SparseStsEncoder(model, "tiny")
    found: dict[int, list[int]] = {}
    for positions, packed in encoder.tokenize(sentences).batches:
        assert isinstance(packed, PackedTokens)
        for position, ids in zip(positions.tolist(), packed.ids.split(packed.lengths), strict=True):
            found[position] = ids.tolist()
    assert found.keys() == set(range(2, len(sentences)))  # no blank sentences
    for position in found:
        sentence = sentences[position]
        features = model.preprocess([sentence], prompt="a prompt: ")
        assert found[position] == features["input_ids"][0].tolist(), sentence
