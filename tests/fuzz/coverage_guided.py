"""Coverage-guided fuzzing of one target with atheris: ``coverage_guided.py TARGET COUNTS [libFuzzer's options]``.

COUNTS is a file that is kept up to date with how many inputs were tried, and how many of them accepted. What fails is
left in a file of libFuzzer's (``-artifact_prefix``), which goes into
``tests/security/test_hostile_input.py`` once it is understood.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import atheris

with atheris.instrument_imports(include=["sparse_sts_index"]):
    from targets import FOLDER, TARGETS

_OFTEN = 200


def main() -> None:
    """Fuzz until libFuzzer's own limits end it."""
    name, counts = sys.argv[1], Path(sys.argv[2])
    target = TARGETS[name]
    seeds = FOLDER / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(target.seeds):
        (seeds / str(number)).write_bytes(seed)
    tried = accepted = 0

    def one_input(data: bytes) -> None:
        nonlocal tried, accepted
        tried += 1
        accepted += target.run(data)
        if tried % _OFTEN == 1:
            counts.write_text(json.dumps({"tried": tried, "accepted": accepted}))

    for seed in target.seeds:  # whatever takes long the first time does so here
        one_input(seed)
    atheris.Setup([sys.argv[0], str(seeds), *sys.argv[3:]], one_input)
    atheris.Fuzz()


main()
