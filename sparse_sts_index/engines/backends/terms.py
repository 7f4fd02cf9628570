"""Terms as feature names, and weights as Lucene's feature fields hold them.

Elasticsearch and OpenSearch find a feature by what follows the last ``.`` of a path, so no name may hold one. A term is
percent-encoded where it has to be, and nowhere else: ``3.5`` is ``3%2E5``, ``##ing`` stays. That is reversible, so no
two terms ever share a name.
"""

from __future__ import annotations

import functools
import re

import numpy as np
from numpy.typing import NDArray

#: The dot, the escape itself, controls (NUL among them), and white space of all kinds: it breaks lines, or is trimmed.
_UNSAFE = re.compile(r"[.%\s\x00-\x20\x7f-\xa0]")
_EMPTY = "%"  # which no encoded term is

#: A feature's weight keeps 9 significant bits; rounded to the nearest, it is this much off, relatively, at most.
FEATURE_ERROR = 2.0**-9


@functools.lru_cache(maxsize=1 << 18)
def escape(term: str) -> str:
    """The feature name of a term.

    Parameters
    ----------
    term : str
        Any text without unpaired surrogates, such as :attr:`.Vocabulary.terms` hold.

    Returns
    -------
    str
        Not empty, without ``.``, white space and controls. Different for different terms.
    """
    return _UNSAFE.sub(_percent, term) or _EMPTY


def feature_weights(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    r"""Weights rounded to the nearest that Lucene's ``FeatureField`` can hold.

    It stores the upper 17 bits of a float's 32: sign, exponent and 8 bits of the significand, which has one more that
    is implied. The others it cuts off, so weights would come out too low, by up to :math:`2^{-8}` of themselves.
    Rounded beforehand, to even where two are as near, they lose nothing there, and are off by at most half a step:
    :math:`2^{e-9}` for weights from :math:`2^e` to :math:`2^{e+1}`, so :math:`|\hat v_t - v_t| \le 2^{-9} v_t`.

    Parameters
    ----------
    weights : ndarray of float32
        Not negative, finite.

    Returns
    -------
    ndarray of float32
    """
    bits = weights.view(np.uint32)
    rounded = (bits + 0x3FFF + ((bits >> 15) & 1)) & np.uint32(0xFFFF8000)
    return rounded.astype(np.uint32).view(np.float32)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())
