"""Gauss-Radau quadrature on [0, 1] with the node 0 fixed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]


def radau(K: int) -> tuple[float, Float64s, Float64s]:
    """Return the weight of the node 0, and ``K`` other nodes in (0, 1) with their weights.

    The rule is exact for polynomials of degree 2 K. The free nodes are the roots of the Jacobi polynomial
    P_K^(0,1), found as eigenvalues of its Jacobi matrix (Golub and Welsch, Calculation of Gauss quadrature rules,
    Math. Comp. 23, 1969, 221-230; the modification for a fixed node: Golub, Some modified matrix eigenvalue
    problems, SIAM Review 15, 1973, 318-334).
    """
    if K == 0:
        return 1.0, np.empty(0), np.empty(0)
    i = np.arange(K, dtype=np.float64)
    j = i[1:]
    diagonal = 1 / ((2 * i + 1) * (2 * i + 3))
    beside = np.sqrt(j * (j + 1)) / (2 * j + 1)
    x, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    weights = 2 * vectors[0] ** 2 / (1 + x)
    return 1 / (K + 1) ** 2, (1 + x) / 2, weights / 2
