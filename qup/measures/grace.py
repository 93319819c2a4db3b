"""GRACE (arXiv 2511.02833): how a set's gradients, seen from the student, agree with each other and how large they are.

Of a set: problems are split 90/10 several times; G holds the training problems' gradients, each normalised to length 1,
K = GᵀG/n with smoothed eigenvalues; the score is the mean over splits of tr(K⁻¹ · HᵀH/m), H the test gradients as they are.
"""

from __future__ import annotations

import numpy as np

from qup.errors import InputError

LEAST = 10
"""Problems below which there is no split into 90 and 10 per cent."""
SMOOTHING = 1e-3
TEST_SHARE = 0.1


def score(gradients_ND: np.ndarray, problem_N: np.ndarray, splits: int, seed: int = 0) -> float:
    """The score of one set, lower is better. `problem_N`: the rows of a problem fall on one side of a split.

    It does not depend on the order of rows, nor on the length of training gradients. InputError below LEAST problems.
    """
    gradients_ND = np.asarray(gradients_ND, float)
    ids, owner_N = np.unique(problem_N, return_inverse=True)
    if len(ids) < LEAST:
        raise InputError(f"measure grace: {len(ids)} problems with a gradient; at least {LEAST} are needed")
    if not np.isfinite(gradients_ND).all():
        bad = int((~np.isfinite(gradients_ND)).any(1).sum())
        raise InputError(f"measure grace: {bad} of {len(gradients_ND)} gradients hold a number that is not finite")
    test = max(1, int(len(ids) * TEST_SHARE))
    found = []
    for split in range(splits):
        held = np.random.default_rng([seed, split]).permutation(len(ids))[:test]
        is_test_N = np.isin(owner_N, held)
        found.append(_score(gradients_ND[~is_test_N], gradients_ND[is_test_N]))
    return float(np.mean(found))


def _score(train_ND: np.ndarray, test_MD: np.ndarray) -> float:
    """tr(K⁻¹ · HᵀH/m): by the smaller of K's two forms, for its eigenvalues beyond min(n, d) are all alike."""
    norms = np.linalg.norm(train_ND, axis=1, keepdims=True)
    g = train_ND / np.maximum(norms, 1e-12)
    n, d = g.shape
    if n >= d:
        values, vectors = np.linalg.eigh(g.T @ g / n)
        share = (test_MD @ vectors) ** 2
        return float((share / _smoothed(values, d)).sum() / len(test_MD))
    values, vectors = np.linalg.eigh(g @ g.T / n)
    sound = values > 1e-12
    scale = np.sqrt(n * values[sound])
    inner = (test_MD @ g.T @ vectors[:, sound] / scale) ** 2
    rest = np.maximum((test_MD**2).sum(1) - inner.sum(1), 0.0)
    smoothed = _smoothed(np.r_[np.zeros(d - sound.sum()), values[sound]], d)
    return float((inner / smoothed[d - sound.sum() :]).sum() / len(test_MD) + (rest / smoothed[0]).sum() / len(test_MD))


def _smoothed(values_D: np.ndarray, d: int) -> np.ndarray:
    clipped = np.maximum(values_D, 1e-12)
    return np.maximum((1 - SMOOTHING) * clipped + SMOOTHING * clipped.sum() / d, 1e-12)
