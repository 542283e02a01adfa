"""Servers from AWS: EC2, Auto Scaling, target groups, ECS. See aws/questions.py for who is a server.

One look is a few questions, in a thread, at most LOOK_S long. A look that fails in any part changes nothing; the next
comes after 1 to 2 s, then up to 4, 8, ... at random, but not later than `interval`, so that what AWS can say again is
known within that; where AWS asks for fewer questions (throttling) up to MAX_WAIT_S.

An instance that is Terminating:Wait is no server any more, so it drains. With `complete_lifecycle` its lifecycle action
is completed when no pool has its address any more, which is when its last request is done.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from lbproxy.config.aws_model import Aws, region_of
from lbproxy.control.discovery.aws.ask import Ask, Asking, AwsError, needed
from lbproxy.control.discovery.aws.metadata import own_zone
from lbproxy.control.discovery.aws.picture import Picture
from lbproxy.control.discovery.aws.questions import question
from lbproxy.control.discovery.one_thread import OneThread
from lbproxy.control.discovery.source import MIN_GAP_S, Answer, Emit, Pause, Polled, Trouble, pause

log = logging.getLogger("lbproxy.control.discovery")

LOOK_S: Final = 20.0
FIRST_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 30.0
WOKEN_S: Final = 5.0  # that must have passed since the last look for a failed connect to bring the next
JITTER: Final = 0.1
SHOWN: Final = 3  # defects of an answer that are told
TERMINATING: Final = "autoscaling:EC2_INSTANCE_TERMINATING"


class AwsSource(Polled):
    """is_member: has any pool a server at this IP address? rng: for times. make_ask: of a region, "" for the usual.
    zone: asks for the one in which this process runs."""

    kind = values_from = "aws"
    rank = 4

    def __init__(
        self,
        aws: Aws,
        clock: Callable[[], float],
        is_member: Callable[[str], bool],
        *,
        rng: random.Random | None = None,
        make_ask: Callable[[str], Asking] = Ask,
        zone: Callable[[], str] = own_zone,
        in_thread: Callable[[Callable[[], Any]], Any] | None = None,
        pause: Pause = pause,
    ) -> None:
        name, title, self._question = question(aws)
        super().__init__(name, title, pause)
        self._aws = aws
        self._clock = clock
        self._is_member = is_member
        self._rng = rng or random.Random()
        self._ask = make_ask(aws.region or (region_of(aws.target_group) if aws.target_group else ""))
        self._in_thread = in_thread or OneThread(f"discovery:{name}", LOOK_S)
        self._ask_zone = zone
        self._zone = "" if aws.zone == "auto" else aws.zone
        self._looked_at = float("-inf")
        self._n_failures = 0
        self._waiting: Mapping[str, str] = {}  # addresses of instances that are Terminating:Wait, by id
        self._completed: set[str] = set()
        self._hook = ""

    async def watch(self, emit: Emit) -> None:
        try:
            await super().watch(emit)
        finally:
            self._ask.close()

    def wake(self) -> None:
        if not self._n_failures and self._clock() - self._looked_at >= WOKEN_S:
            self.woken.set()

    def left(self, ip: str) -> None:
        """A server at this address is gone: its instance may be waiting for that."""
        if self._aws.complete_lifecycle and ip in self._waiting.values():
            self.woken.set()

    async def look(self) -> Answer:
        """See the module."""
        self._looked_at = self._clock()
        try:
            picture: Picture = await self._in_thread(self._see)
        except AwsError as error:
            return self._failed(str(error), is_throttled=error.is_throttled)
        except TimeoutError as late:
            return self._failed(str(late))
        self._n_failures = 0
        self.wait_s = max(MIN_GAP_S, self._aws.interval * (1.0 - JITTER * self._rng.random()))
        self.says = picture.says
        lacking = [*picture.lacking, *await self._learn_zone(), *await self._complete(picture.waiting)]
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        self.lacking = "; ".join(lacking[:SHOWN]) + more
        if not self._aws.prefer_zone or not self._zone:
            return picture.found
        return [replace(item, far=item.zone not in ("", self._zone)) for item in picture.found]

    async def _learn_zone(self) -> list[str]:
        """The own one, if it counts. Returns what is wrong: servers of all zones are used until it is known."""
        if self._zone or not self._aws.prefer_zone:
            return []
        try:
            self._zone = await self._in_thread(self._ask_zone)
        except (AwsError, TimeoutError) as error:
            return [str(error)]
        log.info("%s: servers of the zone %s come first", self.title, self._zone)
        return []

    def _see(self) -> Picture:
        try:
            return self._question(self._ask)
        except (KeyError, ValueError) as error:
            raise AwsError(f"an answer that is not understood: {error!r}") from error
        except ImportError as missing:
            raise AwsError(f"boto3 cannot be imported ({missing}); pip install 'lbproxy[aws]'") from None

    def _failed(self, why: str, *, is_throttled: bool = False) -> Trouble:
        self._n_failures += 1
        most_s = MAX_WAIT_S if is_throttled else min(MAX_WAIT_S, self._aws.interval)
        most_s = min(max(most_s, FIRST_WAIT_S), FIRST_WAIT_S * 2.0 ** min(self._n_failures, 10))
        self.wait_s = FIRST_WAIT_S + (most_s - FIRST_WAIT_S) * self._rng.random()
        return Trouble(why)

    # --- instances that wait for their end --------------------------------------------------------------------------

    async def _complete(self, waiting: Mapping[str, str]) -> list[str]:
        """Let those go that nobody uses any more. Returns what is wrong, if anything is: the rest is left for the next
        look then, as the answer of this one waits."""
        # Who is seen waiting for the first time may be a server yet, as what was seen is not in force.
        due = [name for name, ip in waiting.items() if name in self._waiting and not (ip and self._is_member(ip))]
        self._waiting = waiting
        self._completed.intersection_update(waiting)
        if not self._aws.complete_lifecycle:
            return []
        for name in due:
            if name not in self._completed:
                try:
                    await self._in_thread(partial(self._complete_one, name))
                except (AwsError, TimeoutError) as error:
                    return [f"the lifecycle action of {name} is not completed: {error}"]
                self._completed.add(name)
                log.info("%s: instance %s is drained, its lifecycle action is completed", self.title, name)
        return []

    def _complete_one(self, name: str) -> None:
        group = self._aws.auto_scaling_group
        try:
            self._ask.call(
                "autoscaling",
                "complete_lifecycle_action",
                AutoScalingGroupName=group,
                LifecycleHookName=self._hook_name(),
                LifecycleActionResult="CONTINUE",
                InstanceId=name,
            )
        except AwsError as error:
            if "No active Lifecycle Action" not in str(error):  # else somebody else has completed it, or its time is up
                raise

    def _hook_name(self) -> str:
        """Raises AwsError unless it is clear which."""
        if isinstance(self._aws.complete_lifecycle, str):
            return self._aws.complete_lifecycle
        if not self._hook:
            operation = "describe_lifecycle_hooks"
            answer = self._ask.call("autoscaling", operation, AutoScalingGroupName=self._aws.auto_scaling_group)
            hooks = [
                str(hook["LifecycleHookName"])
                for hook in needed(answer, "LifecycleHooks", operation)
                if hook.get("LifecycleTransition") == TERMINATING
            ]
            if len(hooks) != 1:
                listed = ", ".join(hooks) or "none"
                raise AwsError(f"which hook? the group has {listed}; name it in `complete_lifecycle`")
            self._hook = hooks[0]
        return self._hook

    # --- words ------------------------------------------------------------------------------------------------------

    def recovered(self, n_servers: int) -> str:
        return f"{self.title} answers again, with {n_servers} servers"

    def gone(self) -> str:
        return f"{self.title} no longer has it"
