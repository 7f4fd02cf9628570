"""The data embedded in this package: 360 graded sentence pairs and a collection of 1,000 sentences.

Written for this project (Apache-2.0, like the code): twelve domains from support tickets to astronomy, graded 0 to 5 by
meaning. Enough to try every command offline; too small to rank models by.
"""

from pathlib import Path

SAMPLE = "sample"
SAMPLE_FOLDER = Path(__file__).parent
SAMPLE_COLLECTION = SAMPLE_FOLDER / "collection.jsonl"
SAMPLE_SCORE_RANGE = (0.0, 5.0)
