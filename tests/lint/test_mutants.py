"""The lists of mutants fit the code as it is now: `./build.sh mutate` can run each of them."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.mutants.mutant import AREAS, ROOT, mutants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mutants.mutant import Mutant

EVERY = [mutant for area in AREAS for mutant in mutants(area)]
FEWEST = 150
ADVICE = """
Code has moved on: give each mutant a text of the new code (in tests/mutants/AREA.toml), or take it
out of its list if there is nothing left that can go wrong so."""


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in EVERY}))
def test_the_mutants_of_a_file_fit(file: str) -> None:
    source = (ROOT / file).read_text()
    here = [mutant for mutant in EVERY if mutant.file == file]
    wrong = [f"{one.says}: {what}" for one in here for what in misfits(one, source)]
    assert not wrong, "\n".join([*wrong, ADVICE])


def misfits(mutant: Mutant, source: str) -> Iterator[str]:
    """Why a mutant cannot be tried."""
    try:
        changed = mutant.applied_to(source)
        if mutant.file.endswith(".py"):
            ast.parse(changed)
    except (ValueError, SyntaxError) as error:
        yield str(error)
    if mutant.text == mutant.becomes:
        yield "nothing changes"
    for test in mutant.tests:
        file, *names = test.split("::")
        content = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
        if not content or not all(f"def {name}(" in content for name in names):
            yield f"there is no test {test}"


def test_there_are_enough_of_every_area() -> None:
    counts = Counter(mutant.area for mutant in EVERY)
    assert counts.keys() == set(AREAS)
    assert counts.total() >= FEWEST


def test_each_is_there_once_and_says_its_own() -> None:
    assert max(Counter((one.file, one.text, one.becomes) for one in EVERY).values()) == 1
    assert max(Counter((one.file, one.says) for one in EVERY).values()) == 1


def test_an_equivalent_one_has_a_proof() -> None:
    assert all(len(one.equivalent.split()) >= 8 for one in EVERY if one.equivalent)
