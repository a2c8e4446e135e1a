"""GRU4Rec, BERT4Rec, two-tower averages and RecBole's models give the scores of their own code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from models.adapters.bert4rec import bert4rec
from models.adapters.checkpoint import read_checkpoint
from models.adapters.gru4rec import gru4rec
from models.adapters.recbole import recbole
from models.adapters.two_tower import two_tower
from models.errors import BundleError
from tests.adapters.originals import Bert4recOriginal, Gru4recOriginal, RecboleOriginal, TwoTowerOriginal
from tests.adapters.written import largest_difference, written

NOISE = 1e-5


@pytest.mark.parametrize(("layers", "embedding"), [((16,), 0), ((24, 16), 0), ((16,), 12), ((8, 24), 12)])
def test_gru4rec(layers: tuple[int, ...], embedding: int, tmp_path: Path) -> None:
    original = Gru4recOriginal(30, layers, embedding).randomised(len(layers))
    adapted = gru4rec(original.state_dict(), max_length=24)
    model = written(tmp_path, adapted)
    assert not model.has_attention
    # The original reads sessions of any length: only those that fit are the same.
    fitting = Gru4recOriginal(30, layers, embedding)
    fitting.load_state_dict(original.state_dict())
    fitting.score_all = lambda session: original.score_all(session[-24:])  # type: ignore[method-assign]
    assert largest_difference(model, adapted, fitting, empty=True) < NOISE


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (3, 4)])
def test_bert4rec(layers: int, heads: int, tmp_path: Path) -> None:
    original = Bert4recOriginal(30, 16, 13, layers, heads).randomised(layers)
    adapted = bert4rec(original.state_dict(), heads=heads)
    model = written(tmp_path, adapted)
    assert (model.max_length, model.layers, model.heads) == (12, layers, heads)
    assert largest_difference(model, adapted, original, empty=True) < NOISE


@pytest.mark.parametrize("shared", [True, False])
def test_two_tower(shared: bool, tmp_path: Path) -> None:
    original = TwoTowerOriginal(30, 16, shared=shared).randomised(0)
    adapted = two_tower(original.state_dict(), max_length=8)
    assert largest_difference(written(tmp_path, adapted), adapted, original, empty=True) < NOISE


@pytest.mark.parametrize(
    ("kind", "layers", "heads", "act"),
    [
        ("SASRec", 2, 2, "gelu"),
        ("SASRec", 3, 1, "swish"),
        ("GRU4Rec", 1, 1, ""),
        ("GRU4Rec", 2, 1, ""),
        ("BERT4Rec", 2, 2, "gelu"),
        ("BERT4Rec", 1, 4, "relu"),
    ],
)
def test_recbole(kind: str, layers: int, heads: int, act: str, tmp_path: Path) -> None:
    original = RecboleOriginal(kind, 30, 16, 10, layers, heads, act).randomised(layers)
    settings = {"model": kind, "n_heads": heads, "hidden_act": act or None, "MAX_ITEM_LIST_LENGTH": 10}
    adapted = recbole(original.state_dict(), settings)
    assert adapted.max_length == 10
    assert largest_difference(written(tmp_path, adapted), adapted, original) < NOISE


def test_an_older_bert4rec_of_recbole_is_refused() -> None:
    weights = RecboleOriginal("BERT4Rec", 30, 16, 10, 1, 1, "gelu").state_dict()
    older = {name: each for name, each in weights.items() if not name.startswith("output")}
    with pytest.raises(BundleError, match=r"BERT4Rec of RecBole 1\.2"):
        recbole(older, {"model": "BERT4Rec"})


class Config:
    """An object as trainers store it beside the weights."""

    def __init__(self) -> None:
        self.final_config_dict = {"n_heads": 4, "device": torch.device("cpu"), "score": np.float64(0.5)}


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('ran the checkpoint')",)


def test_a_checkpoint_is_read_without_its_code(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(3, 2)
    torch.save({"config": Config(), "state_dict": {"a.weight": torch.nn.Parameter(weight)}, "harm": _Harmful()},
               tmp_path / "model.pth")  # fmt: skip
    weights, settings = read_checkpoint(tmp_path / "model.pth")
    assert list(weights) == ["a.weight"]
    np.testing.assert_array_equal(weights["a.weight"], weight)
    assert settings["n_heads"] == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [(torch.nn.Linear(2, 2), "class Linear: save the model's state_dict"), ({"epoch": 3}, "got something else")],
)
def test_what_is_no_state_dict_is_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(BundleError, match=message):
        read_checkpoint(tmp_path / "model.pth")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pickle.dump([1], buffer)
    (tmp_path / "model.pth").write_bytes(b"text")
    with pytest.raises(BundleError, match=r"a file of torch\.save"):
        read_checkpoint(tmp_path / "model.pth")
    with pytest.raises(BundleError, match="correct the path"):
        read_checkpoint(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("family", "message"),
    [(gru4rec, "without Wy.weight"), (two_tower, r"got a \[3\]"), (lambda w: bert4rec(w, heads=1), "without bert")],
)
def test_the_weights_of_another_model_are_refused(family: object, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        family({"a": torch.zeros(3)})  # type: ignore[operator]
