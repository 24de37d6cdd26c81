"""Programs beside Python: found, fetched, or missed with a reason that fails only in CI."""

import os
import stat
import sys
from pathlib import Path

import pytest

from tools import programs


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine with no program on its path and nothing downloaded; each command that is run is noted and fails."""
    commands = []
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(programs, "DOWNLOADS", tmp_path / "browsers")
    monkeypatch.setattr(programs, "APPLICATIONS", ())
    monkeypatch.setattr(programs, "_run", lambda *command, **_: commands.append(command) or False)
    (tmp_path / "bin").mkdir()
    return commands


def put(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_an_installed_program_is_found_and_nothing_is_fetched(bare, tmp_path):
    paths = {
        name: put(tmp_path / "bin" / file)
        for name, file in {"browser": "google-chrome", "compiler": "gcc", "node": "node"}.items()
    }
    programs.get(list(paths))
    assert {name: programs.find(name) for name in paths} == paths and bare == []


def test_the_named_browser_comes_first_and_a_wrong_name_is_refused(bare, tmp_path, monkeypatch):
    put(tmp_path / "bin" / "chromium")
    monkeypatch.setenv("CHROMIUM", mine := put(tmp_path / "mine"))
    assert programs.find("browser") == mine
    monkeypatch.setenv("CHROMIUM", "/nowhere")
    with pytest.raises(ValueError, match="CHROMIUM: got '/nowhere', need the path of a Chromium"):
        programs.find("browser")


@pytest.mark.parametrize("starts", [True, False])
def test_a_downloaded_browser_is_used_if_it_starts(bare, tmp_path, monkeypatch, starts):
    shell = put(tmp_path / "browsers" / "chromium_headless_shell-1" / "linux" / "headless_shell")
    monkeypatch.setattr(programs, "_starts", lambda path: path == shell and starts)
    assert programs.find("browser") == (shell if starts else None)


@pytest.mark.parametrize("root", [True, False])
def test_what_is_missing_is_downloaded_or_else_comes_from_the_distribution(bare, tmp_path, monkeypatch, root):
    put(tmp_path / "bin" / "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    programs.get(["browser", "node"])
    assert bare[0] == (sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")
    installs = [command for command in bare if "install" in command[1:2]]
    assert [command[-4:] for command in installs] == [
        ("chromium", "fonts-dejavu-core", "fonts-liberation", "nodejs")
    ] * root


def test_without_any_the_message_names_packages(bare, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["programs"])
    assert programs.main() == 1
    err = capsys.readouterr().err
    assert "browser, compiler, node" in err and "apt-get install chromium" in err


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_program_skips_a_test_and_fails_it_in_ci(bare, monkeypatch, program, ci, outcome):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no node found"):
        program("node")
