"""Every example of a docstring runs as it is shown, after `import sobolev_lib as sl` alone."""

import doctest
import importlib
import pkgutil

import pytest

import sobolev_lib as sl

MODULES = ["sobolev_lib", *(module.name for module in pkgutil.walk_packages(sl.__path__, "sobolev_lib."))]
EXAMPLES = {
    test.name: test
    for name in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), globs={})
    if test.examples
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_after_one_import(name):
    test, told = EXAMPLES[name], []
    test.globs = {"sl": sl}
    doctest.DocTestRunner().run(test, out=told.append)
    assert not told, "".join(told)
