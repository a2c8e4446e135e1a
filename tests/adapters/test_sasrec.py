from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.adapters.sasrec import Variant, sasrec
from models.errors import BundleError
from tests.adapters.originals import SasrecOriginal, load
from tests.adapters.written import largest_difference, sessions_around, written

NOISE = 1e-5
CHECKPOINT = Path(__file__).parents[3] / "shared/data/sasrec-ml-1m"

VARIANTS: list[tuple[Variant, str, int]] = [
    ("original", "relu", 1),
    ("original", "gelu", 2),
    ("2020", "relu", 2),
    ("pre-norm", "relu", 2),
    ("pre-norm", "gelu", 1),
    ("post-norm", "relu", 4),
]


@pytest.mark.parametrize(("variant", "activation", "heads"), VARIANTS)
def test_at_free_length_the_scores_are_those_of_the_padded_window(
    variant: Variant, activation: str, heads: int, tmp_path: Path
) -> None:
    original = SasrecOriginal(30, 16, 12, 3, heads, variant, activation).randomised(heads)
    adapted = sasrec(original.state_dict(), heads=heads, variant=variant, activation=activation)  # type: ignore[arg-type]
    model = written(tmp_path, adapted)
    assert model.max_length == 12
    assert largest_difference(model, adapted, original, empty=True) < NOISE
    wrong = sasrec(original.state_dict(), heads=heads, variant="post-norm" if variant == "pre-norm" else "pre-norm")
    assert largest_difference(written(tmp_path / "wrong", wrong), wrong, original) > 100 * NOISE


@pytest.mark.slow
def test_the_public_checkpoint_scores_as_its_own_code_does(tmp_path: Path) -> None:
    if not CHECKPOINT.is_dir():
        pytest.skip("the public SASRec checkpoint is not beside this checkout")
    [file] = CHECKPOINT.iterdir()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    original = load(SasrecOriginal(3416, 50, 200, 2, 1, "original"), weights)
    adapted = sasrec(weights)
    model = written(tmp_path, adapted)
    assert largest_difference(model, adapted, original, empty=True) < NOISE


def test_attention_is_that_of_the_newest_event_without_the_share_of_padding(tmp_path: Path) -> None:
    original = SasrecOriginal(30, 16, 12, 2, 2, "original").randomised(1)
    model = written(tmp_path, sasrec(original.state_dict(), heads=2))
    for session in sessions_around(model, 30):
        kept = np.array([session[-12:]], dtype=np.int64)
        attention = model.run(kept, np.ones_like(kept), without=False).attention
        assert attention is not None
        assert attention.shape == (1, 2, 2, kept.shape[1])
        total = attention.sum(axis=-1)
        assert (total <= 1 + 1e-5).all()
        assert (total > 1 - 1e-5).all() == (kept.shape[1] == 12)


def test_masking_an_event_is_a_run_in_which_no_other_position_attends_to_it(tmp_path: Path) -> None:
    original = SasrecOriginal(30, 16, 12, 1, 2, "pre-norm").randomised(2)
    adapted = sasrec(original.state_dict(), heads=2, variant="pre-norm")
    model = written(tmp_path, adapted)
    items = np.array([[3, 9, 27, 4]], dtype=np.int64)
    mask = np.array([[True, False, True, True]])
    masked = model.run(items, np.ones_like(items), without=False, event_mask=mask).vector[0]
    # With one block only the newest position matters, whose attention is shared out among the other keys.
    window = np.zeros((1, 12), dtype=np.int32)
    window[0, -4:] = items[0]
    layer = original.attention_layers[0]
    future = ~torch.tril(torch.ones((12, 12), dtype=torch.bool))
    future[:, -3] = True
    original.attention_layers[0] = _Masked(layer, future)
    with torch.inference_mode():
        expected = original.log2feats(window)[0, -1].numpy()
    np.testing.assert_allclose(masked, expected, atol=1e-5)


class _Masked(torch.nn.Module):
    """Attention under another mask than the one that is given."""

    def __init__(self, layer: torch.nn.Module, mask: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.mask = layer, mask

    def forward(self, *rows: torch.Tensor, attn_mask: torch.Tensor) -> object:
        del attn_mask
        return self.layer(*rows, attn_mask=self.mask.fill_diagonal_(fill_value=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "heads to divide the width 16"),
        ({"variant": "2019"}, "a variant out of original, 2020, pre-norm, post-norm"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    weights = SasrecOriginal(30, 16, 12, 1, 1, "original").randomised(0).state_dict()
    with pytest.raises(BundleError, match=message):
        sasrec(weights, **change)  # type: ignore[arg-type]


def test_the_weights_of_another_model_are_refused() -> None:
    with pytest.raises(BundleError, match=r"without pos_emb\.weight, last_layernorm\.weight"):
        sasrec({"item_emb.weight": torch.zeros(3, 2)})
