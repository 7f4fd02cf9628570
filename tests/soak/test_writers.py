"""Several writers at one index: one of them writes, the others are told, and what was said to be added is there."""

from __future__ import annotations

import shutil

import faulty
import warm
from conftest import Faults
from looking import look
from test_kills import CHUNK, Setting, setting  # noqa: F401

from sparse_sts_index import read_corpus

WRITERS, ROUNDS, EACH = 4, 25, 3


def test_writers_at_the_same_time(setting: Setting, faults: Faults, share: float) -> None:  # noqa: F811
    row, idx = faults.row("several writers at once"), setting.folder / "idx"
    shutil.rmtree(idx, ignore_errors=True)
    shutil.copytree(setting.base, idx)
    expected = set(warm.call(look, idx).documents)
    sentences = [document.text for document in read_corpus("sample")]
    succeeded = refused = 0
    for turn in range(max(1, round(ROUNDS * share))):
        commands = []
        for writer in range(WRITERS):
            ids = [f"{turn}-{writer}-{number}" for number in range(EACH)]
            file = setting.file(f"writer-{writer}.jsonl", [(i, sentences[hash(i) % len(sentences)]) for i in ids])
            arguments = ["add", idx, file]
            commands.append((ids, warm.Command(arguments, chunk=CHUNK, folder=setting.folder)))
        for _, command in commands:
            command.go()
        for ids, command in commands:
            outcome = command.end()
            row.tried += 1
            if outcome.status == 0:
                succeeded += 1
                expected |= set(ids)
            elif faulty.one_line(outcome) and "another writer is at this index" in outcome.stderr:
                refused += 1
            else:
                row.unclear += 1
                faults.failed(str(outcome))
    found = warm.call(look, idx)
    row.lost += len(expected ^ set(found.documents))
    row.wrong += not found.answers
    row.notes = {"wrote": succeeded, "told to wait": refused}
    assert succeeded
    assert refused
