from __future__ import annotations

import numpy as np

from serving.translation.scores import probabilities


def test_logits_become_a_distribution() -> None:
    found = probabilities(np.array([[0.0, np.log(3)], [1000.0, -1000.0]], np.float32))
    assert np.round(found, 6).tolist() == [[0.25, 0.75], [1.0, 0.0]]


def test_a_distribution_stays_as_it_is() -> None:
    given = np.array([[0.25, 0.75], [1.0, 0.0]])
    assert probabilities(given).tolist() == given.tolist()
