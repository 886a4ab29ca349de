"""One cluster for the tests of this folder, which run first and on one worker.

What a cluster needs and is missing skips the test; in CI it fails.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.real.image import BUSYBOX
from conformance.world import SYSTEM_PATH
from tests.kube.binaries import BuildError, build, folder
from tests.kube.cluster import Cluster
from tests.kube.network import IMAGE
from tests.kube.outside import settings
from tests.lab.space import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kube.cluster import Pod
    from tests.kube.kubectl import Document

RUN = ("containerd", "containerd-shim-runc-v2", "ctr", "etcd", "etcdctl", "iptables", "runc")
BUILD = ("apt-get", "dpkg-deb", "make", "rsync", "unshare")
NEEDED = (*RUN, *BUILD, "ip", "nsenter", "openssl", "ping", "setpriv")
BUILT = (ROOT / "dist/cni-flannel/flannel", ROOT / "dist/flanneld/flanneld")
_HERE = Path(__file__).parent
FILES = (BUSYBOX, Path("/usr/lib/cni/portmap"), *BUILT, IMAGE)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _HERE not in item.path.parents)
    limit_s = 600 if folder().exists() else 2400  # the first one may build Kubernetes
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            item.add_marker(pytest.mark.frozen)
            item.add_marker(pytest.mark.timeout(limit_s))


@pytest.fixture(scope="session")
def programs() -> Path:
    """Give the folder of Kubernetes' programs, once they are built."""
    missing = [name for name in NEEDED if shutil.which(name, path=SYSTEM_PATH) is None]
    missing += [str(file) for file in FILES if not file.exists()]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root, and: {', '.join(missing)}")
    try:
        return build()
    except BuildError as error:
        why = f"{error}\n(`./build.sh test tests/kube` builds it where there is a network)"
    pytest.fail(why, pytrace=False)


@pytest.fixture(scope="session")
def settings_before() -> dict[str, str]:
    """Give what the machine had before there was a cluster."""
    return settings()


@pytest.fixture(scope="session")
def cluster(programs: Path, settings_before: dict[str, str]) -> Iterator[Cluster]:
    """Give a cluster of two Ready nodes. A test that adds nodes removes them."""
    assert programs.is_dir()
    assert settings_before
    with Cluster() as started:
        yield started.start(2)


@pytest.fixture
def run(cluster: Cluster) -> Iterator[Callable[..., list[Pod]]]:
    """Apply objects, and give the pods among them when they are Ready; all go with the test."""
    applied: list[str] = []

    def apply(*documents: Document) -> list[Pod]:
        cluster.kubectl.apply(*documents)
        named = [(each["kind"], each["metadata"]["name"]) for each in documents]
        applied.extend(f"{kind}/{name}" for kind, name in named)
        return [cluster.pod(name) for kind, name in named if kind == "Pod"]

    yield apply
    if applied:
        cluster.kubectl.delete(*applied)
