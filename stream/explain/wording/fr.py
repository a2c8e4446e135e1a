"""French. Quotation marks after CLDR's delimiters for fr, with the narrow no-break space that French sets inside."""

# ruff: noqa: RUF001 - quotation marks, apostrophes and no-break spaces, as meant
from __future__ import annotations

from stream.explain.wording.phrases import Phrases

PHRASES = Phrases(
    language="fr",
    version=2,
    quotes=("«\u202f", "\u202f»"),
    inner_quotes=("“", "”"),
    messages={
        "watch_history": "Parce que vous avez {actions}.",
        "action.view": "regardé {titles}",
        "action.like": "aimé {titles}",
        "action.complete": "terminé {titles}",
        "action.share": "partagé {titles}",
        "action.skip": "passé {titles}",
        "action.other": "ouvert {titles}",
        "counterfactual": "Sans {title}, ce titre serait à la {without} place et non à la {rank}.",
        "counterfactual.by_score": (
            "Sans {title}, ce titre serait par son score à la {without} place et non à la {rank}."
        ),
        "counterfactual.equal": (
            "Toutes choses égales par ailleurs, sans {title}, ce titre serait à la {without} place et non à la {rank}."
        ),
        "counterfactual.equal.by_score": (
            "Toutes choses égales par ailleurs, sans {title}, ce titre serait par son score à la {without} place et "
            "non à la {rank}."
        ),
        "trending.rising": "Tendance dans votre région\u00a0: progresse plus vite que {percent} des titres.",
        "trending.popular": "Populaire\u00a0: plus regardé que {percent} des titres.",
        "personalized": "Recommandé pour vous.",
        "basis.personal": "Choisi principalement d’après vos propres habitudes.",
        "basis.mixed": (
            "Choisi surtout d’après vos propres habitudes, et en partie d’après l’accueil que lui font les autres."
        ),
        "basis.popular": "Choisi en bonne partie d’après l’accueil que lui font les autres.",
        "recourse.history": (
            "Pour voir moins de titres de ce genre, retirez {titles} de votre historique\u00a0: celui-ci ne serait "
            "alors probablement plus proposé."
        ),
        "recourse.category": (
            "Pour voir moins de titres de ce genre, regardez moins de titres de la catégorie {category}."
        ),
    },
    plurals={
        "category_match": {
            "one": "Vous avez regardé {count} titre de la catégorie {category}, et cela a compté ici.",
            "many": "Vous avez regardé {count} de titres de la catégorie {category}, et cela a compté ici.",
            "other": "Vous avez regardé {count} titres de la catégorie {category}, et cela a compté ici.",
        },
    },
    # Of a place, la place.
    ordinals={"one": "{number}re", "other": "{number}e"},
)
