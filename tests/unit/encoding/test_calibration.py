from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from sparse_sts_index import DataError, ModelError, Pairs, SparseStsEncoder, SparseStsIndex, evaluate, load_pairs
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.encoding.calibration import CALIBRATION_FILE, Calibration, calibrate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder(), tmp_path / "model"))


def test_is_scikit_learn_s_map_and_monotone(tiny: SparseStsEncoder) -> None:
    pairs = load_pairs("sample", "train")
    calibration, report = calibrate(tiny, pairs, scale=(1.0, 4.0))
    cosines = tiny.score_pairs(pairs.sentence1, pairs.sentence2)
    theirs = IsotonicRegression(y_min=1, y_max=4, out_of_bounds="clip").fit(cosines, 1 + 3 * pairs.gold)
    asked = np.linspace(-0.1, 1.1, 500)
    np.testing.assert_allclose(calibration(asked), theirs.predict(asked), atol=1e-9)
    assert (np.diff(calibration(asked)) >= 0).all()
    assert calibration(asked).min() >= 1
    assert calibration(asked).max() <= 4
    # held-out error: better than stretching, worse than on the pairs that were fitted
    fitted = np.abs(calibration(cosines) - (1 + 3 * pairs.gold)).mean()
    assert fitted < report.calibrated_error < report.linear_error


def test_travels_with_the_model(folder: Path, tmp_path: Path) -> None:
    assert SparseStsEncoder.load(folder).calibration is None
    plain = SparseStsEncoder.load(folder, precision="float32")
    calibration, _ = calibrate(plain, load_pairs("sample", "dev"))
    calibration.save(folder)
    encoder = SparseStsEncoder.load(folder, precision="float32")
    assert encoder.calibration == calibration
    assert encoder.fingerprint == plain.fingerprint
    assert SparseStsEncoder.load(folder, max_active_dims=8).calibration is None  # other cosines
    result = evaluate(encoder, load_pairs("sample", "test"))
    assert result.calibrated is not None
    assert result.calibrated.scale == (0, 5)
    SparseStsIndex.build(tmp_path / "index", ["A cat sleeps.", "Dogs bark."], folder).close()
    with SparseStsIndex.open(tmp_path / "index") as index:
        (hits,) = index.search(["A cat is asleep."], explain=True)
        assert [hit.score for hit in hits] == [calibration(np.array(hit.cosine)) for hit in hits]
        assert hits[0].explanation
        (same,) = index.search_vectors(encoder.encode(["A cat is asleep."]))
        assert {hit.score for hit in same} == {None}


def test_another_model_s_is_refused(folder: Path, tiny: SparseStsEncoder) -> None:
    Calibration((0.0, 1.0), (0.0, 5.0), (0.0, 5.0), "f" * 64, 20).save(folder)
    with pytest.raises(ModelError, match="is of another model; calibrate it again"):
        SparseStsEncoder.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cosines": [0.5, 0.1]}, "no monotone map"),
        ({"cosines": [0.0, 0.5, 1.0]}, "cannot be read|no monotone map"),
        ({"cosines": []}, "cannot be read|no monotone map"),
        ({"scores": "high"}, "cannot be read"),
        ({"scores": [float("nan"), 1.0]}, "no monotone map"),
        ({"scale": [0]}, "cannot be read"),
    ],
)
def test_damaged_ones_are_refused(folder: Path, change: dict[str, object], message: str) -> None:
    values = {"cosines": [0.0, 1.0], "scores": [0.0, 5.0], "scale": [0, 5], "model_fingerprint": "x", "pairs": 20}
    (folder / CALIBRATION_FILE).write_text(json.dumps({**values, **change}), encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        SparseStsEncoder.load(folder)


def test_needs_pairs_that_say_something(tiny: SparseStsEncoder) -> None:
    few = load_pairs("sample", "dev")
    with pytest.raises(DataError, match="at least 20 pairs, not 3"):
        calibrate(tiny, Pairs(few.sentence1[:3], few.sentence2[:3], few.gold[:3]))
    with pytest.raises(DataError, match="two different"):
        calibrate(tiny, Pairs(["a"] * 20, ["b"] * 20, np.linspace(0, 1, 20)))
    with pytest.raises(DataError, match="no scores"):
        calibrate(tiny, Pairs(["a"] * 20, ["b"] * 20, None))
    with pytest.raises(ValueError, match="scale 5 0"):
        calibrate(tiny, few, scale=(5, 0))
