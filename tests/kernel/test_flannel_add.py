from __future__ import annotations
import json, time
def test_x(node):
    t=time.time(); node.write_subnet_env(); node.add_pod("p1"); print(time.time()-t)
    conf={"cniVersion":"0.3.1","name":"cbr0","type":"flannel","delegate":{"hairpinMode":True,"isDefaultGateway":True}}
    t=time.time(); r=node.cni("ADD",conf,container_id="c1",netns="/run/netns/p1"); print(time.time()-t); print(r.stdout, r.stderr)
    t=time.time(); print(node.run(["sh","-c","ip -d -j addr; ip -j route show table all; nft -j list ruleset; iptables-save; ip -d link; ip neigh show nud all; sysctl net.ipv4.ip_forward"]).stdout);print(time.time()-t)
    print(node.files("/var/lib/cni"), node.files("/run"))
    t=time.time(); r=node.cni("DEL",conf,container_id="c1",netns="/run/netns/p1"); print(time.time()-t); print(r.stdout, r.stderr)
    print(node.run(["sh","-c","ip -d  addr; ip neigh show nud all"]).stdout)
    print(node.files("/var/lib/cni"), node.files("/run"))
    node.run(["sh","-c","ip link add d type bridge; ip link add m0 link d type macvlan; ip link add i type ifb; tc qdisc add dev i root tbf rate 1mbit burst 10k latency 10ms"])
    assert 0
