"""The first lines of Python that a frozen plugin runs: our own modules, without a search for them.

plugins.spec puts two constants above this text, and compiles both to the file `boot`, which
launcher/python.c runs: MODULES, which says where in the file `modules` of the same folder each
module lies, and ENTRIES, the module to run for each program.

What it knows: that file. What it must not know: anything about CNI, or about the environment.
Rarely used modules of the standard library lie as ordinary .pyc files in the folder; the ordinary
importer finds them.

Imports: sys, os, gc, marshal and importlib's frozen half, all in the interpreter already. (Not even
__future__: that is a module too, and the importer for it stands below.)
"""

import gc
import os
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    MODULES: dict[str, tuple[bool, int, int]] = {}  # is a package, offset, size
    ENTRIES: dict[str, str] = {}


class Modules:
    """Importer of MODULES: finder and loader in one, used as a class and never instantiated."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Spec of a module of ours; None for everybody else's."""
        module = MODULES.get(name)
        return None if module is None else ModuleSpec(name, Modules, is_package=module[0])  # type: ignore[arg-type]

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Let the import system make an ordinary module object."""

    @staticmethod
    def exec_module(module: "ModuleType") -> None:
        """Run a module's code in its namespace."""
        exec(code_of(module.__name__), module.__dict__)


def code_of(name: str) -> "CodeType":
    """Code of a module of ours."""
    _, offset, size = MODULES[name]
    try:
        return loads(os.pread(FILE, size, offset))  # type: ignore[no-any-return]
    except OSError as error:
        raise ImportError(f"read {name} from the file of modules: {error}", name=name) from error


gc.disable()  # a process of ten milliseconds gives its memory back as a whole
sys.meta_path.insert(0, Modules)
FILE = os.open(f"{sys.path[0]}/modules", os.O_RDONLY | os.O_CLOEXEC)
exec(code_of(ENTRIES[sys.argv[0]]))  # its code runs here, as __main__
