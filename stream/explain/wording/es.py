"""Spanish. Quotation marks after CLDR's delimiters for es."""

from __future__ import annotations

from stream.explain.wording.phrases import Phrases

PHRASES = Phrases(
    language="es",
    version=2,
    quotes=("«", "»"),
    inner_quotes=("“", "”"),
    messages={
        "watch_history": "Porque {actions}.",
        "action.view": "viste {titles}",
        "action.like": "le diste «Me gusta» a {titles}",
        "action.complete": "terminaste {titles}",
        "action.share": "compartiste {titles}",
        "action.skip": "te saltaste {titles}",
        "action.other": "abriste {titles}",
        "counterfactual": "Sin {title}, este título estaría en la {without} posición, no en la {rank}.",
        "counterfactual.by_score": (
            "Sin {title}, este título estaría en la {without} posición por puntuación, no en la {rank}."
        ),
        "counterfactual.equal": (
            "Sin {title}, con todo lo demás igual, este título estaría en la {without} posición, no en la {rank}."
        ),
        "counterfactual.equal.by_score": (
            "Sin {title}, con todo lo demás igual, este título estaría en la {without} posición por puntuación, no en "
            "la {rank}."
        ),
        "trending.rising": "Tendencia en tu región: sube más rápido que el {percent} de los títulos.",
        "trending.popular": "Popular: se ve más que el {percent} de los títulos.",
        "personalized": "Recomendado para ti.",
        "basis.personal": "Elegido principalmente según tus propios hábitos.",
        "basis.mixed": "Elegido sobre todo según tus propios hábitos y en parte según su acogida entre los demás.",
        "basis.popular": "Elegido en buena parte según su acogida entre los demás.",
        "recourse.history": (
            "Para ver menos títulos así, quita {titles} de tu historial: este probablemente dejaría de aparecer."
        ),
        "recourse.category": "Para ver menos títulos así, mira menos títulos de {category}.",
    },
    plurals={
        "category_match": {
            "one": "Viste {count} título de {category}, y eso contó aquí.",
            "many": "Viste {count} de títulos de {category}, y eso contó aquí.",
            "other": "Viste {count} títulos de {category}, y eso contó aquí.",
        },
    },
    # Of a place, la posición.
    ordinals={"other": "{number}.ª"},
    # "y" becomes "e" before the sound of an i: «Roma» e «Intacto», but «Roma» y «Hielo».
    repairs=((r" y (?=[«“]?h?[ií](?![aeoáéó]))", " e "),),
)
