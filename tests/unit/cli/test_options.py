from __future__ import annotations

import click
import pytest
from sparse_sts_index.cli.options import Bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("1GiB", 1 << 30),
        ("2 gb", 2 << 30),
        ("1.5M", 3 << 19),
        ("3k", 3072),
        ("1TiB", 1 << 40),
        (" 7B ", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert Bytes().convert(text, None, None) == size


@pytest.mark.parametrize(
    "text", ["", "-1", "5i", "5iB", "1e9", "GiB", "1 PiB", "1GiBB", "nan", "1,5G", "\u0661G", "9" * 30]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size such as 2GiB or 512MiB"):
        Bytes().convert(text, None, None)
