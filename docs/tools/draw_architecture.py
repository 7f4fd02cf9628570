"""Draw docs/images/architecture.svg: the modules, and the one way that data take through them.

python docs/tools/draw_architecture.py
"""

from __future__ import annotations

import html
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "images" / "architecture.svg"
WIDTH, HEIGHT, LINE = 910, 968, 20
STYLE = """
  text { font: 14px ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1c1f24; }
  .name { font-weight: 700; }
  .module { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; }
  .flow { font-size: 13px; font-style: italic; fill: #4b5563; }
  .paper { fill: #ffffff; }
  .box { fill: #f3f6f6; stroke: #7b8794; }
  .main { fill: #dff1ef; stroke: #00796b; }
  .part { fill: #ffffff; stroke: #7b8794; }
  path { fill: none; stroke: #00796b; stroke-width: 2; marker-end: url(#tip); }
  .aside { stroke-dasharray: 6 4; }
  marker path { fill: #00796b; stroke: none; marker-end: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e8eaed; }
    .flow { fill: #b6bec9; }
    .paper { fill: #14171b; }
    .box { fill: #1f242b; stroke: #8893a1; }
    .main { fill: #10302d; stroke: #4db6ac; }
    .part { fill: #14171b; stroke: #8893a1; }
    path { stroke: #4db6ac; }
    marker path { fill: #4db6ac; }
  }
"""

#: Kind, x, y, width, height, name, and modules, line by line.
BOXES = [
    ("main", 280, 20, 340, 66, "Input", "records.py corpus.py pairs.py"),
    ("main", 280, 136, 340, 86, "Encoding", "models.py encoder.py vocabulary.py | fused.py splade_head.py convert.py"),
    ("main", 280, 272, 340, 66, "Rounding", "quantizer.py"),
    (
        "main",
        220,
        388,
        460,
        172,
        "One index, and its changes",
        "impact_index.py building.py verification.py | changes.py state.py manifest.py",
    ),
    ("part", 236, 468, 206, 80, "Impacts, sentences", "lucene.py jvm.py | impact_writer.py"),
    ("part", 458, 468, 206, 80, "Float vectors, ids", "vectors.py"),
    ("main", 280, 610, 340, 86, "Answers", "search.py inverted.py | join.py"),
    ("main", 280, 746, 340, 86, "Sentences in, sentences out", "index.py results.py | explain.py trace.py"),
    (
        "box",
        20,
        136,
        200,
        166,
        "Training",
        "recipe.py losses.py | training.py saving.py | averaging.py grow.py | distillation.py | "
        "checkpoints.py | progress.py",
    ),
    ("box", 20, 431, 160, 86, "Many as one", "collection.py | merge.py"),
    ("box", 20, 610, 160, 66, "Cosine to score", "calibration.py"),
    ("box", 714, 20, 176, 106, "Used by all", "errors.py files.py | precision.py hub.py | overlap.py plain.py"),
    ("box", 714, 610, 176, 106, "For others' code", "search_engines.py | pyserini_encoder.py | export.py"),
    ("box", 20, 862, 130, 86, "Shell", "cli/"),
    ("box", 166, 862, 130, 86, "HTTP, page", "server/"),
    ("box", 312, 862, 140, 86, "Other engines", "engines/"),
    ("box", 468, 862, 130, 86, "Clusters", "spark/"),
    ("box", 614, 862, 276, 86, "Measuring", "evaluation.py tradeoff.py | benchmark.py report.py"),
]
#: Path, lines of its label and where they stand, and whether it goes beside the main way.
FLOWS = [
    ("M450 86 V132", ["sentences"], 460, 115, False),
    ("M280 53 H120 V132", ["graded pairs"], 130, 46, False),
    ("M220 180 H276", ["a model"], 223, 172, False),
    ("M450 222 V268", ["unit vectors"], 460, 251, False),
    ("M450 338 V384", ["impacts, and the floats"], 460, 367, False),
    ("M450 560 V606", ["one state, as it was committed"], 460, 589, False),
    ("M450 696 V742", ["rows and cosines"], 460, 725, False),
    ("M180 474 H216", [], 0, 0, False),
    ("M180 643 H250 V779 H276", [], 0, 0, False),
    ("M620 179 H697 V779 H624", ["queries, encoded", "alike"], 707, 320, True),
    ("M450 832 V837 H85 V858", [], 0, 0, False),
    ("M450 837 H231 V858", [], 0, 0, False),
    ("M450 837 H382 V858", [], 0, 0, False),
    ("M450 837 H533 V858", [], 0, 0, False),
    ("M450 837 H752 V858", [], 0, 0, False),
]


def draw() -> str:
    """The picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-labelledby="title">',
        '<title id="title">Modules of sparse-sts-index, and the way of data through them</title>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 Z"/></marker></defs>',
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
    ]
    for path, _, _, _, aside in FLOWS:
        parts.append(f'<path d="{path}" class="{"aside" if aside else "way"}"/>')
    for kind, x, y, width, height, name, modules in BOXES:
        parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>')
        parts.append(_text("name", x + 14, y + 26, name))
        parts += [
            _text("module", x + 14, y + 28 + LINE * number, line) for number, line in enumerate(modules.split(" | "), 1)
        ]
    for _, lines, x, y, _ in FLOWS:
        parts += [_text("flow", x, y + LINE * number, line) for number, line in enumerate(lines)]
    return "\n".join([*parts, "</svg>", ""])


def _text(kind: str, x: int, y: int, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{html.escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
