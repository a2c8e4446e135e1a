"""Japanese. Quotation marks after CLDR's delimiters for ja."""

# ruff: noqa: RUF001 - full-width punctuation, as meant
from __future__ import annotations

from stream.explain.wording.phrases import Phrases

PHRASES = Phrases(
    language="ja",
    version=2,
    quotes=("「", "」"),
    inner_quotes=("『", "』"),
    # No space after a full stop.
    gap="",
    messages={
        "watch_history": "{actions}に基づくおすすめです。",
        "action.view": "{titles}の視聴",
        "action.like": "{titles}への高評価",
        "action.complete": "{titles}を最後まで視聴したこと",
        "action.share": "{titles}の共有",
        "action.skip": "{titles}のスキップ",
        "action.other": "{titles}の閲覧",
        "counterfactual": "{title}がなければ、この作品は{rank}ではなく{without}でした。",
        "counterfactual.by_score": "{title}がなければ、この作品のスコア順位は{rank}ではなく{without}でした。",
        "counterfactual.equal": "ほかの条件が同じで{title}がなければ、この作品は{rank}ではなく{without}でした。",
        "counterfactual.equal.by_score": (
            "ほかの条件が同じで{title}がなければ、この作品のスコア順位は{rank}ではなく{without}でした。"
        ),
        "trending.rising": "お住まいの地域で話題：全作品の{percent}を上回る勢いで伸びています。",
        "trending.popular": "人気作：全作品の{percent}より多く視聴されています。",
        "personalized": "あなたへのおすすめです。",
        "basis.personal": "ほとんどあなたの視聴傾向をもとに選ばれました。",
        "basis.mixed": "主にあなたの視聴傾向、一部はほかの視聴者の反応をもとに選ばれました。",
        "basis.popular": "ほかの視聴者の反応も大きく考慮して選ばれました。",
        "recourse.history": (
            "このような作品を減らすには、視聴履歴から{titles}を削除してください。"
            "この作品はおそらく表示されなくなります。"
        ),
        "recourse.category": "このような作品を減らすには、{category}の視聴を減らしてください。",
    },
    plurals={
        "category_match": {"other": "{category}の作品を{count}本視聴したことが影響しています。"},
    },
    ordinals={"other": "{number}位"},
)
