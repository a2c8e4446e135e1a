"""The margin: as large as it can be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.bundle import Bundle, revise
from models.card import with_section
from models.errors import BundleError
from stream.commands.models import app
from stream.evaluation.calibrate import calibrate
from stream.explain.pipeline import Explainer
from stream.settings import BUNDLED_MODEL
from tests.bundles import tiny_bundle, tiny_impression

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("asked", [0.3, 0.6])
def test_the_largest_margin_that_leaves_enough(asked: float, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle(tmp_path))
    slates = [tiny_impression(bundle, session=12, items=8, seed=seed) for seed in range(20)]
    found = calibrate(bundle, slates, asked)

    def share(margin: float) -> float:
        explainer = Explainer(replace(bundle, manifest=replace(bundle.manifest, citation_margin=margin)))
        items = [item for each in explainer.explain(slates) for item in each["items"]]
        return sum(bool(item["evidence"]["history"]) for item in items) / len(items)

    assert found.impressions == 160
    assert share(found.margin) == pytest.approx(found.confirmed_share)
    assert share(1.1 * found.margin) < asked <= found.confirmed_share


def test_a_share_that_no_margin_leaves_is_called_so(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_MODEL, tmp_path, dirs_exist_ok=True)
    printed = CliRunner().invoke(app, ["calibrate", str(tmp_path), "--n", "20", "--share", "1"])
    assert printed.exception is None, printed.output
    assert "margin 0:" in printed.output
    assert "no margin leaves it to 100.0%" in printed.output
    assert "No margin leaves 100% of the impressions a citation; this one does" in Bundle.load(tmp_path).card


def test_a_revised_bundle_has_its_old_models(tmp_path: Path) -> None:
    before = Bundle.load(tiny_bundle(tmp_path))
    after = revise(tmp_path, card="# tiny\n\nLooked at again.\n", citation_margin=0.125)
    assert after.manifest.citation_margin == 0.125
    assert after.card.endswith("again.\n")
    changed = {file for file, pin in after.manifest.files.items() if before.manifest.files[file] != pin}
    assert changed == {"card.md"}
    assert not list(tmp_path.glob("*.new"))


def test_a_damaged_bundle_is_not_revised(tmp_path: Path) -> None:
    tiny_bundle(tmp_path)
    (tmp_path / "reranker.txt").write_text("something else")
    with pytest.raises(BundleError, match=r"reranker.txt: expected SHA-256"):
        revise(tmp_path, card="", citation_margin=0.0)


def test_a_section_of_a_card_takes_the_place_of_its_former_self() -> None:
    card = "# a\n\n## One\n\n1\n\n## Limits\n\n- few\n"
    longer = with_section(card, "## Two\n\n2")
    assert longer == "# a\n\n## One\n\n1\n\n## Two\n\n2\n\n## Limits\n\n- few\n"
    assert with_section(longer, "## Two\n\n22") == longer.replace("\n2\n", "\n22\n")
    assert with_section(card, "## Limits\n\n- none") == "# a\n\n## One\n\n1\n\n## Limits\n\n- none\n"
