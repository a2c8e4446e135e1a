"""What contract 2 lets an owner say: words, roles, meanings, groups, biases, and models that lack a part."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from models.bundle import Bundle, Catalog, Engagement
from models.check import check
from models.feature import Feature
from schemas.codec import Codec
from stream.explain.pipeline import Explainer
from tests.bundles import tiny_bundle, tiny_catalog, tiny_impression, tiny_reranker
from tests.explain.test_removals import CONSTANT, SMALL, WEIGHTS, mean_bundle
from tests.graphs import mean_graph, reduced

WORDS = (
    Engagement("play", "neutral", {"en": "played {titles}", "de": "{titles} gehört"}),
    Engagement("add_to_library", "positive", {"en-GB": "added {titles} to your library"}),
    Engagement("search"),
    Engagement("rating"),
    Engagement("dismiss", "negative"),
)
FEATURES = (
    Feature("hour", "context", "Time of day", group="When"),
    Feature("trend", "item", "How fast it rises", meaning="trend", scale=1.0),
    Feature("fit", "session", "How well it fits"),
    Feature("age_band", "user", "Age", is_personal=False, is_sensitive=True),
    Feature("weekday", "context", "Day of the week", group="When"),
    Feature("evenings", "user", "How often you listen at night", is_actionable=True,
            advice={"en": "To hear less of this, listen less at night."}),
)  # fmt: skip


def owned(folder: Path, **changes: Any) -> Bundle:
    parts: dict[str, Any] = {
        "engagements": WORDS, "features": FEATURES, "reranker_text": tiny_reranker(FEATURES), "feature_set": "theirs",
    }  # fmt: skip
    return Bundle.load(tiny_bundle(folder, **parts | changes))


def explained(bundle: Bundle, seeds: int = 12, **changes: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    slates = [tiny_impression(bundle, session=7, items=10, seed=seed) | changes for seed in range(seeds)]
    return list(zip(slates, Explainer(bundle).explain(slates), strict=True))


def texts(bundle: Bundle, **changes: Any) -> str:
    return " ".join(item["text"] for _, each in explained(bundle, **changes) for item in each["items"])


def test_engagements_are_named_in_the_owners_words(tmp_path: Path) -> None:
    bundle = owned(tmp_path)
    english, american, german = (texts(bundle, locale=locale) for locale in ("en-GB", "en-US", "de-AT"))
    assert "Because you played “" in english
    assert "added “" in english
    assert "to your library" in english
    assert "added “" not in american, "the verb is that of British English only"
    assert "gehört" in german
    assert "opened “" in english, "a word without a verb has the language's general one"


def test_an_engagement_of_a_negative_role_is_never_cited(tmp_path: Path) -> None:
    for impression, explanation in explained(owned(tmp_path)):
        for item in explanation["items"]:
            for citation in item["evidence"]["history"]:
                assert impression["session"][citation["event"]]["engagement"] != "dismiss"


def test_features_count_by_their_meaning_wherever_they_stand(tmp_path: Path) -> None:
    bundle = owned(tmp_path)
    assert bundle.session_column == 2
    for impression, explanation in explained(bundle, detail=True):
        for sent, item in zip(impression["items"], explanation["items"], strict=True):
            assert item["status"] != "model_mismatch"
            shown = {each["name"]: each for each in item["evidence"]["features"]}
            assert "age_band" not in shown
            assert not {"hour", "weekday"} & set(shown), "their group is shown instead"
            ledger = {each["name"]: each["contribution"] for each in item["detail"]["features"]}
            if "When" in shown:
                together = ledger["hour"] + ledger["weekday"]
                assert shown["When"]["contribution"] == pytest.approx(together, abs=1e-6)
            sizes = {name: abs(value) for name, value in ledger.items()}
            personal = (sizes["fit"] + sizes["evenings"]) / sum(sizes.values())
            assert item["evidence"]["personal_share"] == pytest.approx(personal, abs=1e-5)
            if item["type"] == "trending" and "rising faster" in item["text"]:
                assert sent["item_features"][0] > 0.95


def test_advice_on_a_habit_is_the_owners_and_true(tmp_path: Path) -> None:
    advice = {
        item["detail"]["recourse"]["text"]
        for _, explanation in explained(owned(tmp_path), seeds=20, detail=True)
        for item in explanation["items"]
        if item["detail"] and item["detail"]["recourse"] and item["detail"]["recourse"]["kind"] == "feature"
    }
    assert advice <= {"To hear less of this, listen less at night."}


def test_a_permuted_list_of_features_gives_the_same_explanations(tmp_path: Path) -> None:
    """The trees are the same: only the numbers of their columns change."""
    first = owned(tmp_path / "first")
    order = [4, 2, 0, 5, 1, 3]
    header, rest = first.reranker_text.read_text().split("\nTree=0", 1)
    moved = {old: new for new, old in enumerate(order)}
    names = " ".join(FEATURES[old].name for old in order)
    infos = next(line for line in header.splitlines() if line.startswith("feature_infos=")).partition("=")[2].split()
    header = "\n".join(
        f"feature_names={names}" if line.startswith("feature_names=")
        else f"feature_infos={' '.join(infos[old] for old in order)}" if line.startswith("feature_infos=") else line
        for line in header.splitlines()
    )  # fmt: skip
    rest = "\n".join(
        "split_feature=" + " ".join(str(moved[int(each)]) for each in line.partition("=")[2].split())
        if line.startswith("split_feature=") else line
        for line in rest.split("\n")
    )  # fmt: skip
    second = owned(
        tmp_path / "second", features=[FEATURES[old] for old in order], reranker_text=f"{header}\nTree=0{rest}"
    )
    slates = [tiny_impression(first, session=7, items=10, seed=seed) for seed in range(6)]
    context = [feature.name for feature in second.owned("context")]
    user = [feature.name for feature in second.owned("user")]
    again = copy.deepcopy(slates)
    for impression in again:
        impression["context_features"] = [impression["context_features"][["hour", "weekday"].index(n)] for n in context]
        impression["user_features"] = [impression["user_features"][["age_band", "evenings"].index(n)] for n in user]
    one, other = Explainer(first).explain(slates), Explainer(second).explain(again)
    for each, twin in zip(one, other, strict=True):
        for item, same in zip(each["items"], twin["items"], strict=True):
            assert (item["text"], item["evidence"]["history"]) == (same["text"], same["evidence"]["history"])
            assert item["evidence"]["residual"] == pytest.approx(same["evidence"]["residual"], abs=1e-9)


def test_several_categories_are_counted_and_the_one_watched_most_is_named(tmp_path: Path) -> None:
    plain = tiny_catalog()
    more = dict.fromkeys(range(1, len(plain) + 1, 2), ("Drama",))
    catalog = Catalog(plain.item_ids, plain.titles, plain.categories, plain.popularity, more)
    bundle = Bundle.load(tiny_bundle(tmp_path, catalog=catalog))
    assert bundle.catalog == bundle.catalog
    assert bundle.catalog.more_categories == more
    sessions = [tiny_impression(bundle, session=9, items=10, seed=seed) for seed in range(30)]
    named = 0
    for impression, explanation in zip(sessions, Explainer(bundle).explain(sessions), strict=True):
        for item in explanation["items"]:
            if item["type"] != "category_match":
                continue
            index = plain.item_ids.index(item["item_id"])
            counts = {}
            for category in (plain.categories[index], *more.get(index + 1, ())):
                seen = {
                    event["item_id"]
                    for event in impression["session"]
                    if event["engagement"] != "skip"
                    and category in (
                        plain.categories[plain.item_ids.index(event["item_id"])],
                        *more.get(plain.item_ids.index(event["item_id"]) + 1, ()),
                    )
                }  # fmt: skip
                counts[category] = len(seen)
            most = max(counts.values())
            assert any(
                f"{most} title" in item["text"] and f"“{name}”" in item["text"]
                for name in counts
                if counts[name] == most
            )
            named += 1
    assert named


def test_item_biases_are_part_of_every_score(tmp_path: Path) -> None:
    bias = np.random.default_rng(0).normal(size=len(WEIGHTS)).astype(np.float32)
    bias[0] = 0
    bundle = mean_bundle(tmp_path, item_bias=bias)
    for _, explanation in explained(bundle):
        assert "model_mismatch" not in {item["status"] for item in explanation["items"]}
    unbiased = mean_bundle(tmp_path / "without")
    slates = [tiny_impression(bundle, session=4, items=8, seed=seed) for seed in range(3)]
    for explanation in Explainer(unbiased).explain(slates):
        assert {item["mismatch"] for item in explanation["items"]} <= {"ranking_score", "other_items"}


def test_without_a_reranker_the_session_model_alone_is_explained(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path, reranker_text=None, features=())
    assert not bundle.has_reranker
    assert all(finding.fits is not False for finding in check(bundle.path))
    slates = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        session, slate = random.integers(1, 21, 4), 1 + random.permutation(20)[:8]
        scores = (WEIGHTS[slate] @ (CONSTANT + WEIGHTS[session].mean(axis=0))).astype(np.float32)
        order = np.argsort(-scores, kind="stable").tolist()
        ids = bundle.catalog.item_ids
        slates.append(
            {
                "request_id": f"00000000-0000-4000-8000-{seed:012d}", "timestamp_ms": 1_760_000_000_000,
                "user_id_hash": "0" * 16, "region": "GB", "locale": "en-GB", "feature_set": bundle.manifest.feature_set,
                "model_version": bundle.model_version, "user_features": [], "detail": True,
                "session": [{"item_id": ids[item - 1], "engagement": "view"} for item in session.tolist()],
                "items": [
                    {"item_id": ids[slate[row] - 1], "position": at, "ranking_score": float(scores[row]),
                     "item_features": []}
                    for at, row in enumerate(order, start=1)
                ],
            }
        )  # fmt: skip
    explanations = Explainer(bundle).explain(slates)
    statuses = {item["status"] for each in explanations for item in each["items"]}
    assert "verified" in statuses
    assert "model_mismatch" not in statuses
    for impression, each in zip(slates, explanations, strict=True):
        session = bundle.catalog.index([event["item_id"] for event in impression["session"]]).tolist()
        slate = bundle.catalog.index([item["item_id"] for item in impression["items"]])
        for place, item in enumerate(each["items"]):
            assert item["evidence"]["features"] == []
            assert item["evidence"]["basis"] is None
            for citation in item["evidence"]["history"]:
                left = session[: citation["event"]] + session[citation["event"] + 1 :]
                after = WEIGHTS[slate] @ (CONSTANT + WEIGHTS[left].mean(axis=0))
                rank = 1 + int((after > after[place] + 1e-6).sum())
                assert citation["rank_without"] == rank


@pytest.mark.parametrize(
    ("objective", "output"),
    [("poisson", "prediction"), ("tweedie", "prediction"), ("binary", "probability"), ("rf", "prediction"),
     ("reg_sqrt", "prediction"), ("lambdarank", "raw")],
)  # fmt: skip
def test_whatever_predict_gives_is_explained(tmp_path: Path, objective: str, output: str) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(2_000, 2))
    y = np.abs(X[:, 0] + 0.3 * X[:, 1] + 0.2 * random.normal(size=2_000)) + 0.1
    settings: dict[str, Any] = {"objective": objective, "verbosity": -1, "num_threads": 1, "num_leaves": 15}
    if objective == "rf":
        settings |= {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}
    if objective == "reg_sqrt":
        settings |= {"objective": "regression", "reg_sqrt": True}
    label = (y > 1).astype(float) if objective in ("binary", "lambdarank") else y
    group = [20] * 100 if objective == "lambdarank" else None
    features = (Feature("fit", "session", "Fit"), Feature("price", "item", "Price"))
    data = lightgbm.Dataset(X, label, group=group, feature_name=["fit", "price"], params={"verbosity": -1})
    text = str(lightgbm.train(settings, data, 30).model_to_string())
    bundle = mean_bundle(tmp_path, features=features, reranker_text=text, reranker_output=output)
    for _, explanation in explained(bundle, seeds=4):
        statuses = [item["status"] for item in explanation["items"]]
        assert "model_mismatch" not in statuses
        residuals = [item["evidence"]["residual"] for item in explanation["items"]]
        np.testing.assert_allclose(residuals, 0, atol=1e-4)


def test_a_model_without_attention_has_none_in_event_and_archive(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_from_string(reduced(mean_graph(WEIGHTS, CONSTANT)))
    kept = [output for output in model.graph.output if output.name != "attention"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    bundle = mean_bundle(tmp_path, session_onnx=model.SerializeToString())
    slates = [tiny_impression(bundle, session=5, items=8, seed=seed) | {"detail": True} for seed in range(6)]
    from schemas.columnar import from_records, to_records

    found = Explainer(bundle).run(from_records("impression", slates))
    for explanation, audit in zip(
        to_records("explanation", found.explanations), to_records("audit", found.audits), strict=True
    ):
        for item, entry in zip(explanation["items"], audit["entries"], strict=True):
            assert [each["attention"] for each in item["evidence"]["history"]] == [None] * len(
                item["evidence"]["history"]
            )
            assert entry["attention_top_2"] == []
            assert {event["attention"] for event in item["detail"]["events"]} == {None}
    assert Codec().encode_batch("explanation", found.explanations, "t")


def test_events_without_times_or_engagements_are_read(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path, engagements=())
    slates = [tiny_impression(bundle, session=5, items=8, seed=seed) | {"detail": True} for seed in range(4)]
    for impression in slates:
        impression["session"] = [{"item_id": event["item_id"]} for event in impression["session"]]
    for explanation in Explainer(bundle).explain(slates):
        assert "model_mismatch" not in {item["status"] for item in explanation["items"]}
        for item in explanation["items"]:
            assert {event["age_s"] for event in item["detail"]["events"]} == {None}
    assert SMALL.max_length == bundle.manifest.max_length


def test_the_session_score_of_the_ledger_and_recourse_count_item_biases(tmp_path: Path) -> None:
    bias = np.random.default_rng(3).normal(size=len(WEIGHTS), scale=3).astype(np.float32)
    bias[0] = 0
    bundle = mean_bundle(tmp_path, item_bias=bias)
    every, advised = np.arange(1, len(WEIGHTS)), 0
    for impression, explanation in explained(bundle, seeds=20, detail=True):
        session = bundle.catalog.index([event["item_id"] for event in impression["session"]]).tolist()
        shown = set(bundle.catalog.index([item["item_id"] for item in impression["items"]]).tolist())

        def scores(left: list[int]) -> Any:
            newest = left[-SMALL.max_length :]
            vector = CONSTANT + WEIGHTS[newest].mean(axis=0) if newest else np.zeros_like(CONSTANT)
            return WEIGHTS[every] @ vector + bias[every]

        def place(item: int, left: list[int], shown: set[int] = shown) -> int:
            found = scores(left)
            allowed = np.array([each not in left or each in shown for each in every.tolist()])
            return 1 + int((found[allowed] > found[item - 1] + 1e-4).sum())

        depth = max(place(item, session) for item in shown)
        for sent, item in zip(impression["items"], explanation["items"], strict=True):
            assert item["detail"]["session_score"] == pytest.approx(sent["ranking_score"], abs=1e-4)
            recourse = item["detail"]["recourse"]
            if recourse is None or recourse["kind"] != "history":
                continue
            left = [each for at, each in enumerate(session) if at not in recourse["events"]]
            index = int(bundle.catalog.index([item["item_id"]])[0])
            assert place(index, left) > depth
            advised += 1
    assert advised
