"""The lines that the mutation check breaks are still there; ``python -m tools.mutate`` breaks them."""

import ast

import pytest

from tools.mutate import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.module}: {m.new}")
def test_each_mutant_changes_one_place_of_a_module_and_names_its_tests(mutant):
    assert mutant.count() == 1 and mutant.old != mutant.new
    ast.parse(mutant.path().read_text(encoding="utf-8").replace(mutant.old, mutant.new))
    assert all((ROOT / "tests" / f"{name}.py").is_file() for name in mutant.tests.split())


def test_forty_lines_of_all_packages_are_broken():
    packages = {path.parent.name for path in (ROOT / "sobolev_lib").glob("*/__init__.py")}
    assert len(MUTANTS) >= 40 and {mutant.module.split("/")[0] for mutant in MUTANTS} == packages
