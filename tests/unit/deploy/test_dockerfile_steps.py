"""How the Dockerfile is read. Performing it: tests/scenarios/deploy/test_image.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import dockerfile_steps as steps

TEXT = """\
# a comment
FROM python:3 AS build
RUN one && \\
    two
FROM build AS other
RUN three
FROM slim AS last
COPY --from=build /opt/x /opt/x
ENV PATH=/opt/x/bin:$PATH
"""


def test_stages_and_joined_lines() -> None:
    build, other, last = steps.parse(TEXT)
    assert (build.name, build.base, other.base, last.base) == ("build", "python:3", "build", "slim")
    assert [step.rest.split() for step in build.steps] == [["one", "&&", "two"]]
    assert [step.word for step in last.steps] == ["COPY", "ENV"]


def test_only_what_the_target_needs_is_performed() -> None:
    stages = steps.parse(TEXT)
    assert [stage.name for stage in steps.lineage(stages, "last")] == ["build", "last"]
    assert [stage.name for stage in steps.lineage(stages, "other")] == ["build", "other"]


def test_an_unknown_instruction_is_no_silent_gap() -> None:
    with pytest.raises(steps.StepError, match="VOLUME /data"):
        steps.parse("FROM a AS b\nVOLUME /data\n")


def test_the_shell_form_is_refused() -> None:
    assert steps.exec_form('["lbproxy", "run"]') == ["lbproxy", "run"]
    for text in ("lbproxy run", "[1]", '"lbproxy"'):
        with pytest.raises(steps.StepError, match="exec form"):
            steps.exec_form(text)


def test_paths_of_the_image_are_moved_and_others_are_not(tmp_path: Path) -> None:
    image = steps.Image(tmp_path)
    assert image.moved("/opt/a /src /etc/lbproxy/b.yaml /bin/sh x/opt /etc/hosts") == (
        f"{tmp_path}/opt/a {tmp_path}/src {tmp_path}/etc/lbproxy/b.yaml /bin/sh x/opt /etc/hosts"
    )
    image.perform(steps.Step("ENV", "PATH=/opt/x/bin:$PATH"))
    assert image.environ["PATH"].split(":")[:2] == [f"{tmp_path}/opt/x/bin", f"{tmp_path}/python"]


def test_a_copy_of_what_is_not_there_fails(tmp_path: Path) -> None:
    image = steps.Image(tmp_path)
    image.perform(steps.Step("COPY", "pyproject.toml LICENSE /src/"))
    assert (tmp_path / "src/LICENSE").read_bytes() == (steps.REPOSITORY / "LICENSE").read_bytes()
    with pytest.raises(steps.StepError, match=r"there is no nowhere\.txt"):
        image.perform(steps.Step("COPY", "nowhere.txt /src/"))
