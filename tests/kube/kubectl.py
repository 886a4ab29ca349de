"""kubectl of the same release, as the cluster's administrator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.kube.underlay import BIN
from tests.lab.space import LabError, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.world import Outcome
    from tests.lab.space import Space

Document = dict[str, Any]


class Kubectl:
    """Calls of one user. Names of objects are KIND/NAME, in the namespace `default`."""

    def __init__(self, space: Space, kubeconfig: str) -> None:
        self._space = space
        self.words = (f"{BIN}/kubectl", f"--kubeconfig={kubeconfig}", "--cache-dir=/run/kubectl")

    def run(self, *argv: str, text: str = "", check: bool = True) -> Outcome:
        """Run it; with ``check``, a failure is an AssertionError."""
        return self._space.run(*self.words, *argv, text=text, check=check)

    def get(self, *argv: str) -> Document:
        """Give an object, or a list of them."""
        found: Document = json.loads(self.run("get", "-o", "json", *argv).stdout)
        return found

    def items(self, *argv: str) -> list[Document]:
        """Give the objects of a list."""
        found: list[Document] = self.get(*argv)["items"]
        return found

    def apply(self, *documents: Document) -> None:
        """Apply objects as they are written in a manifest."""
        together = {"apiVersion": "v1", "kind": "List", "items": documents}
        self.run("apply", "-f", "-", text=json.dumps(together))

    def delete(self, *argv: str) -> None:
        """Delete objects and wait until they are gone; such as are missing are."""
        self.run("delete", "--ignore-not-found", "--wait", "--timeout=180s", *argv)

    def execute(self, pod: str, *argv: str, check: bool = True) -> Outcome:
        """Run a program in a pod, through the API server and its kubelet."""
        return self.run("exec", pod, "--", *argv, check=check)

    def until(self, what: str, is_so: Callable[[Document], bool], *argv: str) -> Document:
        """Wait until an object, or a list, is as wanted; the object. LabError with what it was."""
        found: Document = {}

        def look() -> bool:
            nonlocal found
            done = self.run("get", "-o", "json", *argv, check=False)
            found = json.loads(done.stdout) if done.status == 0 else {"error": done.stderr}
            return done.status == 0 and is_so(found)

        try:
            until(what, look, patience_s=180, pause_s=0.2)
        except LabError as error:
            told = self.run("describe", *argv, check=False).stdout
            raise LabError(f"{error}\n{told or found}") from error
        return found
