"""A container runtime's side of CNI, as libcni plays it: conflists, chains, the results cache.

What a plugin is given, and when, follows SPEC 1.1.0 sections 3 and 4 and libcni's habits, which
plugins depend on in practice:
- `name` and `cniVersion` of the list, `prevResult`, and of the runtime's capabilities those that
  the plugin's conf declares, as `runtimeConfig`; `capabilities` stays in, as libcni leaves it, so
  that plugins have to bear it;
- DEL in reverse order, stopping at the first failure; `prevResult` from 0.4.0 on, from the cache;
- CHECK from 0.4.0; GC first does DEL for each cached attachment that is not valid, then, from
  1.1.0, GC with the valid ones under the specification's key and the one it had at first;
- STATUS from 1.1.0, with neither `prevResult` nor `runtimeConfig`;
- a missing value is an empty variable in the environment, not a missing one.

Knows no plugin by name. Where the plugins run is a `Host`: a World, or a machine with containerd.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Protocol

from conformance.conflist import NEWEST, Attachment, UnsupportedError, number
from conformance.world import SYSTEM_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from conformance.conflist import Conflist
    from conformance.world import Outcome

RESULTS = "/var/lib/cni/results"
VALID_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")


class Host(Protocol):
    """Where plugins are run and files are kept."""

    def run(
        self,
        argv: Sequence[str],
        stdin: str | bytes | None = None,
        env: dict[str, str] | None = None,
        *,
        check: bool = True,
        timeout: float | None = None,
    ) -> Outcome: ...

    def path(self, path: str) -> Path: ...


class PluginError(Exception):
    """A plugin of the chain failed; code 0 where it did not say which (no JSON on stdout)."""

    def __init__(self, plugin: str, command: str, outcome: Outcome) -> None:
        self.plugin, self.command, self.outcome = plugin, command, outcome
        self.code, self.msg, self.details = 0, "", ""
        try:
            document = json.loads(outcome.stdout)
            self.code, self.msg = int(document["code"]), str(document["msg"])
            self.details = str(document.get("details", ""))
        except (ValueError, KeyError, TypeError):
            told = outcome.stderr.strip() or outcome.stdout.strip()
            self.msg = f"no error object, exit status {outcome.status}: {told[:400]!r}"
        super().__init__(f"plugin {plugin} failed ({command}): {self.msg}; {self.details}")


class Runtime:
    """Chains of plugins on a host; `cni_path` is the host's search path for them."""

    def __init__(self, host: Host, cni_path: str, results: str = RESULTS) -> None:
        self.host = host
        self.cni_path = cni_path
        self.results = results

    # -------------------------------------------------------------------------------------- verbs

    def add(self, conflist: Conflist, attachment: Attachment) -> dict[str, Any]:
        """Attach; the last plugin's result. After a failure nothing is undone: that is a DEL."""
        result: dict[str, Any] | None = None
        for plugin in conflist.plugins:
            conf = _filled(conflist, plugin, attachment, result)
            outcome = self._call("ADD", conf, attachment)
            result = outcome.result
            result.setdefault("cniVersion", conflist.version)
        assert result is not None
        self._remember(conflist, attachment, result)
        return result

    def delete(self, conflist: Conflist, attachment: Attachment) -> None:
        """Detach, last plugin first; the first failure ends it, and the cache stays."""
        result = self.cached(conflist, attachment) if _has(conflist, "0.4.0") else None
        for plugin in reversed(conflist.plugins):
            self._call("DEL", _filled(conflist, plugin, attachment, result), attachment)
        self._cache(conflist, attachment).unlink(missing_ok=True)

    def check(self, conflist: Conflist, attachment: Attachment) -> None:
        """CHECK each plugin with the chain's result."""
        if not _has(conflist, "0.4.0"):
            raise UnsupportedError(f"version {conflist.version} does not support CHECK")
        if conflist.disable_check:
            return
        result = self.cached(conflist, attachment)
        for plugin in conflist.plugins:
            self._call("CHECK", _filled(conflist, plugin, attachment, result), attachment)

    def gc(self, conflist: Conflist, valid: Sequence[Attachment]) -> list[Exception]:
        """Collect what is not valid: all that can be; what failed on the way."""
        if conflist.disable_gc:
            return []
        failures: list[Exception] = []
        keep = {(one.container_id, one.ifname) for one in valid}
        for known in self.attachments(conflist.name):
            if (known.container_id, known.ifname) not in keep:
                try:
                    self.delete(conflist, known)
                except PluginError as error:
                    failures.append(error)
        if not _has(conflist, "1.1.0"):
            return failures
        listed = [one.valid() for one in valid]
        for plugin in conflist.plugins:
            conf = _named(conflist, plugin) | dict.fromkeys(VALID_KEYS, listed)
            try:
                self._call("GC", conf)
            except PluginError as error:
                failures.append(error)
        return failures

    def status(self, conflist: Conflist) -> None:
        """Ask each plugin whether an ADD would work; versions before 1.1.0 cannot be asked."""
        if _has(conflist, "1.1.0"):
            for plugin in conflist.plugins:
                self._call("STATUS", _named(conflist, plugin))

    def versions(self, plugin: str) -> list[str]:
        """Versions that a plugin says it supports."""
        conf = {"type": plugin, "cniVersion": NEWEST}
        outcome = self._call("VERSION", conf, Attachment("", "dummy", "dummy"))
        return [str(version) for version in outcome.result["supportedVersions"]]

    # -------------------------------------------------------------------------------------- cache

    def cached(self, conflist: Conflist, attachment: Attachment) -> dict[str, Any] | None:
        """Return the result that ADD left, or None."""
        try:
            found = json.loads(self._cache(conflist, attachment).read_bytes())
        except FileNotFoundError:
            return None
        result = found["result"]
        assert isinstance(result, dict)
        return result

    def attachments(self, network: str) -> list[Attachment]:
        """Give the attachments of a network that are in the cache, whoever put them there."""
        found = []
        folder = self.host.path(self.results)
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            entry = json.loads(file.read_bytes())
            if entry.get("kind") == "cniCacheV1" and entry["networkName"] == network:
                found.append(
                    Attachment(
                        entry["containerId"],
                        entry.get("netns", ""),
                        entry["ifName"],
                        tuple((key, value) for key, value in entry.get("cniArgs") or ()),
                        entry.get("capabilityArgs") or {},
                    )
                )
        return found

    def _cache(self, conflist: Conflist, attachment: Attachment) -> Path:
        name = f"{conflist.name}-{attachment.container_id}-{attachment.ifname}"
        return self.host.path(f"{self.results}/{name}")

    def _remember(self, conflist: Conflist, attachment: Attachment, result: dict[str, Any]) -> None:
        entry: dict[str, Any] = {
            "kind": "cniCacheV1",
            "containerId": attachment.container_id,
            "config": base64.b64encode(conflist.text).decode(),
            "ifName": attachment.ifname,
            "networkName": conflist.name,
            "netns": attachment.netns,
        }
        if attachment.args:
            entry["cniArgs"] = [list(pair) for pair in attachment.args]
        if attachment.capabilities:
            entry["capabilityArgs"] = attachment.capabilities
        file = self._cache(conflist, attachment)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(json.dumps(entry | {"result": result}, separators=(",", ":")))
        file.chmod(0o600)

    # --------------------------------------------------------------------------------------- calls

    def _call(
        self, command: str, conf: dict[str, Any], attachment: Attachment | None = None
    ) -> Outcome:
        """Run one plugin; PluginError unless it says success as its verb has to."""
        asked = attachment or Attachment("", "", "")
        env = {
            "PATH": SYSTEM_PATH,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": asked.container_id,
            "CNI_NETNS": asked.netns,
            "CNI_IFNAME": asked.ifname,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in asked.args),
            "CNI_PATH": self.cni_path,
        }
        plugin = str(conf["type"])
        outcome = self.host.run([self.find(plugin)], json.dumps(conf), env, check=False)
        if outcome.status != 0 or (command in {"ADD", "VERSION"}) != bool(outcome.stdout.strip()):
            raise PluginError(plugin, command, outcome)
        return outcome

    def find(self, plugin: str) -> str:
        """Path of a plugin: the first regular file of that name on the search path."""
        for folder in self.cni_path.split(":"):
            if self.host.path(f"{folder}/{plugin}").is_file():
                return f"{folder}/{plugin}"
        raise UnsupportedError(f"failed to find plugin {plugin!r} in path {self.cni_path}")


def _has(conflist: Conflist, version: str) -> bool:
    return number(conflist.version) >= number(version)


def _named(conflist: Conflist, plugin: dict[str, Any]) -> dict[str, Any]:
    return plugin | {"name": conflist.name, "cniVersion": conflist.version}


def _filled(
    conflist: Conflist,
    plugin: dict[str, Any],
    attachment: Attachment,
    result: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return a plugin's conf as it is sent for ADD, DEL and CHECK."""
    conf = _named(conflist, plugin)
    if result is not None:
        conf["prevResult"] = result
    declared = plugin.get("capabilities") or {}
    given = {key: value for key, value in attachment.capabilities.items() if declared.get(key)}
    return conf | {"runtimeConfig": given} if given else conf


def main(argv: list[str]) -> int:
    """The verb: chains with real traffic."""
    from conformance.chains.verb import main as run_chains  # it is built on this module

    return run_chains(argv)
