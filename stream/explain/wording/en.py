"""English. Quotation marks after CLDR's delimiters for en."""

from __future__ import annotations

from stream.explain.wording.phrases import Phrases

PHRASES = Phrases(
    language="en",
    version=2,
    quotes=("“", "”"),
    inner_quotes=("‘", "’"),  # noqa: RUF001 - quotation marks, as meant
    messages={
        "watch_history": "Because you {actions}.",
        "action.view": "watched {titles}",
        "action.like": "liked {titles}",
        "action.complete": "finished {titles}",
        "action.share": "shared {titles}",
        "action.skip": "skipped {titles}",
        "action.other": "opened {titles}",
        "counterfactual": "Without {title}, this would be {without}, not {rank}.",
        "counterfactual.by_score": "Without {title}, this would be {without} by score, not {rank}.",
        "counterfactual.equal": "All else being equal, without {title} this would be {without}, not {rank}.",
        "counterfactual.equal.by_score": (
            "All else being equal, without {title} this would be {without} by score, not {rank}."
        ),
        "trending.rising": "Trending in your region: rising faster than {percent} of all titles.",
        "trending.popular": "Popular: watched more than {percent} of all titles.",
        "personalized": "Recommended for you.",
        "basis.personal": "Chosen mainly by your own habits.",
        "basis.mixed": "Chosen mostly by your own habits, and in part by how it does with others.",
        "basis.popular": "Chosen in good part by how it does with others.",
        "recourse.history": (
            "To see less like this, take {titles} out of your history: this would then probably not be shown."
        ),
        "recourse.category": "To see less like this, watch less in {category}.",
    },
    plurals={
        "category_match": {
            "one": "You watched {count} title in {category}, and that counted here.",
            "other": "You watched {count} titles in {category}, and that counted here.",
        },
    },
    ordinals={"one": "{number}st", "two": "{number}nd", "few": "{number}rd", "other": "{number}th"},
)
