"""An endpoint of AWS on a loopback port, in the protocols that boto3 speaks: EC2, Auto Scaling, ELB and ECS.

Its instances have addresses on which a test can listen. What it knows, and how it misbehaves, a test changes while it
runs. moto (tests/scenarios/control/discovery/test_moto.py) knows more of AWS; its instances cannot be talked to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

ACCOUNT: Final = "123456789012"
TARGET_GROUP: Final = f"arn:aws:elasticloadbalancing:eu-central-1:{ACCOUNT}:targetgroup/predict/0123456789abcdef"

MOODS: Final = {
    "throttled": "RequestLimitExceeded: Request limit exceeded.",
    "expired": "ExpiredToken: The security token included in the request is expired",
    "broken": "500",
    "empty": "invalid XML",
    "half": "invalid XML",
    "lacking": "has no Reservations",
    "second": "InternalError",
    "silent": "Read timeout",
}
"""How it may misbehave, and what the status says then. second: the second page of an answer is an error."""
_ERRORS: Final = {
    "throttled": (503, "RequestLimitExceeded", "Request limit exceeded."),
    "expired": (400, "ExpiredToken", "The security token included in the request is expired"),
    "second": (500, "InternalError", "An internal error has occurred"),
}


@dataclass
class Instance:
    address: str
    state: str = "running"
    tags: Mapping[str, str] = field(default_factory=dict)
    zone: str = "eu-central-1a"


class AwsEndpoint:
    """group: the states of an Auto Scaling group's instances in their life cycle, by id. targets: states of those of
    a target group, by id and port. tasks: addresses of those of ECS, by name. completed: lifecycle actions. asked: the
    operations so far. is_moody: who asks for instances with a tag `mood` gets that. mood: what everybody gets, until it
    is `calm` again. page_size: instances of one page. completing: called with the instance whose lifecycle action is
    about to be completed.
    """

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.group: dict[str, str] = {}
        self.targets: dict[tuple[str, int], str] = {}
        self.tasks: dict[str, str] = {}
        self.task_port = 0
        self.completed: list[str] = []
        self.asked: list[str] = []
        self.is_moody = False
        self.mood = ""
        self.completing: Callable[[str], None] = lambda name: None
        self._calm = threading.Event()
        self.page_size = 1000
        self._over = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def environ(self) -> dict[str, str]:
        """What makes boto3 ask here, whatever the machine is set up for."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> AwsEndpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._calm.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def calm(self) -> None:
        """It answers again; who waits for an answer gets none."""
        self.mood = ""
        self._calm.set()
        self._calm = threading.Event()

    def count(self, operation: str) -> int:
        return self.asked.count(operation)

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"])).decode()
        target = request.headers.get("X-Amz-Target", "")
        if target:
            operation, given = target.rpartition(".")[2], json.loads(body)
        else:
            given = {name: values[0] for name, values in parse_qs(body).items()}
            operation = given["Action"]
        mood = self.mood or (given.get("Filter.2.Value.1", "") if self.is_moody else "")
        self.asked.append(operation)
        if mood == "silent":
            (self._calm if self.mood else self._over).wait()
            return
        status, kind = 200, "application/x-amz-json-1.1" if target else "text/xml"
        if mood in _ERRORS and (mood != "second" or "NextToken" in given):
            status, code, words = _ERRORS[mood]
            answer = (
                f"<Response><Errors><Error><Code>{code}</Code><Message>{words}</Message></Error></Errors></Response>"
            )
        elif mood == "broken":
            status, answer = 500, "<html>something broke</html>"
        elif mood == "empty":
            answer = ""
        elif mood == "lacking":
            answer = f"<{operation}Response><requestId>1</requestId></{operation}Response>"
        else:
            make: Callable[[dict[str, str]], str] = getattr(self, f"_{operation}")
            answer = make(given)
        data = answer.encode()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 2] if mood == "half" else data)

    # --- EC2 --------------------------------------------------------------------------------------------------------

    def _DescribeInstances(self, given: Mapping[str, str]) -> str:
        filters: dict[str, list[str]] = {}
        for number in range(1, 100):
            name = given.get(f"Filter.{number}.Name")
            if name is None:
                break
            prefix = f"Filter.{number}.Value."
            filters[name] = [value for key, value in given.items() if key.startswith(prefix)]
        found = [(name, item) for name, item in sorted(self.instances.items()) if _matches(name, item, filters)]
        first = int(given.get("NextToken", "0"))
        page = found[first : first + self.page_size]
        rest = first + self.page_size < len(found)
        token = f"<nextToken>{first + self.page_size}</nextToken>" if rest else ""
        items = "".join(
            f"<item><instancesSet><item><instanceId>{name}</instanceId><privateIpAddress>{item.address}</privateIpAddress>"
            f"<instanceState><code>16</code><name>{item.state}</name></instanceState>"
            f"<placement><availabilityZone>{item.zone}</availabilityZone></placement></item></instancesSet></item>"
            for name, item in page
        )
        return (
            "<DescribeInstancesResponse><requestId>1</requestId>"
            f"<reservationSet>{items}</reservationSet>{token}</DescribeInstancesResponse>"
        )

    # --- Auto Scaling -----------------------------------------------------------------------------------------------

    def _DescribeAutoScalingGroups(self, given: Mapping[str, str]) -> str:
        members = "".join(
            f"<member><InstanceId>{name}</InstanceId><LifecycleState>{state}</LifecycleState>"
            "<HealthStatus>Healthy</HealthStatus><AvailabilityZone>eu-central-1a</AvailabilityZone></member>"
            for name, state in sorted(self.group.items())
        )
        group = f"<member><AutoScalingGroupName>predict</AutoScalingGroupName><Instances>{members}</Instances></member>"
        return _result("DescribeAutoScalingGroups", f"<AutoScalingGroups>{group}</AutoScalingGroups>")

    def _DescribeLifecycleHooks(self, given: Mapping[str, str]) -> str:
        hook = (
            "<member><LifecycleHookName>drain</LifecycleHookName>"
            "<LifecycleTransition>autoscaling:EC2_INSTANCE_TERMINATING</LifecycleTransition></member>"
        )
        return _result("DescribeLifecycleHooks", f"<LifecycleHooks>{hook}</LifecycleHooks>")

    def _CompleteLifecycleAction(self, given: Mapping[str, str]) -> str:
        self.completing(given["InstanceId"])
        self.completed.append(f"{given['InstanceId']} {given['LifecycleHookName']} {given['LifecycleActionResult']}")
        self.group[given["InstanceId"]] = "Terminating:Proceed"
        return _result("CompleteLifecycleAction", "")

    # --- ELB --------------------------------------------------------------------------------------------------------

    def _DescribeTargetGroups(self, given: Mapping[str, str]) -> str:
        group = (
            f"<member><TargetGroupArn>{escape(TARGET_GROUP)}</TargetGroupArn><TargetType>instance</TargetType></member>"
        )
        return _result("DescribeTargetGroups", f"<TargetGroups>{group}</TargetGroups>")

    def _DescribeTargetHealth(self, given: Mapping[str, str]) -> str:
        members = "".join(
            f"<member><Target><Id>{name}</Id><Port>{port}</Port></Target>"
            f"<TargetHealth><State>{state}</State></TargetHealth></member>"
            for (name, port), state in sorted(self.targets.items())
        )
        return _result("DescribeTargetHealth", f"<TargetHealthDescriptions>{members}</TargetHealthDescriptions>")

    # --- ECS --------------------------------------------------------------------------------------------------------

    def _ListTasks(self, given: Mapping[str, str]) -> str:
        return json.dumps(
            {"taskArns": [f"arn:aws:ecs:eu-central-1:{ACCOUNT}:task/models/{name}" for name in self.tasks]}
        )

    def _DescribeTasks(self, given: Mapping[str, str]) -> str:
        tasks = []
        for arn in given["tasks"]:
            details = [{"name": "privateIPv4Address", "value": self.tasks[arn.rpartition("/")[2]]}]
            tasks.append(
                {
                    "taskArn": arn,
                    "taskDefinitionArn": f"arn:aws:ecs:eu-central-1:{ACCOUNT}:task-definition/predict:1",
                    "lastStatus": "RUNNING",
                    "desiredStatus": "RUNNING",
                    "attachments": [{"type": "ElasticNetworkInterface", "details": details}],
                }
            )
        return json.dumps({"tasks": tasks, "failures": []})

    def _DescribeTaskDefinition(self, given: Mapping[str, str]) -> str:
        mappings = [{"containerPort": self.task_port, "protocol": "tcp"}]
        return json.dumps({"taskDefinition": {"containerDefinitions": [{"name": "p", "portMappings": mappings}]}})


def _matches(name: str, item: Instance, filters: Mapping[str, list[str]]) -> bool:
    for key, values in filters.items():
        if key == "instance-id":
            value = name
        elif key == "instance-state-name":
            value = item.state
        elif key == "tag:mood":
            continue
        else:
            value = item.tags.get(key.removeprefix("tag:"), "")
        if value not in values:
            return False
    return True


def _result(operation: str, inner: str) -> str:
    return f"<{operation}Response><{operation}Result>{inner}</{operation}Result></{operation}Response>"
