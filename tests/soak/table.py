"""The table of ``docs/faults.md`` out of what the suites have counted: ``python tests/soak/table.py``."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "faults.json", ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- table: python tests/soak/table.py -->\n", "<!-- end of table -->\n"


def table() -> str:
    """In Markdown, a line for each kind of fault."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = ["| fault | tried | lost anything | answered wrongly | not one clear line |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {n} | {r['tried']:,} | {r['lost']} | {r['wrong']} | {r['unclear']} |" for n, r in rows.items()]
    totals = [sum(row[key] for row in rows.values()) for key in ("tried", "lost", "wrong", "unclear")]
    lines.append("| **all** | **{:,}** | **{}** | **{}** | **{}** |".format(*totals))
    crashes = sum((row["notes"] or {}).get("crashes of Java", 0) for row in rows.values())
    lines += ["", f"{crashes} of the commands with a small heap ended in a crash of Java itself, see below."]
    return "\n" + "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
