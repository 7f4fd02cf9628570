from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sparse_sts_index import MissingExtraError, Pairs, Quantizer, evaluate, load_pairs
from sparse_sts_index.evaluation.baselines import Bm25, TokenOverlap
from sparse_sts_index.evaluation.benchmarking import STAGES, benchmark
from sparse_sts_index.evaluation.report.charts import charts, standalone
from sparse_sts_index.evaluation.report.page import render_html, write_report
from sparse_sts_index.vectors.quantizer import pairwise_dot

if TYPE_CHECKING:
    from sparse_sts_index import SparseStsEncoder
    from sparse_sts_index.evaluation.benchmarking import Benchmark

HOSTILE = "<script>alert('x')</script> & \"quoted\" </style>"


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    some = load_pairs("sample", "test")
    return Pairs([HOSTILE, *some.sentence1], ["Nothing alike.", *some.sentence2], np.array([1.0, *some.gold]))


@pytest.fixture(scope="module")
def result(tiny: SparseStsEncoder, pairs: Pairs) -> Benchmark:
    steps: list[str] = []
    found = benchmark(tiny, pairs, dataset="sample", baselines=[Bm25(), TokenOverlap()], progress=steps.append)
    assert steps == ["correlation", "search", "BM25", "token overlap", "trade-off"]
    return found


def test_measures_what_evaluate_measures(result: Benchmark, tiny: SparseStsEncoder, pairs: Pairs) -> None:
    assert result.evaluation == evaluate(tiny, pairs)
    first, second = tiny.encode_pairs(pairs.sentence1, pairs.sentence2)
    np.testing.assert_array_equal(result.cosines, pairwise_dot(first, second))
    quantizer = Quantizer(8)
    integers = pairwise_dot(quantizer.quantize(first), quantizer.quantize(second))
    np.testing.assert_allclose(result.quantized, integers / 255**2)
    assert [rival.name for rival in result.rivals] == ["sparse, exact", "sparse, 8 bits", "BM25", "token overlap"]
    assert result.rivals[0].cosine == result.evaluation.cosine
    overlap = TokenOverlap().similarities(pairs.sentence1, pairs.sentence2)
    expected = np.corrcoef(overlap, pairs.gold)[0, 1]
    assert result.rivals[3].cosine.pearson == pytest.approx(expected)


def test_times_every_stage(result: Benchmark) -> None:
    assert [stage.stage for stage in result.stages] == [*STAGES, "exact search"]
    for stage in result.stages:
        assert 0 < stage.p50 <= stage.p95 <= stage.p99
    assert min(result.throughput.encoded, result.throughput.indexed, result.throughput.searched) > 0


def test_the_worst_pairs_are_those_that_ranks_tell_apart_most(result: Benchmark, pairs: Pairs) -> None:
    distances = [abs(pair.gold_rank - pair.cosine_rank) for pair in result.worst]
    assert distances == sorted(distances, reverse=True)
    assert len(distances) == 20
    assert HOSTILE in {pair.sentence1 for pair in result.worst}  # gold 1, nothing in common
    for pair in result.worst:
        row = next(n for n in range(len(pairs)) if pairs.sentence1[n] == pair.sentence1)
        assert pair.gold == pairs.gold[row]
        assert sum(term.contribution for term in pair.shared) <= pair.cosine + 1e-6
        alone = {term for term, _ in pair.alone1}
        assert not alone & {term.term for term in pair.shared}
        assert not alone & {term for term, _ in pair.alone2}


class _Page(HTMLParser):
    """What a page holds."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_needs_nothing_else_and_runs_nothing(result: Benchmark, tmp_path: Path) -> None:
    html, values = write_report(result, tmp_path / "report")
    page = _Page()
    page.feed(html.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert HOSTILE in "".join(page.text)  # as text
    assert page.tags.count("svg") == 6
    assert page.tags.count("details") == 21
    assert f"{result.evaluation.cosine.spearman:.4f}" in page.text
    style = html.read_text(encoding="utf-8")
    assert not re.findall(r"url\((?!#)", style)
    read = json.loads(values.read_text(encoding="utf-8"))
    assert read["evaluation"]["cosine"]["spearman"] == result.evaluation.cosine.spearman
    assert len(read["pairs"]["cosine"]) == result.evaluation.pairs
    assert {stage["stage"] for stage in read["stages"]} == {*STAGES, "exact search"}


def test_charts_take_their_colours_from_the_page(result: Benchmark) -> None:
    for name, svg in charts(result).items():
        used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg))
        assert not used, (name, used)
        assert "var(--ink)" in svg
        assert set(re.findall(r"font-family: ([^;\"]+)", svg)) == {"inherit"}
        assert "prefers-color-scheme" in standalone(svg, "A title")


def test_ids_are_the_page_s_own(result: Benchmark) -> None:
    ids = re.findall(r'\bid="([^"]+)"', render_html(result))
    assert len(ids) == len(set(ids))


def test_pairs_without_a_correlation(tiny: SparseStsEncoder, tmp_path: Path) -> None:
    """No shared term anywhere, hardly a pair, words in few: there is a report all the same, and it is JSON."""
    strangers = Pairs(["!!", "Stocks fell."], ["Cats.", "Blue."], np.array([0.0, 1.0]))
    found = benchmark(tiny, strangers, baselines=[Bm25(), TokenOverlap()])
    _, values = write_report(found, tmp_path)
    json.loads(values.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))


def test_numbers_that_are_none(result: Benchmark) -> None:
    page = render_html(replace(result, worst=(), trade_off=replace(result.trade_off, recommended=None)))
    assert "No setting is within" in page


def test_says_what_to_install(result: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib: pip install 'sparse-sts-index\[bench\]'"):
        render_html(result)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_real_browser(result: Benchmark, tmp_path: Path, scheme: str) -> None:
    """Chromium lays it out, loads nothing, and paints it light or dark."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    image = pytest.importorskip("PIL.Image")
    html, _ = write_report(result, tmp_path)
    shot = tmp_path / "shot.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *dark]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    subprocess.run(
        [*command, profile, "--window-size=1200,1600", f"--screenshot={shot}", html.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    picture = image.open(shot).convert("L")
    corner = picture.getpixel((5, 5))
    assert (corner < 60) if scheme == "dark" else (corner > 230)
    darkest, lightest = picture.getextrema()
    assert lightest - darkest > 180  # there is something to read
