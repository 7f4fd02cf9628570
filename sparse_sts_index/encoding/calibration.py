"""From cosine to the scale that people grade on, by a monotone map that is stored with the model.

A cosine ranks; what it means to a person (is 0.62 "roughly the same"?) differs from model to model. Isotonic regression
fits the non-descending map with the least squared error (Barlow et al. 1972; Zadrozny and Elkan 2002 for calibration),
here scikit-learn's. It changes no order, so Spearman's rho stays, but for pairs that it maps to the same score.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparse_sts_index._utils.files import atomic_writer
from sparse_sts_index.errors import ModelError

if TYPE_CHECKING:
    from sparse_sts_index.data.pairs import Pairs
    from sparse_sts_index.encoding.encoder import SparseStsEncoder

#: The file in the model's folder.
CALIBRATION_FILE = "sparse_sts_calibration.json"
_LEAST_PAIRS = 20
_FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """A piecewise linear, non-descending map from cosine to score.

    Attributes
    ----------
    cosines : tuple of float, length n
        Ascending. Between two of them the map is linear, beyond the ends it is constant.
    scores : tuple of float, length n
        The score at each of them, on the scale; non-descending.
    scale : (float, float)
        Lowest and highest score of the scale.
    model_fingerprint : str
        Of the model whose cosines these are; see :attr:`.encoding.encoder.SparseStsEncoder.fingerprint`.
    pairs : int
        How many it was fitted to.
    """

    cosines: tuple[float, ...]
    scores: tuple[float, ...]
    scale: tuple[float, float]
    model_fingerprint: str
    pairs: int

    def __call__(self, cosines: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of cosines: ndarray of float64 of the same shape."""
        return np.interp(cosines, self.cosines, self.scores)

    def save(self, folder: str | Path) -> None:
        """Put it into a model's folder, in place of the one that is there.

        Raises
        ------
        DataError
            It cannot be written.
        """
        with atomic_writer(Path(folder) / CALIBRATION_FILE) as file:
            json.dump(dataclasses.asdict(self), file, indent=1)

    @classmethod
    def of_folder(cls, folder: str | Path) -> Calibration | None:
        """The calibration in a model's folder, if there is one.

        Raises
        ------
        ModelError
            The file is there and is no calibration.
        """
        path = Path(folder) / CALIBRATION_FILE
        if not path.is_file():
            return None
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            low, high = (float(value) for value in values["scale"])
            calibration = cls(
                tuple(float(value) for value in values["cosines"]),
                tuple(float(value) for value in values["scores"]),
                (low, high),
                str(values["model_fingerprint"]),
                int(values["pairs"]),
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ModelError(f"{path} cannot be read as a calibration") from error
        columns = calibration.cosines, calibration.scores
        whole = len(columns[0]) == len(columns[1]) > 0 and bool(np.isfinite(columns).all())
        if not whole or not all((np.diff(column) >= 0).all() for column in columns):
            raise ModelError(f"{path} is no monotone map")
        if not (math.isfinite(high - low) and low <= calibration.scores[0] and calibration.scores[-1] <= high):
            raise ModelError(f"{path} has scores beyond its scale")
        return calibration


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration is worth, on pairs that it was not fitted to.

    Attributes
    ----------
    linear_error : float
        Mean distance from the gold score, on the scale, of a cosine that is only stretched to it.
    calibrated_error : float
        The same of calibrated scores, by five-fold cross-validation.
    linear_pearson, calibrated_pearson : float
        Pearson's r with the gold scores, likewise.
    """

    linear_error: float
    calibrated_error: float
    linear_pearson: float
    calibrated_pearson: float


def calibrate(
    encoder: SparseStsEncoder, pairs: Pairs, *, scale: tuple[float, float] = (0.0, 5.0)
) -> tuple[Calibration, CalibrationReport]:
    """Fit a map from a model's cosine to gold scores. Use pairs that the model was not trained on.

    Parameters
    ----------
    encoder : SparseStsEncoder
    pairs : Pairs
        With scores.
    scale : (float, float)
        Lowest and highest score to give.

    Raises
    ------
    DataError
        The pairs have no scores, or are fewer than 20, or all their cosines or scores are equal.
    ValueError
        The scale's first number is not below its second.
    """
    from sklearn.model_selection import KFold

    low, high = scale
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"scale {low:g} {high:g}: the first number must be below the second")
    gold = low + pairs.gold * (high - low)
    if len(pairs) < _LEAST_PAIRS:
        raise pairs.error(f"calibration needs at least {_LEAST_PAIRS} pairs, not {len(pairs)}")
    cosines = encoder.score_pairs(pairs.sentence1, pairs.sentence2)
    if np.ptp(cosines) == 0 or np.ptp(gold) == 0:
        raise pairs.error("calibration needs pairs with at least two different cosines and scores")
    calibration = Calibration(*isotonic(cosines, gold, scale), scale, encoder.fingerprint, len(pairs))
    held_out = np.empty_like(cosines)
    for fitted, left_out in KFold(_FOLDS, shuffle=True, random_state=0).split(cosines):
        held_out[left_out] = np.interp(cosines[left_out], *isotonic(cosines[fitted], gold[fitted], scale))
    linear = low + cosines * (high - low)
    report = CalibrationReport(
        linear_error=float(np.abs(linear - gold).mean()),
        calibrated_error=float(np.abs(held_out - gold).mean()),
        linear_pearson=float(np.corrcoef(linear, gold)[0, 1]),
        calibrated_pearson=float(np.corrcoef(held_out, gold)[0, 1]),
    )
    return calibration, report


def isotonic(
    cosines: NDArray[np.float64], gold: NDArray[np.float64], scale: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The non-descending, piecewise linear map of least squared error: its corners' cosines, and their scores."""
    from sklearn.isotonic import IsotonicRegression

    fitted: Any = IsotonicRegression(y_min=scale[0], y_max=scale[1]).fit(cosines, gold)
    return tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())
