"""A plugin of pytest for `make mutation`: what kills a mutant is to do so soon.

Tests without a folder or an index of their own come first, and hypothesis stops at the first counterexample. It draws
the same examples in every run, so that a mutant that lives once lives always.
"""

from __future__ import annotations

import gc

import pytest
from hypothesis import Phase, settings

settings.register_profile("mutation", settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("mutation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = {"tiny", "sample_index", "tmp_path", "tmp_path_factory"}
    items.sort(key=lambda item: len(slow.intersection(getattr(item, "fixturenames", ()))))
    gc.freeze()  # what a fork inherits is not to be looked through again, and copied
