"""What `mutmut run` found, by file, as JSON; fails if a mutant lives that docs/mutation.md does not account for.

To be run where mutmut was; arguments are the page and the JSON file to write. A mutant's name is that of a function and
a number, which may be another mutant's once the function has changed: what it changes has to be as in the last result.
"""

from __future__ import annotations

import collections
import json
import sys
from importlib.metadata import version
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code


def main(page: str, output: str) -> None:
    accounted, unaccounted = Path(page).read_text(), []
    before = json.loads(Path(output).read_text())["files"] if Path(output).exists() else {}
    known = {name: lines for file in before.values() for name, lines in file["alive"].items()}
    files = {}
    for meta in sorted(Path("mutants").rglob("*.py.meta")):
        verdicts = {
            name: status_by_exit_code[code] for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()
        }
        if not verdicts:
            continue
        counts = collections.Counter(verdicts.values())
        alive = {
            name: change(name) for name in sorted(verdicts) if verdicts[name] not in ("killed", "timeout", "segfault")
        }
        unaccounted += [
            f"{name}: {verdicts[name]}\n{alive[name]}"
            for name in alive
            if f"`{name.removeprefix('sparse_sts_index.')}`" not in accounted
            or known.get(name, alive[name]) != alive[name]
        ]
        file = str(meta.relative_to("mutants")).removesuffix(".meta")
        files[file] = {"mutants": len(verdicts), **dict(sorted(counts.items())), "alive": alive}
        print(f"{file:36}", {key: value for key, value in files[file].items() if key != "alive"})  # noqa: T201
    if unaccounted or not files:
        sys.exit("\n".join([f"{len(unaccounted)} mutants live that {page} does not account for:", *unaccounted]))
    Path(output).write_text(
        json.dumps({"mutmut": version("mutmut"), "files": files}, indent=1, ensure_ascii=False) + "\n"
    )


def change(name: str) -> str:
    """The lines that a mutant takes away and adds."""
    lines = get_diff_for_mutant(name).splitlines()
    return "\n".join(line for line in lines if line.startswith(("-", "+")) and not line.startswith(("---", "+++")))


if __name__ == "__main__":
    main(*sys.argv[1:])
