"""The model of `discovery`: platforms that know who the servers of a pool are."""

from __future__ import annotations

from lbproxy.config.kubernetes_model import Kubernetes
from lbproxy.config.notation import Section, setting


class Discovery(Section):
    kubernetes: Kubernetes | None = setting(None, "The ready endpoints of a Kubernetes service.")
