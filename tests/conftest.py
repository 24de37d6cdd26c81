"""What tests share: programs beside Python, without which a test is skipped, and in CI fails."""

import os

import pytest

from tools import programs


@pytest.fixture(scope="session")
def program():
    """Return a function from ``browser``, ``compiler`` or ``node`` to its path; without one the test is skipped."""

    def path(name: str) -> str:
        found = programs.find(name)
        if found is None:
            reason = f"no {name} found: python -m tools.programs says how to get one"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        return found

    return path
