"""Our result on top of an earlier plugin's, which a chain hands on in prevResult."""

from __future__ import annotations

from cni import chain

EARLIER = {
    "interfaces": [{"name": "ens4", "sandbox": "/run/netns/a"}],
    "ips": [{"address": "10.9.0.2/24", "interface": 0}, {"address": "10.9.0.3/24"}],
    "routes": [{"dst": "10.9.0.0/16"}, {"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.9.0.1"]},
}
OURS = {
    "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
    "ips": [{"address": "10.244.1.2/24", "interface": 1}],
    "routes": [{"dst": "0.0.0.0/0"}],
}


def test_what_was_there_keeps_its_interface() -> None:
    result = chain.appended(OURS, EARLIER)
    assert [one["name"] for one in result["interfaces"]] == ["cni0", "eth0", "ens4"]
    assert result["ips"] == [
        {"address": "10.244.1.2/24", "interface": 1},
        {"address": "10.9.0.2/24", "interface": 2},
        {"address": "10.9.0.3/24"},
    ]


def test_a_route_is_there_once() -> None:
    assert chain.appended(OURS, EARLIER)["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16"}]


def test_dns_is_ours_or_the_earlier_one_s() -> None:
    assert chain.appended(OURS, EARLIER)["dns"] == EARLIER["dns"]
    own = {"nameservers": ["10.244.0.10"]}
    assert chain.appended({**OURS, "dns": own}, EARLIER)["dns"] == own
    assert chain.appended({}, {}) == {"interfaces": [], "ips": [], "routes": [], "dns": {}}
