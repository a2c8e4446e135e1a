"""The size of a session model, its positions, and how to train it: all that can be said without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLANK_EVENT = "blank_event"  # metadata of a graph that knows an event which says nothing (see runtime.py)


@dataclass(frozen=True)
class SessionConfig:
    """Size of a session model; items and engagements are counted without padding."""

    items: int
    engagements: int = 5
    d: int = 128
    layers: int = 2
    heads: int = 4
    d_ff: int = 512
    max_length: int = 50
    dropout: float = 0.1


@dataclass(frozen=True)
class Recipe:
    """How to train; the rate rises over the first 5 % of the steps and then falls to zero along a cosine.

    average is the decay, per step, of a running mean of the weights, which is what is evaluated and kept; 0 keeps the
    weights themselves. It smooths what the last batches happened to say (Izmailov et al., "Averaging Weights Leads to
    Wider Optima and Better Generalization", UAI 2018).

    blank is the least and the most share of a session's events that say nothing; the share is drawn anew for every
    session of a batch. Explanations ask what a score would be had an event said nothing, and integrated gradients start
    where none says anything; what a model answers that has never met such a session is an accident of its weights, not
    knowledge (Jain et al., "Missingness Bias in Model Debugging", ICLR 2022).

    faded is the share of sessions in which no event is blank, but all say the same part of what they have to say, from
    nothing to all: the path that integrated gradients follow from there, on which no session of real events lies. Of
    what came next, such a session tells that part only; for the rest what came next elsewhere is to be guessed, so that
    a score grows as more is heard, and not all of it at the first sound.
    """

    epochs: int = 6
    events_per_batch: int = 4096
    rate: float = 1.5e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    blank: tuple[float, float] = (0.05, 0.05)
    faded: float = 0.0
    average: float = 0.0
    seed: int = 0


def sinusoids(length: int, d: int) -> npt.NDArray[np.float32]:
    """Positional encoding [length, d] of Vaswani et al., "Attention Is All You Need", 2017, section 3.5."""
    angle = np.arange(length)[:, None] * np.exp(np.arange(0, d, 2) * (-np.log(10_000.0) / d))
    encoding = np.zeros((length, d), dtype=np.float32)
    encoding[:, 0::2] = np.sin(angle)
    encoding[:, 1::2] = np.cos(angle)
    return encoding
