from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from sparse_sts_index._utils.files import folder_writer, from_sealed_json, to_sealed_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON, max_size=4), st.data())
def test_sealed_json(values: dict[str, object], data: st.DataObject) -> None:
    """It comes back as it was; with one bit flipped, or cut, it does not come back."""
    text = to_sealed_json(values)
    assert from_sealed_json(text) == values
    assert json.loads(text).items() >= values.items()
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(content), text.encode("utf-8", "surrogatepass")[:place]):
        with pytest.raises(ValueError):  # noqa: PT011
            from_sealed_json(damaged.decode("utf-8"))


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", '{"a": 1}', '{"sha256": ""}'])
def test_what_is_not_sealed(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        from_sealed_json(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with folder_writer(tmp_path / "out") as folder:
            (folder / "file").write_text(content)
        assert (tmp_path / "out" / "file").read_text() == content
    with pytest.raises(FileExistsError), folder_writer(tmp_path / "out") as folder:  # noqa: PT012
        (folder / "file").write_text("three")
        folder.mkdir()
    assert (tmp_path / "out" / "file").read_text() == "two"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_cannot_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("before")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space left"), folder_writer(tmp_path / "out") as folder:
        (folder / "file").write_text("after")
    assert (tmp_path / "out" / "file").read_text() == "before"
    assert names(tmp_path) == ["out"]


def test_empty_folder_is_replaced_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with folder_writer(tmp_path / "out", overwrite=False) as folder:
        (folder / "file").write_text("new")
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="not empty"), folder_writer(tmp_path / "out", overwrite=False):
        (tmp_path / "out" / "letter.txt").write_text("mine")
    assert (tmp_path / "out" / "letter.txt").read_text() == "mine"
    assert names(tmp_path) == ["out"]


def test_two_writers_of_one_folder(tmp_path: Path) -> None:
    with folder_writer(tmp_path / "out") as folder:
        (folder / "file").write_text("first")
        with pytest.raises(OSError, match="another process is writing there"), folder_writer(tmp_path / "out"):
            raise AssertionError
    assert (tmp_path / "out" / "file").read_text() == "first"
    with folder_writer(tmp_path / "out") as folder:
        assert names(folder) == []
        (folder / "file").write_text("second")
    assert (tmp_path / "out" / "file").read_text() == "second"
    assert names(tmp_path) == ["out"]


def test_an_interrupt_between_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("before")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        if self.name == "out":
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), folder_writer(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "file").read_text() == "before"
    assert names(tmp_path) == ["out"]


def test_what_a_killed_writer_left_is_not_in_the_next_folder(tmp_path: Path) -> None:
    (tmp_path / ".out.partial" / "sub").mkdir(parents=True)
    (tmp_path / ".out.partial" / "file").write_text("left")
    with folder_writer(tmp_path / "out"):
        pass
    assert names(tmp_path / "out") == []


def test_who_was_killed_between_two_renames_has_lost_nothing(tmp_path: Path) -> None:
    (tmp_path / ".out.replaced").mkdir()
    (tmp_path / ".out.replaced" / "file").write_text("before")
    (tmp_path / ".out.partial").mkdir()
    with pytest.raises(ZeroDivisionError), folder_writer(tmp_path / "out"):
        raise ZeroDivisionError
    assert (tmp_path / "out" / "file").read_text() == "before"
    assert names(tmp_path) == ["out"]
