"""The committed coefficients name flowers that they were not fitted to, and bad input is refused with a sentence."""

from __future__ import annotations

import json

import pytest

from lbproxy.demo import model

# Four flowers of each species, all among the 30 that were held back when the coefficients were fitted.
FLOWERS = {
    "setosa": [[5.1, 3.5, 1.4, 0.2], [5.4, 3.9, 1.3, 0.4], [4.8, 3.4, 1.6, 0.2], [5.2, 4.1, 1.5, 0.1]],
    "versicolor": [[5.5, 2.5, 4.0, 1.3], [5.6, 2.7, 4.2, 1.3], [5.6, 3.0, 4.5, 1.5], [6.0, 3.4, 4.5, 1.6]],
    "virginica": [[6.3, 2.9, 5.6, 1.8], [5.8, 2.7, 5.1, 1.9], [6.5, 3.0, 5.2, 2.0], [4.9, 2.5, 4.5, 1.7]],
}


@pytest.mark.parametrize("name", FLOWERS)
def test_flowers_get_their_names(name: str) -> None:
    predictions = model.predict({"instances": FLOWERS[name]})
    assert [prediction["class"] for prediction in predictions] == [name] * 4


def test_probabilities_add_up_to_one_even_far_from_any_flower() -> None:
    for instance in ([5.1, 3.5, 1.4, 0.2], [0, 0, 0, 0], [1000, 1000, 1000, 1000], [0, 1000, 0, 0]):
        shares = model.probabilities(instance)
        assert sum(shares) == pytest.approx(1.0)
        assert all(0.0 <= share <= 1.0 for share in shares)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("null", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ('{"instances": 5}', "must be a JSON object"),
        ('{"instances": []}', "1 to 1000 instances, not 0"),
        (json.dumps({"instances": [[1, 1, 1, 1]] * 1001}), "not 1001"),
        ('{"instances": [[1, 2, 3]]}', r"instances\[0\] must be a list of 4 numbers"),
        ('{"instances": [[1, 2, 3, 4], 7]}', r"instances\[1\] must be a list of 4 numbers"),
        ('{"instances": [[1, 2, 3, "4"]]}', "petal width must be a number"),
        ('{"instances": [[true, 2, 3, 4]]}', "sepal length must be a number"),
        ('{"instances": [[1, 2, NaN, 4]]}', "petal length must be a number"),
        ('{"instances": [[1, 2, 3, 1e999]]}', "petal width must be a number"),
        ('{"instances": [[1, -2, 3, 4]]}', "sepal width must be a number"),
    ],
)
def test_bad_input_is_explained(body: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model.predict(json.loads(body))
