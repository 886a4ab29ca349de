"""The network's configuration as Kubernetes mounts it: ``net-conf.json`` of a ConfigMap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld import config, document
from flanneld.flags import UsageError

if TYPE_CHECKING:
    from flanneld.config import NetConf

_CHOSEN = {
    f"{family}{name}" for family in ("", "ipv6") for name in ("subnetlen", "subnetmin", "subnetmax")
}


def read(path: str) -> NetConf:
    """Read it; UsageError if there is none, ConfigError if it is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--kube-subnet-mgr needs the network's configuration in --net-config-path: {error}"
        ) from None
    with config.blamed(path):
        return parse(text)


def parse(text: str) -> NetConf:
    """Read it without the lengths and ranges of subnets, which Kubernetes chooses; ConfigError."""
    try:
        found = document.load(text)
    except ValueError:
        return config.parse(text)  # which says what is wrong
    if isinstance(found, dict):
        text = json.dumps({key: found[key] for key in found if key.lower() not in _CHOSEN})
    return config.parse(text)
