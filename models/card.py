"""The model card: training data, ranking metrics, attention and effects, and limitations of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.session.describe import Causes
from models.session.evaluate import Metrics

if TYPE_CHECKING:
    from models.session.heads import Head  # which needs torch

_SERVED_ANYWAY = (
    "\n\nThe {best} ranks better. The {served} is served nevertheless, because the effect of each event on its scores "
    "can be computed exactly and efficiently, as verified explanations require."
)


@dataclass(frozen=True)
class Training:
    """One trained model: its weights without embeddings, its epochs, and the duration of its training in seconds."""

    model: str
    weights: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Facts:
    """The content of a card.

    rank maps the names of models to their metrics on the same held-out histories; the first model is the one served.
    """

    model_version: str
    title: str
    data: Mapping[str, str]
    rank: Mapping[str, Metrics]
    trainings: Sequence[Training]
    reranker: Mapping[str, float]
    heads: Sequence[Head]
    causes: Causes | None
    limits: Sequence[str]
    command: str


def render(facts: Facts) -> str:
    """Write the card as Markdown."""
    sections = [
        f"# {facts.model_version}\n\n{facts.title}",
        "## Data\n\n" + _table(("", ""), facts.data.items()),
        _ranking(facts),
        _trainings(facts.trainings),
        _reranker(facts.reranker),
    ]
    if facts.causes is not None:
        sections.append(_causes(facts.causes))
    if facts.heads:
        sections.append(heads_section(facts.heads))
    sections.append("## Limits\n\n" + "\n".join(f"- {limit}" for limit in facts.limits))
    sections.append(
        "## Again\n\nThe same versions of all libraries, on the same kind of machine, give the same bundle:\n\n"
        f"    {facts.command}"
    )
    return "\n\n".join(sections) + "\n"


def with_section(card: str, section: str) -> str:
    """Replace the section whose heading is the first line of section, or insert section before the limits."""
    heading = section.partition("\n")[0]
    before, found, rest = card.partition(f"{heading}\n")
    if not found:
        before, found, rest = card.partition("## Limits\n")
        return f"{before}{section}\n\n{found}{rest}"
    _, following, rest = rest.partition("\n## ")
    return f"{before}{section}\n{following}{rest}"


def citing(margin: float, ageing: float, share: float, impressions: int, target: float, command: str) -> str:
    """Write the section on the citation margin and its calibration."""
    wanted = f"{100 * target:g}% of the impressions a citation"
    found = f"{share:.1%} of {impressions:,} held-out ones"
    how = f"It is the largest margin that leaves {wanted}: {found}."
    if share < target:
        how = f"No margin leaves {wanted}; this one does {found}."
    older = f" For the nth newest event the margin is n to the power of {ageing:g} times as large." if ageing else ""
    return (
        "## What may be cited\n\n"
        "A past event is cited only where hiding it, deleting it and blanking it each lower the item's score by more "
        f"than the margin, {margin:g} of the spread of session scores, and by more than a quarter of it relative to "
        f"the slate.{older} {how}\n\n"
        f"    {command}"
    )


def _ranking(facts: Facts) -> str:
    histories = next(iter(facts.rank.values())).histories
    rows = [
        (name, *(f"{value:.4f}" for value in (each.hit_at_10, each.ndcg_at_10, each.mrr)))
        for name, each in facts.rank.items()
    ]
    best = max(facts.rank, key=lambda name: facts.rank[name].ndcg_at_10)
    served = next(iter(facts.rank))
    verdict = "" if best == served else _SERVED_ANYWAY.format(best=best, served=served)
    error = max((each.hit_at_10 * (1 - each.hit_at_10) / each.histories) ** 0.5 for each in facts.rank.values())
    return (
        "## How well it ranks\n\n"
        f"The newest event of {histories:,} histories of held-out users is predicted from the events before it. The "
        f"ranking is over all items, without sampling or exclusions. Standard error of Hit@10: at most {error:.4f}.\n\n"
        + _table(("", "Hit@10", "NDCG@10", "MRR"), rows)
        + verdict
    )


def _trainings(trainings: Sequence[Training]) -> str:
    rows = [(each.model, f"{each.weights:,}", f"{each.epochs}", f"{each.seconds:,.0f} s") for each in trainings]
    return (
        "## Training\n\nAll models have the same recipe. The epoch with the best NDCG@10 on validation users is kept. "
        "The number of weights excludes the embeddings.\n\n" + _table(("", "weights", "epochs", "time"), rows)
    )


def _reranker(metrics: Mapping[str, float]) -> str:
    rows = [
        ("re-ranker", f"{metrics['auc']:.4f}", f"{metrics['ndcg10']:.4f}"),
        ("session score alone", f"{metrics['auc_session_score']:.4f}", f"{metrics['ndcg10_session_score']:.4f}"),
    ]
    return (
        "## Re-ranker\n\n"
        f"{metrics['trees']:.0f} trees, trained on {metrics['slates']:,.0f} slates of users who were not in the "
        f"session model's training, and evaluated on {metrics['test_slates']:,.0f} slates of other users. A candidate "
        "is positive if the user liked, finished or shared it within the next five events "
        f"({metrics['engaged_share']:.1%} of candidates).\n\n" + _table(("", "AUC", "NDCG@10"), rows)
    )


def _causes(causes: Causes) -> str:
    rows = [] if causes.score_drop is None else [("largest drop without the event", f"{causes.score_drop:.3f}")]
    rows += [
        ("always the newest event", f"{causes.newest:.3f}"),
        *([] if causes.attention is None else [("largest attention", f"{causes.attention:.3f}")]),
        ("at random", f"{causes.random:.3f}"),
    ]
    return (
        "## Which event led to the next one\n\n"
        "The cause of each event is known, since the histories are simulated. How often a method ranks the true cause "
        f"first, in {causes.histories:,} histories of more than 10 events whose next item is in the model's top 20:\n\n"
        + _table(("", "share"), rows)
    )


def heads_section(heads: Sequence[Head]) -> str:
    """Write the section on attention and effect of each head."""
    rows = [
        (
            f"{each.layer}.{each.head}",
            each.attention.kind,
            *(f"{value:.2f}" for value in (each.attention.entropy, each.attention.recency, each.attention.category)),
            each.effect.kind,
            *(f"{value:.2f}" for value in (each.effect.entropy, each.effect.recency, each.effect.category)),
            f"{each.largest_effect:.2f}",
        )
        for each in heads
    ]
    return (
        "## Where the heads look, and what they do\n\n"
        "In held-out histories of at least 10 events: the attention from the newest event, and the effect, which is "
        "the change of the best item's score when an event is masked in that head only. Focused: normalised entropy "
        "below 0.5; else recency: correlation with the order of the events above 0.6; else category: more than half of "
        "the weight on the best item's category; else distributed. Attention is not evidence of an effect.\n\n"
        + _table(
            (
                *("head", "attention", "entropy", "recency", "category"),
                *("effect", "entropy", "recency", "category", "largest, logits"),
            ),
            rows,
        )
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
