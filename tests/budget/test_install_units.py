"""`install` and systemd: units come and go, others' are kept, and what is enabled is said."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.budget.installing import BUILT, PROGRAM, with_systemd

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.frozen,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hide /run and /etc"),
]

GO_UNIT = "[Service]\\nExecStart=/usr/bin/flanneld-of-go\\n"


@pytest.fixture(autouse=True)
def _built() -> None:
    if not (BUILT / "flannel").exists() or not PROGRAM.exists():
        pytest.skip(f"{BUILT} is not built: run ./build.sh")


def test_resident_mode_comes_and_goes(tmp_path: Path) -> None:
    said = with_systemd(f"""
        $install --resident {tmp_path} >/run/said
        systemd-analyze verify /etc/systemd/system/cni-flannel.* && cat /run/asked
        ls -A /etc/systemd/system && : >/run/asked
        echo; $install {tmp_path} >/run/said && cat /run/asked; ls -A /etc/systemd/system
    """)
    assert said.splitlines() == [
        "daemon-reload",
        "enable cni-flannel.socket",
        "stop cni-flannel.service",
        "restart cni-flannel.socket",
        "cni-flannel.service",
        "cni-flannel.socket",
        "",
        "disable --now cni-flannel.socket",
        "disable --now cni-flannel.service",
        "daemon-reload",
    ]


def test_plain_mode_asks_nothing_of_systemd(tmp_path: Path) -> None:
    said = with_systemd(f"$install {tmp_path} >/run/said; ls /run /etc/systemd/system")
    assert "asked" not in said


@pytest.mark.parametrize("words", ["--resident", "--daemon"])
def test_no_units(tmp_path: Path, words: str) -> None:
    said = with_systemd(f"""
        $install {words} --no-units {tmp_path} && ls -A /etc/systemd/system && ls /run
    """)
    assert "asked" not in said
    assert ".service" not in said
    assert (f"{tmp_path}/flannel serve" in said) == (words == "--resident")


def test_the_daemons_unit(tmp_path: Path) -> None:
    said = with_systemd(f"""
        $install --daemon {tmp_path} >/run/said
        systemd-analyze verify /etc/systemd/system/flanneld.service
        cat /run/asked; grep ExecStart /etc/systemd/system/flanneld.service
        $install --daemon --uninstall {tmp_path} >/run/said
        cat /run/asked; ls -A /etc/systemd/system
    """)
    assert said.splitlines() == [
        "daemon-reload",
        f"ExecStart={tmp_path}/flanneld",
        "daemon-reload",
        "disable --now flanneld.service",
        "daemon-reload",
    ]


@pytest.mark.parametrize("kind", ["file", "link", "masked"])
def test_a_unit_of_another_daemon_is_kept_and_put_back(tmp_path: Path, kind: str) -> None:
    make = {
        "file": f"printf '{GO_UNIT}' >$unit",
        "link": f"printf '{GO_UNIT}' >/run/go.service; ln -s /run/go.service $unit",
        "masked": "ln -s /dev/null $unit",
    }[kind]
    said = with_systemd(f"""
        unit=/etc/systemd/system/flanneld.service
        {make}; stat -c '%F %N' $unit >/run/before; cat $unit >/run/content
        $install --daemon {tmp_path}; grep -c /flanneld-of-go $unit || true
        $install --daemon {tmp_path} >/run/second; grep -c "was another" /run/second || true
        : >/run/asked; $install --daemon --uninstall {tmp_path} >/run/said
        stat -c '%F %N' $unit | cmp - /run/before; cat $unit | cmp - /run/content; cat /run/asked
    """)
    lines = said.splitlines()
    assert any("flanneld.service was another's: kept as" in line for line in lines)
    assert lines[-4:] == ["0", "0", "stop flanneld.service", "daemon-reload"]


def test_a_unit_of_the_distribution_is_named(tmp_path: Path) -> None:
    said = with_systemd(f"""
        mount -t tmpfs none /usr/lib/systemd/system
        printf '{GO_UNIT}' >/usr/lib/systemd/system/flanneld.service
        $install --daemon {tmp_path}
    """)
    assert "/usr/lib/systemd/system/flanneld.service counts no more" in said


def test_units_of_an_installation_elsewhere_are_not_taken_over(tmp_path: Path) -> None:
    said = with_systemd(f"""
        $install --resident {tmp_path}/one >/run/said; : >/run/asked
        $install --resident {tmp_path}/two 2>&1 && exit 1; ls {tmp_path}; cat /run/asked
        $install {tmp_path}/two >/run/said; cat /run/asked; ls -A /etc/systemd/system
        $install --uninstall {tmp_path}/two >/run/said; ls -A /etc/systemd/system
    """)
    first, *rest = said.splitlines()
    assert "is that of an installation in another folder" in first
    units = ["cni-flannel.service", "cni-flannel.socket"]
    assert rest == ["one", *units, *units]


@pytest.mark.parametrize("name", ["a b", "100%", 'say"it"', "a\\b", "$HOME"])
def test_a_folder_that_systemd_cannot_name(tmp_path: Path, name: str) -> None:
    said = with_systemd(f"""
        $install --resident '{tmp_path}/{name}' 2>&1 && exit 1; ls -A {tmp_path} /etc/systemd/system
    """)
    assert "systemd starts nothing from" in said
    assert "cni-flannel" not in said.partition("\n")[2]


def test_a_systemd_that_refuses_is_heard(tmp_path: Path) -> None:
    said = with_systemd(f"""
        printf '#!/bin/sh\\necho "Failed: no bus" >&2; exit 1\\n' >/run/bin/systemctl
        $install --resident {tmp_path} 2>&1 >/run/said && exit 1 || true
    """)
    assert said == "flanneld install: systemctl daemon-reload: Failed: no bus\n"


def test_who_is_not_root_is_told_before_anything_is_touched(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    said = with_systemd(f"""
        setpriv --reuid 65534 --clear-groups $install --resident {tmp_path} 2>&1 && exit 1
        ls -A {tmp_path}
    """)
    assert "/etc/systemd/system cannot be written: run this as root, or with --no-units" in said
    assert len(said.splitlines()) == 1


def test_uninstall_of_the_pair_takes_the_units_too(tmp_path: Path) -> None:
    said = with_systemd(f"""
        $install --resident {tmp_path} >/run/said
        mkdir /run/cni-flannel && touch /run/cni-flannel/cni.sock
        $install --uninstall {tmp_path} >/run/said
        ls -A {tmp_path} /etc/systemd/system /run
    """)
    assert "cni-flannel" not in said


def test_uninstall_leaves_what_another_installation_uses(tmp_path: Path) -> None:
    said = with_systemd(f"""
        mount -t tmpfs none /opt && mount -t tmpfs none /var/lib
        mkdir -p /var/lib/cni/networks/.index/cbr0
        $install /opt/cni/bin >/run/said && $install {tmp_path} >/run/said
        /opt/cni/bin/flannel serve 2>/dev/null & server=$!
        while ! [ -S /run/cni-flannel/cni.sock ]; do sleep 0.1; done
        $install --uninstall {tmp_path} >/run/said; grep left /run/said
        ls /run/cni-flannel /var/lib/cni/networks/.index
        kill $server; wait $server
        $install --uninstall /opt/cni/bin >/run/said; ls -A /opt /var/lib/cni/networks
        ls /run | grep -c cni || true
    """)
    assert said.splitlines() == [
        (
            "install: left /var/lib/cni/networks/.index, which an installation in"
            " /opt/cni/bin would need"
        ),
        "/run/cni-flannel:",
        "cni.sock",
        "cni.sock.lock",
        "",
        "/var/lib/cni/networks/.index:",
        "cbr0",
        "/opt:",
        "",
        "/var/lib/cni/networks:",
        "0",
    ]


def test_the_templates_are_those_of_the_checkout() -> None:
    """What is frozen is what lies in packaging/systemd."""
    root = PROGRAM.parents[2]
    frozen = PROGRAM.parent / "_internal" / "flanneld" / "installation" / "systemd"
    done = subprocess.run(
        ["diff", "-r", root / "packaging" / "systemd", frozen],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
