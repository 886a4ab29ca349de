"""Compile our modules for the frozen plugins: less to load means an earlier start.

Docstrings, asserts, annotations and what stands under `if TYPE_CHECKING:` do nothing at run time,
but are read, unmarshalled and built for every pod. Line numbers stay, for the one error that shows
where it came from. Called by plugins.spec; imports nothing of ours.
"""

from __future__ import annotations

import ast
import marshal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Strip(ast.NodeTransformer):
    """Take annotations and typing-only blocks out of a module."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """A function without annotations."""
        self.generic_visit(node)
        node.returns = None
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            argument.annotation = None
        for variadic in (arguments.vararg, arguments.kwarg):
            if variadic is not None:
                variadic.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        """An assignment without its annotation; a bare annotation is gone."""
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        """What else there is to `if TYPE_CHECKING:`."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse or ast.copy_location(ast.Pass(), node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        """No __future__: nothing is left for it to postpone, and it would be loaded as a module."""
        return ast.copy_location(ast.Pass(), node) if node.module == "__future__" else node


def compact(source: str, filename: str) -> bytes:
    """Marshalled code of a module."""
    tree = ast.fix_missing_locations(Strip().visit(ast.parse(source)))
    return marshal.dumps(compile(tree, filename, "exec", dont_inherit=True, optimize=2))


def concatenate(modules: Mapping[str, bytes]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """All modules in one file: its content, and each one's (offset, size) in it."""
    content = b""
    places = {}
    for name, code in sorted(modules.items()):
        places[name] = (len(content), len(code))
        content += code
    return content, places
