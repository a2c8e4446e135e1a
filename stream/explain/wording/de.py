"""German. Quotation marks after CLDR's delimiters for de."""

from __future__ import annotations

from stream.explain.wording.phrases import Phrases

PHRASES = Phrases(
    language="de",
    version=2,
    quotes=("„", "“"),
    inner_quotes=("‚", "‘"),  # noqa: RUF001 - quotation marks, as meant
    messages={
        "watch_history": "Weil du {actions} hast.",
        "action.view": "{titles} angesehen",
        "action.like": "{titles} mit „Gefällt mir“ markiert",
        "action.complete": "{titles} zu Ende gesehen",
        "action.share": "{titles} geteilt",
        "action.skip": "{titles} übersprungen",
        "action.other": "{titles} aufgerufen",
        "counterfactual": "Ohne {title} stünde dieser Titel auf dem {without} statt auf dem {rank} Platz.",
        "counterfactual.by_score": (
            "Ohne {title} stünde dieser Titel nach Punkten auf dem {without} statt auf dem {rank} Platz."
        ),
        "counterfactual.equal": (
            "Ohne {title}, alles andere gleich, stünde dieser Titel auf dem {without} statt auf dem {rank} Platz."
        ),
        "counterfactual.equal.by_score": (
            "Ohne {title}, alles andere gleich, stünde dieser Titel nach Punkten auf dem {without} statt dem {rank} "
            "Platz."
        ),
        "trending.rising": "Im Trend in deiner Region: steigt schneller als {percent} aller Titel.",
        "trending.popular": "Beliebt: wird öfter angesehen als {percent} aller Titel.",
        "personalized": "Für dich empfohlen.",
        "basis.personal": "Ganz überwiegend nach deinen eigenen Gewohnheiten ausgewählt.",
        "basis.mixed": (
            "Vor allem nach deinen Gewohnheiten ausgewählt, zum Teil auch danach, wie der Titel bei anderen ankommt."
        ),
        "basis.popular": "Zu einem guten Teil danach ausgewählt, wie der Titel bei anderen ankommt.",
        "recourse.history": (
            "Du möchtest so etwas seltener sehen? Entferne {titles} aus deinem Verlauf: Dieser Titel würde dir dann "
            "wahrscheinlich nicht angezeigt."
        ),
        "recourse.category": "Du möchtest so etwas seltener sehen? Sieh dir weniger aus {category} an.",
    },
    plurals={
        "category_match": {
            "one": "Du hast {count} Titel aus {category} angesehen, und das zählte hier.",
            "other": "Du hast {count} Titel aus {category} angesehen, und das zählte hier.",
        },
    },
    ordinals={"other": "{number}."},
)
