"""Every part of ours that a call can ask for, loaded before the first call.

A process per call loads what it needs when it needs it.  Here no call should wait for that, and the
files may be replaced by an upgrade while the process lives.  Imported for its imports alone.
"""

from __future__ import annotations

import json
import select
import stat
import traceback

import cni.chain
import cni.invoke
import cni.probe
import cni_flannel.bridge.addition
import cni_flannel.bridge.readiness
import cni_flannel.bridge.removal
import cni_flannel.bridge.steps_claim
import cni_flannel.bridge.steps_dad
import cni_flannel.bridge.steps_route
import cni_flannel.bridge.verify
import cni_flannel.garbage
import cni_flannel.kernel.iptables
import cni_flannel.kernel.macspoof
import cni_flannel.kernel.masq
import cni_flannel.kernel.nftables
import ipam.allocation
import ipam.daemon
import ipam.failure
import ipam.lock
import ipam.recovery
import ipam.resolv
import ipam.subnet_env
import ipam.sweep
import ipam.verify
import ipam.witness
import netlink.events
import netlink.port
