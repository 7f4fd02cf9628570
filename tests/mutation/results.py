"""What `mutmut run` found, by file, as JSON; fails if a mutant lives that docs/mutation.md does not account for.

To be run where mutmut was; arguments are the page and the JSON file to write.
"""

from __future__ import annotations

import collections
import json
import sys
from importlib.metadata import version
from pathlib import Path

from mutmut.stats import status_by_exit_code


def main(page: str, output: str) -> None:
    accounted, unaccounted = Path(page).read_text(), []
    files = {}
    for meta in sorted(Path("mutants").rglob("*.py.meta")):
        verdicts = {
            name: status_by_exit_code[code] for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()
        }
        if not verdicts:
            continue
        counts = collections.Counter(verdicts.values())
        alive = sorted(name for name, verdict in verdicts.items() if verdict not in ("killed", "timeout"))
        unaccounted += [
            f"{name}: {verdicts[name]}"
            for name in alive
            if f"`{name.removeprefix('sparse_sts_index.')}`" not in accounted
        ]
        file = str(meta.relative_to("mutants")).removesuffix(".meta")
        files[file] = {"mutants": len(verdicts), **dict(sorted(counts.items())), "alive": alive}
        print(f"{file:36}", {key: value for key, value in files[file].items() if key != "alive"})  # noqa: T201
    Path(output).write_text(
        json.dumps({"mutmut": version("mutmut"), "files": files}, indent=1, ensure_ascii=False) + "\n"
    )
    if unaccounted or not files:
        sys.exit("\n".join([f"{len(unaccounted)} mutants live that {page} does not account for:", *unaccounted]))


if __name__ == "__main__":
    main(*sys.argv[1:])
