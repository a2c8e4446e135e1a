"""Similar moments: earlier points of this user, or points shared by many users, and what was watched next."""

from __future__ import annotations

import numpy as np

from models.exemplars.moments import Moment, own_moments, shared_moments
from schemas.events import SimilarMoment
from stream.explain.models import Models
from stream.explain.score import Scores
from stream.explain.slates import Slates, watched


def similar_moments(slates: Slates, scores: Scores, models: Models, slate: int) -> list[SimilarMoment]:
    """List the moments most similar to that of a slate, the most similar first; all of its items have the same.

    The user's own moments lie within the history that the model reads now. At each of them, the model read the events
    up to that moment, older ones included.
    """
    histories, catalog = slates.histories, models.bundle.catalog
    columns = slice(histories.first_column(slate), None)
    items, engagements = histories.item[slate, columns], histories.engagement[slate, columns]
    events, interest = slates.event[slate, columns], watched(histories, models.bundle)[slate, columns]
    if histories.older is not None:
        older = slice(histories.older.first_column(slate), None)
        items = np.concatenate([histories.older.item[slate, older], items])
        engagements = np.concatenate([histories.older.engagement[slate, older], engagements])
        events = np.concatenate([slates.older_event[slate, older], events])
        interest = np.concatenate([np.zeros(histories.older.length[slate], dtype=np.bool_), interest])
    present = scores.reading.vector[slate]
    mine = own_moments(models.session, items, engagements, interest, present)

    def similar(moment: Moment) -> SimilarMoment:
        return SimilarMoment(
            event=int(events[moment.position]) if moment.position >= 0 else -1,
            similarity=moment.similarity,
            next_item_id=catalog.item_ids[moment.next_item - 1],
            next_title=catalog.titles[moment.next_item - 1],
            whose="own" if moment.position >= 0 else "others",
        )

    found = [*mine, *shared_moments(models.exemplars, present)]
    return [similar(moment) for moment in sorted(found, key=lambda moment: -moment.similarity)]
