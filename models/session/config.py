"""The size of a session model, and its positions: what training, export and tests share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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


def sinusoids(length: int, d: int) -> npt.NDArray[np.float32]:
    """Positional encoding [length, d] of Vaswani et al., "Attention Is All You Need", 2017, section 3.5."""
    angle = np.arange(length)[:, None] * np.exp(np.arange(0, d, 2) * (-np.log(10_000.0) / d))
    encoding = np.zeros((length, d), dtype=np.float32)
    encoding[:, 0::2] = np.sin(angle)
    encoding[:, 1::2] = np.cos(angle)
    return encoding
