"""An iris classifier small enough to read: softmax regression over four lengths in centimetres.

Fitted by gradient descent (4,000 steps, L2 0.001) to 120 of the 150 flowers that Anderson measured and Fisher published
in 1936; it names 97.5 % of those and all of the 30 others correctly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FEATURES = ("sepal length", "sepal width", "petal length", "petal width")
CLASSES = ("setosa", "versicolor", "virginica")
# One row per class: a coefficient per feature, then the intercept.
COEFFICIENTS = (
    (-0.4846, 1.7958, -3.8827, -1.7517, 13.5904),
    (0.8947, -0.2813, -0.4762, -1.6668, 3.5193),
    (-0.4102, -1.5146, 4.3589, 3.4185, -17.1097),
)
INSTANCES_LIMIT = 1000
LENGTH_LIMIT_CM = 1000.0


def probabilities(instance: Sequence[float]) -> list[float]:
    """The share of belief in each class, in the order of CLASSES; the sum is 1."""
    scores = [
        row[-1] + sum(weight * value for weight, value in zip(row[:-1], instance, strict=True)) for row in COEFFICIENTS
    ]
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    return [power / sum(powers) for power in powers]


def _instance(position: int, value: object) -> list[float]:
    where = f"instances[{position}]"
    if not isinstance(value, list) or len(value) != len(FEATURES):
        raise ValueError(f"{where} must be a list of {len(FEATURES)} numbers: {', '.join(FEATURES)} (cm)")
    lengths: list[float] = []
    for name, number in zip(FEATURES, value, strict=True):
        # Comparisons with NaN are false, so it is refused here too; bool is an int in Python, not in JSON.
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= LENGTH_LIMIT_CM:
            raise ValueError(f"{where}: {name} must be a number from 0 to {LENGTH_LIMIT_CM:g} (cm)")
        lengths.append(float(number))
    return lengths


def instances_of(body: object) -> list[list[float]]:
    """The flowers in a decoded request body. Raises ValueError with a sentence for the caller."""
    if not isinstance(body, dict) or not isinstance(body.get("instances"), list):
        raise ValueError('the body must be a JSON object like {"instances": [[5.1, 3.5, 1.4, 0.2]]}')
    instances = body["instances"]
    if not 1 <= len(instances) <= INSTANCES_LIMIT:
        raise ValueError(f"send 1 to {INSTANCES_LIMIT} instances, not {len(instances)}")
    return [_instance(position, value) for position, value in enumerate(instances)]


def predict(body: object) -> list[dict[str, object]]:
    """A class and its probabilities for every flower of a request body. Raises ValueError."""
    predictions: list[dict[str, object]] = []
    for instance in instances_of(body):
        shares = probabilities(instance)
        predictions.append(
            {
                "class": CLASSES[shares.index(max(shares))],
                "probabilities": {name: round(share, 4) for name, share in zip(CLASSES, shares, strict=True)},
            }
        )
    return predictions
