import json

from lbproxy.control.problem import problem


def test_a_problem_has_the_members_of_rfc_9457_and_more() -> None:
    answer = problem(422, "weight: too much", {"Connection": "close"}, {"problems": ["weight: too much"]})
    assert (answer.status, answer.content_type) == (422, "application/problem+json")
    assert answer.reason == "Unprocessable Content"
    assert answer.headers["Connection"] == "close"
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "weight: too much",
        "problems": ["weight: too much"],
    }
