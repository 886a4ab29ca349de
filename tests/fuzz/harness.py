"""One target under atheris: coverage guides the inputs, hypothesis gives them their shape.

`python -m tests.fuzz --atheris` runs it for all targets. By hand, with libFuzzer's options:
python -m tests.fuzz.harness wire -runs=200000 -max_len=4096 [a folder for the corpus]
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["cni", "cni_flannel", "flanneld", "ipam", "netlink"]):
    from tests.fuzz.targets import TARGETS

from hypothesis import given, settings


def main() -> None:
    name, *options = sys.argv[1:]
    target = TARGETS[name]
    test = settings(database=None, deadline=None)(given(target.inputs)(target.check))
    atheris.Setup([sys.argv[0], *options], test.hypothesis.fuzz_one_input)  # type: ignore[attr-defined]
    atheris.Fuzz()


if __name__ == "__main__":
    main()
