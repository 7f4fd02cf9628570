"""Put a trained model into the package: ``python release/box.py FOLDER NAME``; it prints the bytes.

Weights are stored in float16, which halves them. What training wrote of its machine stays out, and so does the card
that it wrote: the README.md of a model in the package is written by hand.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

MODELS = Path(__file__).parents[1] / "sparse_sts_index" / "models"
WEIGHTS = "model.safetensors"
FILES = (
    "1_SpladePooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def box(trained: Path, folder: Path) -> int:
    """Copy a model's files, its weights as float16; return how many bytes they have."""
    for file in FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(trained / file, folder / file)
    weights = {name: weight.half() for name, weight in load_file(trained / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    return sum((folder / file).stat().st_size for file in (*FILES, WEIGHTS))


if __name__ == "__main__":
    source, name = sys.argv[1:]
    sys.stdout.write(f"{name}: {box(Path(source), MODELS / name):,} bytes\n")
