"""The bundles that whyrec can train, and the descriptive texts of their cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.session.config import Recipe

TRAINING_SEED = 20_251_101  # of the simulated training histories; load generators and the demo use small seeds


@dataclass(frozen=True)
class Plan:
    """How to train a bundle, and the descriptive texts of its card.

    Attributes:
        name: name of the bundle.
        version: version of the bundle.
        title: one paragraph on models and data, for the card.
        command: the command that trains the bundle, for the card.
        data: facts on the data, for the card.
        limits: limitations, for the card.
        recipe: training of the session model.
        dropout: of the session model.
        citation_margin: the margin before calibration, in spreads of the session scores.
        score_tolerance: largest difference between equal scores on different machines, in their spread.
        citation_ageing: growth of the margin with the age of an event; see Manifest.
        cited_share: share of impressions that the calibrated margin should leave a citation.
        baseline: whether to train the LSTM for comparison.
        threads: number of threads.
        slates_per_history: training slates of the re-ranker.
        trees: maximum number of trees of the re-ranker.
        lightgbm: LightGBM parameters of the re-ranker that replace the defaults.
        statistics_of_all: whether item statistics come from all histories, for data with few users, or only from those
            on which the re-ranker is trained.

    """

    name: str
    version: str
    title: str
    command: str
    data: Mapping[str, str]
    limits: tuple[str, ...]
    recipe: Recipe = field(default_factory=Recipe)
    dropout: float = 0.1
    citation_margin: float = 0.1
    score_tolerance: float = 1e-3
    citation_ageing: float = 0.0
    cited_share: float = 0.66
    baseline: bool = True
    threads: int = 1
    slates_per_history: int = 2
    trees: int = 200
    lightgbm: Mapping[str, float | bool] = field(default_factory=dict)
    statistics_of_all: bool = False


SIMULATED = Plan(
    name="streamrec",
    version="1",
    title=(
        "A session transformer and a re-ranker for StreamRec, a streaming service that does not exist: its items, "
        "titles and users are invented. For demonstrations, tests and measurements: it is known what led to what."
    ),
    command="whyrec models train --simulated --out DIR",
    data={
        "source": "simulated (models/data/simulator.py)",
        "session model learns from": "80 % of the users",
        "epoch and re-ranker are chosen on": "10 % of the users",
        "figures below": "10 % of the users",
    },
    limits=(
        "The users are simulated: figures say how well the models fit this simulator, not how they would do on people.",
        "An item that is not in the catalogue cannot be recommended or cited.",
        "At most the newest 50 events of a session are read.",
        "Titles, categories and popularity are invented; any likeness to real titles is by chance.",
    ),
    recipe=Recipe(epochs=2, events_per_batch=1024, rate=2e-3),
)

MOVIELENS = Plan(
    name="movielens",
    version="1",
    title=(
        "A session transformer and a re-ranker for MovieLens 100K (F. M. Harper and J. A. Konstan, ACM TiiS 5(4), "
        "2015): real ratings from 1997 and 1998. The data's licence forbids redistribution and commercial use; that "
        "holds for this bundle, which names its films."
    ),
    command="whyrec models train --movielens DIR --out DIR",
    data={
        "source": "MovieLens 100K; ratings 5, 4, 3 are like, complete, view, lower ones skip",
        "session model learns from": "80 % of the users, in windows of 50 ratings",
        "epoch is chosen on": "10 % of the users, a history ending at every fifth rating",
        "re-ranker learns from": "the same 10 %",
        "figures below": "10 % of the users, a history ending at every fifth rating",
        "never read": "age, gender, occupation, postcode",
    },
    limits=(
        (
            "Ratings were given in sittings, many per minute, often in the order in which the site listed films: what "
            "came next says less about taste than about that list."
        ),
        "943 users of one site, almost thirty years ago.",
        "At most the newest 50 events of a session are read.",
    ),
    # Blanking any share of a session regularises the training: without it, so few users are soon overfitted.
    recipe=Recipe(
        epochs=40,
        events_per_batch=1024,
        rate=1.5e-3,
        weight_decay=0.05,
        blank=(0.0, 1.0),
        # Without faded sessions, integrated gradients confirm fewer citations, and the number depends on the seed.
        faded=0.5,
        average=0.999,
    ),
    dropout=0.3,
    # Integrated gradients seldom confirm the score drop of an old rating, so that old ratings need a larger margin.
    citation_ageing=1.0,
    cited_share=0.65,
    # That share needs a small margin, which must be larger than the differences between two machines' scores.
    score_tolerance=2e-4,
    # With 8 slates per history and LightGBM's defaults, the re-ranker was worse than the session score alone.
    slates_per_history=40,
    trees=600,
    lightgbm={"learning_rate": 0.02, "extra_trees": True, "feature_fraction": 0.3},
    statistics_of_all=True,
)
