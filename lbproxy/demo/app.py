"""The predict server of the demo: a Flask application as people write them, with nothing in it for lbproxy's sake.

Serve it with any WSGI server: `gunicorn --bind 127.0.0.1:5001 lbproxy.demo.app:app`.
"""

from __future__ import annotations

import os

from flask import Flask, Response, jsonify, request

from lbproxy.demo import model

app = Flask(__name__)


def answered_by() -> dict[str, object]:
    """Which server and process answered, so that a reader sees the balancing."""
    return {"server": f"{request.environ['SERVER_NAME']}:{request.environ['SERVER_PORT']}", "pid": os.getpid()}


@app.post("/predict")
def predict() -> tuple[Response, int]:
    try:
        predictions = model.predict(request.get_json(silent=True))
    except ValueError as error:
        return jsonify(error=str(error), **answered_by()), 400
    return jsonify(predictions=predictions, **answered_by()), 200


@app.get("/health")
def health() -> tuple[Response, int]:
    return jsonify(status="ok", **answered_by()), 200
