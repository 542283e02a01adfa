"""The runbook, the alerts and the Grafana dashboard name the same things, and leave out none that there is."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
import yaml
from aiohttp import web

from lbproxy.control.access import Access, Token
from lbproxy.control.event_log import Kind
from lbproxy.control.metrics import LAYOUTS, READINGS, WORKER_READINGS
from lbproxy.errors import FAULTS
from tests.architecture.rules import ROOT
from tests.support.pages import anchors, sections

RUNBOOK = (ROOT / "docs/runbook.md").read_text()
BOARD = json.loads((ROOT / "deploy/grafana/lbproxy.json").read_text())
PROMETHEUS = ROOT / "deploy/prometheus"

# Families that no panel shows, and why. What is here is on no panel: a test says so, too.
NOT_ON_THE_BOARD: dict[str, str] = {}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def named(section: str) -> list[str]:
    """The alerts that a section says it is for."""
    line = re.search(r"^Alerts: (.*)", section, re.MULTILINE)
    return re.findall(r"`(Lbproxy\w+)`", line[1]) if line else []


def families() -> set[str]:
    found = {f"lbproxy_{item.name}" for item in (*READINGS, *WORKER_READINGS)}
    return found | {f"lbproxy_{family.name}" for layout in LAYOUTS for family in layout.families}


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_names_the_section_that_names_it(alert: str) -> None:
    page, _, fragment = alerts()[alert]["annotations"]["runbook"].partition("#")
    assert page == "docs/runbook.md"
    assert alert in named(sections(RUNBOOK)[fragment])


def test_a_section_names_no_other_alert() -> None:
    assert sorted(name for text in sections(RUNBOOK).values() for name in named(text)) == sorted(alerts())
    assert set(re.findall(r"Lbproxy\w+", RUNBOOK)) == set(alerts())


def test_every_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    for rule in alerts().values():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "action", "runbook"}


def test_every_alert_is_proven_to_fire_and_to_stay_quiet() -> None:
    expected: dict[str, set[bool]] = {}
    for file in PROMETHEUS.glob("*_test.yml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                expected.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert expected == {alert: {True, False} for alert in alerts()}


def test_every_fault_leads_to_a_section() -> None:
    table = sections(RUNBOOK)["by-the-word-in-the-access-log"]
    words = [word for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)]
    assert sorted(set(words)) == sorted(words)
    assert set(words) - {"end"} == set(FAULTS)


def test_every_kind_of_event_leads_to_a_section() -> None:
    table = sections(RUNBOOK)["by-the-event"]
    assert sorted(re.findall(r"^\| `(\w+)` \| .*\]\(#", table, re.MULTILINE)) == sorted(get_args(Kind))


def test_what_the_admin_address_says_is_quoted_as_it_says_it() -> None:
    some = Access([Token("ci", "secret"), Token("monitoring", "other", may_write=False)])
    calls: list[tuple[Access, str, str | None, str, str]] = [
        (some, "PATCH", None, "127.0.0.1", "127.0.0.1"),
        (Access([]), "PATCH", None, "127.0.0.1", "10.0.0.9"),
        (some, "GET", "Bearer wrong", "127.0.0.1", "127.0.0.1"),
        (some, "PATCH", "Bearer other", "127.0.0.1", "127.0.0.1"),
        (Access([]), "GET", None, "lb.example.org", "127.0.0.1"),
    ]
    told = []
    for access, method, authorization, host, peer in calls:
        with pytest.raises(web.HTTPException) as refused:
            access.check(method=method, authorization=authorization, host=host, origin=None, peer=peer)
        told.append(refused.value.text)
    table = sections(RUNBOOK)["the-admin-address-refuses-you"]
    assert re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE) == told


def test_the_panels_that_the_runbook_names_exist() -> None:
    titles = {panel["title"] for panel in BOARD["panels"]}
    lists = re.findall(r"\b[Pp]anels? ((?:\*[^*]+\*(?:, |,? and )?)+)", " ".join(RUNBOOK.split()))
    told = [title for found in lists for title in re.findall(r"\*([^*]+)\*", found)]
    assert len(told) > 20
    assert set(told) - titles == set()


def test_every_family_is_on_the_board_or_there_is_a_reason() -> None:
    shown = {
        re.sub("_(bucket|sum|count)$", "", name)
        for panel in BOARD["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"lbproxy_\w+", target["expr"])
    }
    assert sorted(families() - shown - NOT_ON_THE_BOARD.keys()) == [], "add a panel, or a reason to NOT_ON_THE_BOARD"
    assert sorted(NOT_ON_THE_BOARD.keys() & shown) == []


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(places)) == len(places)
    assert all(x < 24 for x, _ in places)


def test_anchors_are_those_of_the_headings() -> None:
    assert anchors("# A b, c: `d_e`\n```\n# no\n```\n## A-b\n## A-b\n") == ["a-b-c-d_e", "a-b", "a-b-1"]
