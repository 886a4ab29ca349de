"""Cases: one behaviour a TOML file, read into plain values and spread over plugins and versions.

    why = "DEL of what is gone already is a success"      one line
    spec = ["2.del.repeated"]          ids of clauses.toml; or source = "plugins#1110"
    plugin = ["flannel", "bridge"]     one run for each; the default is the folder's name, or all
    versions = ">=0.4.0"               "all", ">=V", "<=V", "V" or a list; the default is >=0.3.0
    each = true                        run in each of these versions, not only in one
    needs = "bridge-vlan"              what has to be there for the case to apply: runner.FEATURES
    given = {subnet_env, files, run, pods, plugins}       see world building in steps.py
    conf = {...}                       laid over the plugin's base conf, for all steps
    [[step]]                           verb, or run = "shell line"; conf env expect ...

The id of a case is its path below cases/, without suffix. An unknown key is an error: a case that
is misspelt must not pass. Knows nothing of worlds and plugins' answers.
"""

from __future__ import annotations

import copy
import fnmatch
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = Path(__file__).parent / "cases"
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
PLUGINS = ("flannel", "bridge", "host-local")
USUAL_VERSION = "1.0.0"
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}

NETWORK = "cbr0"
_IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.244.1.0/24"}]],
    "routes": [{"dst": "10.244.0.0/16"}],
}
# What a case changes with `conf`. All three hand out 10.244.1.2/24 first.
BASE_CONFS: dict[str, dict[str, Any]] = {
    "flannel": {
        "name": NETWORK,
        "type": "flannel",
        "delegate": {"hairpinMode": True, "isDefaultGateway": True},
    },
    "bridge": {
        "name": NETWORK,
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "hairpinMode": True,
        "mtu": 1450,
        "ipam": _IPAM,
    },
    "host-local": {"name": NETWORK, "type": "host-local", "ipam": _IPAM},
}
CASE_KEYS = {"why", "spec", "source", "plugin", "versions", "each", "needs", "lacks", "given"}
CASE_KEYS |= {"conf", "step"}
GIVEN_KEYS = {"subnet_env", "files", "run", "pods", "plugins"}
STEP_KEYS = {"verb", "run", "plugin", "pod", "pods", "cid", "ifname", "netns", "env", "conf"}
STEP_KEYS |= {"stdin", "prev", "amend", "valid", "expect", "versions", "background"}
EXPECT_KEYS = {"status", "result", "stdout", "stderr", "error", "host", "pod", "rules", "files"}
EXPECT_KEYS |= {"unchanged", "clean", "distinct", "seconds"}


class CaseError(Exception):
    """A case's file is not as it should be."""


class Case(NamedTuple):
    """A file of cases/, defaults filled in; `given` and `steps` as they stand in the file."""

    id: str
    why: str
    spec: list[str]
    source: str
    plugins: list[str]
    versions: list[str]
    each: bool
    needs: str
    lacks: str
    given: dict[str, Any]
    conf: dict[str, Any]
    steps: list[dict[str, Any]]


class Instance(NamedTuple):
    """A case for one plugin in one version: what is run."""

    case: Case
    plugin: str
    version: str

    @property
    def id(self) -> str:
        """Name in reports: `protocol/del-twice:flannel@1.0.0`."""
        return f"{self.case.id}:{self.plugin}@{self.version}"


def load(folder: Path = CASES, pattern: str = "*") -> list[Case]:
    """Read the cases whose id matches a glob, sorted by id."""
    files = sorted(folder.rglob("*.toml"))
    cases = {str(file.relative_to(folder).with_suffix("")): file for file in files}
    return [read(name, file) for name, file in cases.items() if fnmatch.fnmatch(name, pattern)]


def read(name: str, file: Path) -> Case:
    """Read one case; CaseError names the file and the key."""
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{file}: {error}") from None
    _check(name, raw)
    area = name.partition("/")[0]
    plugin = raw.get("plugin", [area] if area in PLUGINS else list(PLUGINS))
    steps = raw["step"]
    versions = applicable(raw.get("versions", default_versions(steps)))
    return Case(
        id=name,
        why=raw["why"],
        spec=raw.get("spec", []),
        source=raw.get("source", ""),
        plugins=[plugin] if isinstance(plugin, str) else plugin,
        versions=versions,
        each=raw.get("each", False),
        needs=raw.get("needs", ""),
        lacks=raw.get("lacks", ""),
        given=raw.get("given", {}),
        conf=raw.get("conf", {}),
        steps=steps,
    )


def _check(name: str, raw: dict[str, Any]) -> None:
    """Refuse unknown and missing keys."""
    expectations = [step.get("expect", {}) for step in raw.get("step", [])]
    for where, table, known in [
        ("", raw, CASE_KEYS),
        ("given.", raw.get("given", {}), GIVEN_KEYS),
        *(("step.", step, STEP_KEYS) for step in raw.get("step", [])),
        *(("expect.", expect, EXPECT_KEYS) for expect in expectations),
    ]:
        if unknown := set(table) - known:
            raise CaseError(f"{name}: unknown key {where}{', '.join(sorted(unknown))}")
    if not raw.get("why") or not raw.get("step"):
        raise CaseError(f"{name}: a case has `why` and at least one [[step]]")
    for pattern in _patterns(raw.get("step", [])):
        try:
            re.compile(pattern)
        except re.error as error:
            raise CaseError(f"{name}: {pattern!r}: {error}") from None
    if not raw.get("spec") and not raw.get("source"):
        raise CaseError(f"{name}: a case has `spec` or `source`")


def _patterns(value: Any) -> Iterator[str]:
    """Give the regular expressions of a value."""
    if isinstance(value, str) and value.startswith("re:"):
        yield value[3:]
    elif isinstance(value, dict):
        for one in value.values():
            yield from _patterns(one)
    elif isinstance(value, list):
        for one in value:
            yield from _patterns(one)


def default_versions(steps: list[dict[str, Any]]) -> str:
    """From which version on all the verbs of the steps are there."""
    since = [SINCE.get(step.get("verb", ""), "0.3.0") for step in steps]
    return f">={max(since, key=number)}"


def applicable(wanted: str | list[str]) -> list[str]:
    """Turn `versions` of a case into a list."""
    if isinstance(wanted, list):
        return wanted
    if wanted == "all":
        return list(VERSIONS)
    if wanted.startswith(">="):
        return [version for version in VERSIONS if number(version) >= number(wanted[2:])]
    if wanted.startswith("<="):
        return [version for version in VERSIONS if number(version) <= number(wanted[2:])]
    return [wanted]


def number(version: str) -> tuple[int, ...]:
    """Give a version as numbers that compare."""
    return tuple(int(part) for part in version.split("."))


def spread(cases: list[Case], plugins: list[str], spec: str = "") -> list[Instance]:
    """List what is to be run: `spec` is one version, `all`, or empty for each case's usual one."""
    found = []
    for case in cases:
        if spec and spec != "all":
            versions = [version for version in case.versions if version == spec]
        elif spec == "all" or case.each:
            versions = case.versions
        else:
            versions = [USUAL_VERSION if USUAL_VERSION in case.versions else case.versions[-1]]
        found += [
            Instance(case, plugin, version)
            for plugin in case.plugins
            if plugin in plugins
            for version in versions
        ]
    return found


def conf_of(instance: Instance, step: dict[str, Any]) -> dict[str, Any]:
    """Conf of a step: the plugin's base, the case's conf over it, the step's over both."""
    base = {"cniVersion": instance.version, **BASE_CONFS[step.get("plugin", instance.plugin)]}
    return laid_over(laid_over(base, instance.case.conf), step.get("conf", {}))


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge tables key by key; the word "absent" takes a key away, any other value replaces."""
    merged = copy.deepcopy(below)
    for key, value in above.items():
        if value == "absent":
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = laid_over(merged[key], value)
        elif isinstance(value, dict):
            merged[key] = laid_over({}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
