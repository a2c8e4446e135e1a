"""Size, positional encoding and training recipe of a session model; does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLANK_EVENT = "blank_event"  # metadata key of a graph that has a blank event (see runtime.py)


@dataclass(frozen=True)
class SessionConfig:
    """Size of a session model; items and engagements are numbers without padding."""

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
    """Hyperparameters of the training.

    Attributes:
        epochs: number of epochs.
        events_per_batch: approximate number of events per batch.
        rate: peak learning rate; it rises linearly over the first 5 % of the steps and then decays along a cosine to 0.
        weight_decay: of the weight matrices, not of biases and norms.
        clip: maximum norm of the gradient.
        blank: minimum and maximum share of blank events, whose embedding is zero; the share is drawn for every session.
            Explanations blank events, and the baseline of integrated gradients is a session of blank events; a model
            that was never trained on such sessions answers arbitrarily (Jain et al., "Missingness Bias in Model
            Debugging", ICLR 2022).
        faded: share of sessions in which no event is blank and all embeddings are scaled by one factor, uniform in
            [0, 1): the path of integrated gradients from blank to real events. Each target of such a session is kept
            with a probability equal to the factor and otherwise replaced by a target of another session, so that
            scores increase gradually along the path.
        average: decay per step of an exponential moving average of the weights, which is evaluated and kept; 0 keeps
            the weights themselves (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
            Generalization", UAI 2018).
        seed: of all random choices.

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
    """Positional encoding float32 [length, d] of Vaswani et al., "Attention Is All You Need", 2017, section 3.5."""
    angle = np.arange(length)[:, None] * np.exp(np.arange(0, d, 2) * (-np.log(10_000.0) / d))
    encoding = np.zeros((length, d), dtype=np.float32)
    encoding[:, 0::2] = np.sin(angle)
    encoding[:, 1::2] = np.cos(angle)
    return encoding
