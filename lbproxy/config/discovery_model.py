"""The model of `discovery`: platforms that know who the servers of a pool are."""

from __future__ import annotations

from lbproxy.config.aws_model import Aws
from lbproxy.config.kubernetes_model import Kubernetes
from lbproxy.config.notation import Section, setting


class Discovery(Section):
    aws: Aws | None = setting(None, "EC2, Auto Scaling groups, target groups and ECS ([more](aws.md)).")
    kubernetes: Kubernetes | None = setting(None, "The ready endpoints of a Kubernetes service.")
