"""Numbers from users: each one in its range, finite, and of the right kind, or refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given, strategies as st
from sparse_sts_index.cli.main import main

from sparse_sts_index import Quantizer
from sparse_sts_index._utils.numbers import LARGEST, check_real, check_whole
from sparse_sts_index.engines.retry import BackOff
from sparse_sts_index.search.certified import check_search
from sparse_sts_index.search.similarity_join import check_threshold
from sparse_sts_index.server.settings import ServerSettings
from sparse_sts_index.training.settings import TrainingSettings

NOT_FINITE = ["nan", "-nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e400"]
NOT_WHOLE = [*NOT_FINITE, "1.5", "1e3", "", " ", "0x10", "--", "ten", "10" * 40, "-" + "10" * 40]


def numeric_types() -> Iterator[tuple[str, click.ParamType]]:
    for name, command in main.commands.items():
        for param in command.params:
            for kind in getattr(param.type, "types", [param.type]):
                if isinstance(kind, click.types.FloatParamType | click.types.IntParamType):
                    yield f"{name} {param.opts[0]}", kind


TYPES = dict(numeric_types())


def test_every_command_with_numbers_is_tried() -> None:
    assert len(TYPES) > 40
    assert {"train --learning-rate", "search -k", "duplicates --threshold", "calibrate --scale"} <= TYPES.keys()


@pytest.mark.parametrize("option", TYPES)
def test_options_refuse_what_is_no_number(option: str) -> None:
    kind = TYPES[option]
    whole = isinstance(kind, click.types.IntParamType)
    if option == "search -k":  # more than there are: all
        assert kind.convert("10" * 40, None, None) == int("10" * 40)
        return
    for value in NOT_WHOLE if whole else [*NOT_FINITE, "", "ten"]:
        with pytest.raises(click.BadParameter):
            kind.convert(value, None, None)
    largest = 2**32 - 1 if "seed" in option else LARGEST
    with pytest.raises(click.BadParameter):
        kind.convert(str(largest + 1) if whole else "1e309", None, None)


@pytest.mark.parametrize("settings", [TrainingSettings, ServerSettings, BackOff])
def test_settings_refuse_what_is_no_number(settings: type[Any]) -> None:
    names = [
        field.name
        for field in dataclasses.fields(settings)
        if isinstance(field.type, str) and field.type.split(" |")[0] in ("int", "float")
    ]
    assert len(names) >= 4
    for name in names:
        for value in (math.nan, math.inf, -math.inf, -1, "1", True, 1j, [1], Decimal("nan")):
            with pytest.raises(ValueError, match=f"^{name} must be "):
                settings(**{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, -1, 1.5, "1", None, True, [1], 1j])
def test_parameters_refuse_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="^k must be a whole number, at least 1, not "):
        check_search(value, "exact")
    with pytest.raises(ValueError, match="^threshold must be a finite number, above 0 and at most 1, not "):
        check_threshold(value)
    with pytest.raises(ValueError, match="^bits must be a whole number, 2 to 16, not "):
        Quantizer(value)


@given(st.one_of(st.floats(), st.integers(), st.booleans()), st.integers(-9, 9), st.integers(0, 9))
def test_ranges_are_those_of_arithmetic(value: Any, low: int, width: int) -> None:
    number = not isinstance(value, bool) and math.isfinite(value)
    inside = number and low <= value <= low + width
    for check, allowed in (
        (lambda: check_real("x", value, low, low + width), inside),
        (lambda: check_real("x", value, low, low + width, above=True), inside and value > low),
        (lambda: check_whole("x", value, low, low + width), inside and isinstance(value, int)),
    ):
        if allowed:
            check()
        else:
            with pytest.raises(ValueError, match="^x must be a"):
                check()


def test_numbers_of_numpy_are_numbers() -> None:
    check_whole("x", np.int64(3), 0)
    check_real("x", np.float32(0.5), 0, 1)
    check_real("x", np.int8(1), 0, 1)
