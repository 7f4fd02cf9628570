"""Charts of a benchmark as SVG that takes its colours from the page around it, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from sparse_sts_index.errors import MissingExtraError
from sparse_sts_index.evaluation.benchmarking import Benchmark
from sparse_sts_index.evaluation.tradeoff import TradeOff

# Colours that nothing else would have, each put into the page's own variable once drawn.
_VARIABLES = {
    "#010203": "--ink",
    "#040506": "--muted",
    "#070809": "--line",
    "#0a0b0c": "--accent",
    "#0d0e0f": "--second",
    "#101112": "--third",
}
_INK, _MUTED, _LINE, _ACCENT, _SECOND, _THIRD = _VARIABLES
_SHOWN = 0.08  # of Spearman below the float one, in the chart of sizes
_SIZE = (5.2, 3.4)  # inches, at 72 points


def charts(result: Benchmark) -> dict[str, str]:
    """Inline SVG by name: scatter, error, latency, bits, dims, size.

    Colours are CSS variables (``--ink``, ``--muted``, ``--line``, ``--accent``, ``--second``, ``--third``).

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    drawings: dict[str, Callable[[Any], None]] = {
        "scatter": lambda axes: _scatter(axes, result),
        "error": lambda axes: _error(axes, result),
        "latency": lambda axes: _latency(axes, result),
        **_trade_off_drawings(result.trade_off),
    }
    return {name: _svg(draw, name) for name, draw in drawings.items()}


#: What the trade-off's charts show, by name.
TITLES = {
    "bits": "Spearman by bits, for linear, square root and logarithmic steps",
    "dims": "Spearman by the number of terms kept",
    "size": "Spearman by bytes a sentence",
}


def trade_off_charts(traded: TradeOff) -> dict[str, str]:
    """Those of :func:`charts` that are of the trade-off: bits, dims, size."""
    return {name: _svg(draw, name) for name, draw in _trade_off_drawings(traded).items()}


def standalone(svg: str, title: str) -> str:
    """A chart as a file of its own, light or dark as the reader likes; its title in plain words."""
    colours = (
        "svg{font-family:sans-serif;background:#fff;--ink:#1c1f24;--muted:#5c636e;--line:#dfe2e6;--accent:#1565a8;"
        "--second:#b4540a;--third:#3f7d3a}@media(prefers-color-scheme:dark){svg{background:#14171b;--ink:#e8eaed;"
        "--muted:#a3abb6;--line:#363c45;--accent:#6db3f2;--second:#f2a35e;--third:#8ccf84}}"
    )
    svg = svg.replace('aria-hidden="true"', 'role="img"', 1)
    start = svg.index(">") + 1
    return f"{svg[:start]}<title>{title}</title><style>{colours}</style>{svg[start:]}"


def _trade_off_drawings(traded: TradeOff) -> dict[str, Callable[[Any], None]]:
    return {
        "bits": lambda axes: _bits(axes, traded),
        "dims": lambda axes: _dims(axes, traded),
        "size": lambda axes: _size(axes, traded),
    }


def _svg(draw: Callable[[Any], None], name: str) -> str:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "bench") from error
    settings: Any = {
        "svg.fonttype": "none",  # text stays text: to be read out, searched and set in the page's font
        "svg.hashsalt": name,  # ids that no other chart of the page has, and the same in each run
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _MUTED,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": _LINE,
        "grid.linewidth": 0.6,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "font.size": 10,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'aria-hidden="true"', svg, count=1)
    svg = re.sub(r"font-family: [^;\"]+", "font-family: inherit", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to these, and other charts have the same
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def _scatter(axes: Any, result: Benchmark) -> None:
    axes.scatter(result.gold, result.cosines, s=9, color=_ACCENT, alpha=0.35, linewidths=0)
    order = np.argsort(result.gold)
    for part in np.array_split(order, min(5, len(order))):
        low, middle, high = np.percentile(result.cosines[part], (25, 50, 75))
        place = float(result.gold[part].mean())
        axes.plot([place, place], [low, high], color=_SECOND, linewidth=3, solid_capstyle="round")
        axes.plot([place], [middle], "o", color=_SECOND, markersize=7)
    axes.set(xlabel="gold score, as 0 to 1", ylabel="cosine", ylim=(-0.03, 1.03))


def _error(axes: Any, result: Benchmark) -> None:
    errors = result.quantized - result.cosines
    bound = result.evaluation.error_bound
    axes.hist(errors, bins=60, color=_ACCENT)
    largest = float(np.abs(errors).max())
    if bound < 6 * largest:
        for side in (-bound, bound):
            axes.axvline(side, color=_SECOND, linestyle="--")
    axes.set(xlabel=f"error of the {result.bits}-bit cosine (bound: ±{bound:.4f})", ylabel="pairs")


def _latency(axes: Any, result: Benchmark) -> None:
    names = [stage.stage for stage in result.stages]
    places = np.arange(len(names))[::-1]
    for quantile, marker, colour in (("p50", "o", _ACCENT), ("p95", "D", _SECOND), ("p99", "s", _THIRD)):
        values = [getattr(stage, quantile) for stage in result.stages]
        axes.plot(values, places, marker, color=colour, label=quantile, markersize=6)
    for place, stage in zip(places, result.stages, strict=True):
        axes.plot([stage.p50, stage.p99], [place, place], color=_MUTED, linewidth=1, zorder=1)
    axes.set_yticks(places, names)
    axes.set(xscale="log", xlabel="milliseconds, one query at a time")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)


def _bits(axes: Any, traded: TradeOff) -> None:
    for steps, style, colour in (("linear", "o-", _ACCENT), ("sqrt", "D--", _SECOND), ("log", "s:", _THIRD)):
        found = [quality for quality in traded.steps if quality.steps == steps]
        axes.plot([q.bits for q in found], [q.spearman for q in found], style, color=colour, label=steps, markersize=5)
    _tolerance(axes, traded)
    lowest = min((q.spearman for q in traded.steps if q.steps != "log" and np.isfinite(q.spearman)), default=0.0)
    axes.set(xlabel="bits of the largest impact", ylabel="Spearman")
    _limit(axes, lowest - 0.02, traded)
    axes.legend(loc="lower right", title="steps")


def _dims(axes: Any, traded: TradeOff) -> None:
    finest = max(setting.bits for setting in traded.settings)
    for bits, style, colour in ((finest, "o-", _ACCENT), (traded.usual.bits, "D--", _SECOND), (4, "s:", _THIRD)):
        found = sorted((s.active_dims, s.spearman) for s in traded.settings if s.bits == bits)
        if found:
            axes.plot(*zip(*found, strict=True), style, color=colour, label=f"{bits} bits", markersize=5)
    _tolerance(axes, traded)
    axes.set(xlabel="active dims of a sentence (the heaviest are kept)", ylabel="Spearman")
    axes.legend(loc="lower right")


def _size(axes: Any, traded: TradeOff) -> None:
    sizes = [setting.lucene_bytes + setting.vectors_bytes for setting in traded.settings]
    axes.scatter(sizes, [setting.spearman for setting in traded.settings], s=22, color=_ACCENT, alpha=0.7, linewidths=0)
    usual = f"{traded.usual.bits} bits, all terms"
    marked = [(traded.recommended, "recommended"), (traded.usual, usual)]
    if traded.recommended == traded.usual:
        marked = [(traded.usual, f"recommended: {usual}")]
    for setting, label in marked:
        if setting is not None:
            size = setting.lucene_bytes + setting.vectors_bytes
            axes.plot([size], [setting.spearman], "o", color=_SECOND, markersize=9, fillstyle="none", markeredgewidth=2)
            axes.annotate(label, (size, setting.spearman), xytext=(0, -16), textcoords="offset points", ha="center")
    _tolerance(axes, traded)
    axes.set(xlabel="bytes a sentence (Lucene and float vectors)", ylabel="Spearman")
    _limit(axes, traded.float_spearman - _SHOWN, traded)


def _limit(axes: Any, low: float, traded: TradeOff) -> None:
    if np.isfinite(traded.float_spearman):  # it is not where all cosines are equal
        axes.set_ylim(bottom=low)


def _tolerance(axes: Any, traded: TradeOff) -> None:
    if not np.isfinite(traded.float_spearman):
        return
    axes.axhline(traded.float_spearman, color=_MUTED, linewidth=1)
    axes.axhspan(traded.float_spearman - traded.tolerance, traded.float_spearman, color=_LINE, alpha=0.6, linewidth=0)
