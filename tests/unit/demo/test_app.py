"""The predict server's answers, by Flask's own test client (no socket)."""

from __future__ import annotations

import os

import pytest

from lbproxy.demo.app import app


def test_a_prediction_says_who_made_it() -> None:
    answer = app.test_client().post("/predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]})
    assert answer.status_code == 200
    assert answer.get_json() == {
        "predictions": [{"class": "setosa", "probabilities": {"setosa": 0.996, "versicolor": 0.004, "virginica": 0.0}}],
        "server": "localhost:80",
        "pid": os.getpid(),
    }


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b'{"instances": [[1]]}', "application/json"),
        (b'{"instances": [[1, 2, 3, 4]]}', "text/plain"),
    ],
)
def test_bad_input_is_400_with_a_sentence(body: bytes, content_type: str) -> None:
    answer = app.test_client().post("/predict", data=body, content_type=content_type)
    assert answer.status_code == 400
    assert set(answer.get_json()) == {"error", "server", "pid"}


def test_health() -> None:
    answer = app.test_client().get("/health")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "ok")


def test_predict_wants_post() -> None:
    assert app.test_client().get("/predict").status_code == 405
