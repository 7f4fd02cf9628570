from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from sentence_transformers import SparseEncoder
from transformers import BertModel

from sparse_sts_index import (
    DataError,
    ModelError,
    Pairs,
    SparseStsEncoder,
    TrainingError,
    TrainingSettings,
    load_pairs,
    train,
)
from sparse_sts_index.encoding.bundled import tiny_folder
from sparse_sts_index.evaluation.quality import evaluate_cosine
from sparse_sts_index.training import fine_tuning
from sparse_sts_index.training.checkpoints import Checkpoints, seal
from sparse_sts_index.training.model_card import TrainingReport, save
from sparse_sts_index.training.weight_averaging import AveragedWeights

if TYPE_CHECKING:
    from sparse_sts_index.training.progress import TrainingProgress
    from sparse_sts_index.vectors.spec import Precision

SETTINGS = TrainingSettings(base_model="tiny", learning_rate=2e-4, eval_steps=3, max_length=64)


def some(pairs: Pairs, count: int) -> Pairs:
    return Pairs(pairs.sentence1[:count], pairs.sentence2[:count], pairs.gold[:count])


@pytest.fixture(scope="module")
def splits() -> tuple[Pairs, Pairs, Pairs]:
    return tuple(
        some(load_pairs("sample", split), count) for split, count in (("train", 96), ("dev", 24), ("test", 24))
    )  # type: ignore[return-value]


@pytest.fixture(scope="module")
def trained(splits: tuple[Pairs, Pairs, Pairs], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "model"
    train(output, *splits, SETTINGS)
    return output


def test_the_saved_model(trained: Path, splits: tuple[Pairs, Pairs, Pairs], tiny: SparseStsEncoder) -> None:
    encoder = SparseStsEncoder.load(trained, precision="float32")
    report = json.loads((trained / "sparse_sts_training.json").read_text(encoding="utf-8"))
    assert encoder.fingerprint == report["fingerprint"] != tiny.fingerprint
    assert report["settings"] == dataclasses.asdict(SETTINGS)
    assert report["steps"] == 6
    for name, pairs in (("dev", splits[1]), ("test", splits[2])):
        measured = evaluate_cosine(encoder, pairs)
        assert report[name]["cosine"] == pytest.approx(dataclasses.asdict(measured.cosine))
        assert report[name]["active_dims"] == measured.active_dims
    assert encoder.model.max_seq_length == 64
    assert not list(trained.parent.glob("*.checkpoints"))
    assert not list(trained.parent.glob(".*"))


def test_plain_sentence_transformers_loads_it(trained: Path) -> None:
    sentences = ["A cat sleeps.", "The weather is fine."]
    model = SparseEncoder(str(trained))
    assert model.similarity_fn_name == "cosine"
    theirs = model.encode(sentences, convert_to_sparse_tensor=False).numpy()
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(
        SparseStsEncoder.load(trained, precision="float32").encode(sentences).toarray(), theirs, atol=1e-5
    )


def test_the_card_tells_what_was_measured_and_how(trained: Path) -> None:
    card = (trained / "README.md").read_text(encoding="utf-8")
    report = json.loads((trained / "sparse_sts_training.json").read_text(encoding="utf-8"))
    for split in ("dev", "test"):
        cosine = report[split]["cosine"]
        assert (
            f"| {split} | 24 | {cosine['pearson']:.4f} | {cosine['spearman']:.4f} | {report[split]['active_dims']:.1f}"
        ) in card
    for name, value in dataclasses.asdict(SETTINGS).items():
        assert f'"{name}": {json.dumps(value)}' in card


def test_the_front_matter_is_of_the_saved_model_too(trained: Path) -> None:
    front = yaml.safe_load((trained / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    report = json.loads((trained / "sparse_sts_training.json").read_text(encoding="utf-8"))
    (entry,) = front["model-index"]
    for result in entry["results"]:
        metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
        split = report[result["dataset"]["name"]]
        assert metrics["spearman_cosine"] == pytest.approx(split["cosine"]["spearman"])
        assert metrics["active_dims"] == pytest.approx(split["active_dims"])
    assert {result["dataset"]["name"] for result in entry["results"]} == {"dev", "test"}


def test_a_seed_decides_the_result(trained: Path, splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    again = train(tmp_path / "again", *splits, SETTINGS, progress=seen.append)
    assert again.fingerprint == SparseStsEncoder.load(trained).fingerprint
    assert [progress.step for progress in seen if progress.step] == sorted(p.step for p in seen if p.step)
    assert (seen[-1].step, seen[-1].total_steps) == (6, 6)
    assert seen[-1].dev_spearman is not None
    assert seen[-1].loss is not None
    other = train(tmp_path / "other", *splits, dataclasses.replace(SETTINGS, seed=7))
    assert other.fingerprint != again.fingerprint


@pytest.mark.parametrize(("dropout", "expected"), [(None, 0.1), (0.0, 0.0), (0.25, 0.25)])
def test_dropout_is_set_in_all_layers(dropout: float | None, expected: float) -> None:
    model, _ = fine_tuning._load(dataclasses.replace(SETTINGS, dropout=dropout))
    found = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert found == {expected}


def test_the_average_of_the_weights_is_the_model(splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path) -> None:
    """Followed step by step beside the trainer, and the vocabulary is as it was."""
    settings = dataclasses.replace(SETTINGS, freeze_vocabulary=True, averaging=0.8, eval_steps=6)
    followed: list[dict[str, torch.Tensor]] = []

    class Follow(AveragedWeights):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            followed.append({name: weight.detach().clone() for name, weight in self._weights.items()})
            super().on_step_end(args, state, control, **kwargs)

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            followed.append({name: weight.detach().clone() for name, weight in self._weights.items()})
            super().on_train_begin(args, state, control, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "AveragedWeights", Follow)
        train(tmp_path / "model", *splits, settings)
    saved = SparseEncoder(str(tmp_path / "model")).state_dict()
    average = followed[0]
    for step, weights in enumerate(followed[1:], 1):
        decay = min(0.8, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    assert len(followed) == 7
    for name, weight in average.items():
        torch.testing.assert_close(saved[name], weight, atol=1e-6, rtol=1e-5)
        assert name.startswith("0.model.cls.predictions.bias") or not torch.equal(weight, followed[-1][name])
    base = SparseEncoder(str(tiny_folder())).state_dict()
    vocabulary = "0.model.bert.embeddings.word_embeddings.weight"
    assert torch.equal(saved[vocabulary], base[vocabulary])
    assert vocabulary not in average


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_without_dropout_takes_packed_layers(
    splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """In mixed precision, accelerate replaces the forward method of the model."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the modules were called")

    monkeypatch.setattr(BertModel, "forward", refused)
    settings = dataclasses.replace(SETTINGS, dropout=0.0, precision=precision, device="cpu")
    assert train(tmp_path / "model", *splits, settings).steps == 6
    with pytest.raises(AssertionError):
        train(tmp_path / "other", *splits, dataclasses.replace(settings, dropout=0.1))


@pytest.mark.parametrize("averaging", [0.0, 0.8])
def test_a_run_that_ends_before_its_model_is_saved(
    splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, averaging: float
) -> None:
    """All checkpoints but the best and the last go; the last one stays until the model is there."""
    settings = dataclasses.replace(SETTINGS, averaging=averaging, eval_steps=1, learning_rate=0.02)
    whole = train(tmp_path / "whole", *splits, settings)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    assert whole.best_step < 5
    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "model", *splits, settings)
    checkpoints = tmp_path / "model.checkpoints"
    left = {path.name for path in checkpoints.glob("*checkpoint-*")}
    assert left == {"checkpoint-6", f"checkpoint-{whole.best_step}"}
    (checkpoints / "checkpoint-5").mkdir()  # of which a killed run has removed the rest
    shutil.copy(checkpoints / "checkpoint-6" / "trainer_state.json", checkpoints / "checkpoint-5")
    resumed = train(tmp_path / "model", *splits, settings, resume=True)
    assert resumed.fingerprint == whole.fingerprint
    assert resumed.best_step == whole.best_step
    assert {path.name for path in tmp_path.iterdir()} == {"model", "whole"}


def test_a_checkpoint_with_a_flipped_bit(splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "model", *splits, SETTINGS, progress=_interrupt_at(4))
    checkpoint = tmp_path / "model.checkpoints" / "checkpoint-3"
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != "sha256.json"]
    assert len(files) > 8
    for file in files:
        kept = file.read_bytes()
        place = len(kept) // 2
        file.write_bytes(kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
        with pytest.raises(TrainingError, match=f"cannot resume: .*{file.name} is not as it was written"):
            train(tmp_path / "model", *splits, SETTINGS, resume=True)
        file.write_bytes(kept)
    (checkpoint / "sha256.json").write_text("{}")
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(tmp_path / "model", *splits, SETTINGS, resume=True)


def test_half_a_checkpoint_is_none(splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "model", *splits, SETTINGS, progress=_interrupt_at(4))
    (tmp_path / "model.checkpoints" / "checkpoint-3" / "modules.json").unlink()
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(tmp_path / "model", *splits, SETTINGS, resume=True)


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("averaging", [0.0, 0.8])
@pytest.mark.parametrize("size", [10 << 20, 20 << 20])  # less than the model, and than what the optimizer keeps
def test_checkpoints_that_do_not_fit(
    splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path, size: int, averaging: float
) -> None:
    settings = dataclasses.replace(SETTINGS, averaging=averaging)
    with files_of_at_most(size), pytest.raises(TrainingError, match="cannot write a checkpoint to .*model.checkpoints"):
        train(tmp_path / "model", *splits, settings)
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "model", *splits, settings, progress=_interrupt_at(4))
    with files_of_at_most(size), pytest.raises(TrainingError, match="cannot write a checkpoint"):
        train(tmp_path / "model", *splits, settings, resume=True)
    assert Checkpoints(tmp_path / "model.checkpoints").last().endswith("-3")  # type: ignore[union-attr]


def test_a_model_that_does_not_fit(trained: Path, tmp_path: Path) -> None:
    report = TrainingReport(SETTINGS, None, 1, 1, 1, 1.0, "", None, None)  # type: ignore[arg-type]
    model = SparseEncoder(str(trained))
    with files_of_at_most(10 << 20), pytest.raises(TrainingError, match="cannot save the model to .*model"):
        save(model, report, tmp_path / "model", overwrite=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"dropout": 0.0, "averaging": 0.8},
        {"freeze_vocabulary": True, "averaging": 0.8},
        {"freeze_vocabulary": True, "averaging": 0.8, "teacher": "minilm", "teacher_epochs": 0.5},
    ],
)
def test_every_kind_of_run_can_be_resumed(
    splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path, more: dict[str, Any]
) -> None:
    settings = dataclasses.replace(SETTINGS, **more)
    whole = train(tmp_path / "whole", *splits, settings)
    assert whole.steps == 6
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "model", *splits, settings, progress=_interrupt_at(4))
    (raw,) = (tmp_path / "model.checkpoints").glob("trained-*.safetensors")
    kept = raw.read_bytes()
    for damaged in (None, kept[: len(kept) // 2]):  # the trained weights are lost, or cut short: never a quiet restart
        raw.unlink() if damaged is None else raw.write_bytes(damaged)
        with pytest.raises(TrainingError, match="cannot resume: .*trained-3.safetensors cannot be read"):
            train(tmp_path / "model", *splits, settings, resume=True)
    raw.write_bytes(kept)
    resumed = train(tmp_path / "model", *splits, settings, resume=True)
    assert resumed.fingerprint == whole.fingerprint


def test_unlabelled_sentences_need_a_teacher(splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="of use with a teacher only"):
        train(tmp_path / "model", *splits, SETTINGS, unlabelled=["A sentence."])
    with pytest.raises(TrainingError, match="a similarity floor is of use with a teacher only"):
        train(tmp_path / "model", *splits, dataclasses.replace(SETTINGS, similarity_floor=0.2))


def _interrupt_at(step: int) -> Callable[[TrainingProgress], None]:
    def interrupt(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return interrupt


class Touch:
    """What a pickle does when it is read: makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self._path, "w")


def _pickle_by_its_own_settings(checkpoint: Path, mark: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save({"x": Touch(mark)}, checkpoint / "pytorch_model.bin")
    for name, change in (
        ("sentence_bert_config.json", {"model_args": {"weights_only": False, "dtype": "auto"}}),
        ("config.json", {"dtype": None}),
    ):
        values = json.loads((checkpoint / name).read_text()) | change
        (checkpoint / name).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def test_a_checkpoint_of_a_stranger_runs_nothing(splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path) -> None:
    output, mark = tmp_path / "model", tmp_path / "mark"
    with pytest.raises(KeyboardInterrupt):
        train(output, *splits, SETTINGS, progress=_interrupt_at(4))
    folder = tmp_path / "model.checkpoints"
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    damages: dict[str, Callable[[Path], object]] = {
        "optimizer": lambda checkpoint: torch.save({"x": Touch(mark)}, checkpoint / "optimizer.pt"),
        "scheduler": lambda checkpoint: torch.save({"x": Touch(mark)}, checkpoint / "scheduler.pt"),
        "seeds": lambda checkpoint: torch.save({"x": Touch(mark)}, checkpoint / "rng_state.pth"),
        "weights": lambda checkpoint: _pickle_by_its_own_settings(checkpoint, mark),
        "cut": lambda checkpoint: (checkpoint / "model.safetensors").write_bytes(b"\0" * 100),
        "empty": lambda checkpoint: (checkpoint / "optimizer.pt").write_bytes(b""),
        "modules": lambda checkpoint: (checkpoint / "modules.json").write_text(
            json.dumps([{"idx": 0, "name": "0", "path": "", "type": "os.system"}])
        ),
        "elsewhere": lambda checkpoint: (checkpoint / "trainer_state.json").write_text(
            json.dumps({"best_model_checkpoint": str(tmp_path)})
        ),
    }
    for name, damage in damages.items():
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        damage(next(folder.glob("checkpoint-*")))
        seal(next(folder.glob("checkpoint-*")))
        with pytest.raises((TrainingError, ModelError)) as refused:
            train(output, *splits, SETTINGS, resume=True)
        assert "\n" not in str(refused.value), name
        assert not mark.exists(), name
        assert not output.exists(), name


def test_an_interrupted_run_goes_on_to_the_same_end(
    trained: Path, splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path
) -> None:
    output = tmp_path / "model"

    with pytest.raises(KeyboardInterrupt):
        train(output, *splits, SETTINGS, progress=_interrupt_at(4))
    assert not output.exists()
    with pytest.raises(TrainingError, match="an interrupted run is in .*model.checkpoints"):
        train(output, *splits, SETTINGS)
    other_data = (some(splits[0], 95), *splits[1:])
    with pytest.raises(TrainingError, match=r"it was started with data [0-9a-f]+ \(now"):
        train(output, *other_data, SETTINGS, resume=True)
    with pytest.raises(ModelError, match="no model folder"):  # a slip of the pen costs no checkpoint
        train(output, *splits, dataclasses.replace(SETTINGS, base_model="./nosuch"), overwrite=True)
    with pytest.raises(TrainingError, match=r"it was started with learning_rate 0.0002 \(now 0.1\)"):
        train(output, *splits, dataclasses.replace(SETTINGS, learning_rate=0.1), resume=True)
    for step, state in ((4, None), (5, '{"epoch": 0.')):  # of who was killed while writing them
        unfinished = tmp_path / "model.checkpoints" / f"checkpoint-{step}"
        unfinished.mkdir()
        if state is not None:
            (unfinished / "trainer_state.json").write_text(state)
    resumed = train(output, *splits, SETTINGS, resume=True)
    assert resumed.fingerprint == SparseStsEncoder.load(trained).fingerprint
    assert not (tmp_path / "model.checkpoints").exists()


def test_early_stopping_and_no_test(splits: tuple[Pairs, Pairs, Pairs], tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-12, epochs=3, eval_steps=2, patience=1)
    report = train(tmp_path / "model", splits[0], splits[1], None, settings)
    assert report.test is None
    assert report.steps < 18
    assert report.best_step == 2


def test_refusals_leave_nothing(splits: tuple[Pairs, Pairs, Pairs], trained: Path, tmp_path: Path) -> None:
    unscored = Pairs(["a"], ["b"], None)
    for pairs in ((unscored, splits[1]), (splits[0], unscored)):
        with pytest.raises(DataError, match="no scores"):
            train(tmp_path / "model", *pairs, settings=SETTINGS)
    same = Pairs(["a", "b"], ["c", "d"], np.array([0.5, 0.5]))
    for pairs in ((splits[0], same, splits[2]), (*splits[:2], same)):
        with pytest.raises(DataError, match="at least two different scores"):
            train(tmp_path / "model", *pairs, settings=SETTINGS)
    with pytest.raises(ModelError, match="no model folder"):
        train(tmp_path / "model", *splits, dataclasses.replace(SETTINGS, base_model="./nosuch"))
    with pytest.raises(TrainingError, match="device meta cannot be used"):
        train(tmp_path / "model", *splits, dataclasses.replace(SETTINGS, device="meta"))
    with pytest.raises(TrainingError, match="device nonsense cannot be used"):
        train(tmp_path / "model", *splits, dataclasses.replace(SETTINGS, device="nonsense"))
    with pytest.raises(TrainingError, match="max length 513 is beyond the base model's 512"):
        train(tmp_path / "model", *splits, dataclasses.replace(SETTINGS, max_length=513))
    with pytest.raises(TrainingError, match="cannot report to nonsense"):
        train(tmp_path / "model", *splits, SETTINGS, report_to=["nonsense"])
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(tmp_path / "model", *splits, SETTINGS, resume=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainingError, match="already holds a model"):
        train(trained, *splits, SETTINGS)
    with pytest.raises(TrainingError, match="nothing to resume: .* is complete"):
        train(trained, *splits, SETTINGS, resume=True)
    (tmp_path / "model.checkpoints").mkdir()
    (tmp_path / "model.checkpoints" / "thesis.txt").write_text("all there is of it")
    for overwrite in (False, True):
        with pytest.raises(TrainingError, match="is where checkpoints would go, but it is something else"):
            train(tmp_path / "model", *splits, SETTINGS, overwrite=overwrite)
    assert (tmp_path / "model.checkpoints" / "thesis.txt").exists()
    (tmp_path / "letter.txt").write_text("dear diary")
    with pytest.raises(TrainingError, match="is not a model and not empty"):
        train(tmp_path, *splits, SETTINGS, overwrite=True)
