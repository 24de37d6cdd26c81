"""Outputs do not depend on the machine: another instruction set and another number of threads give the same.

`make test` compares all notebooks with the machine's own instruction set and one thread; here they are compared with
the most basic one and two threads, so that the two runs together cover both values of both.

Chapters that shrink a network are left out: which of two nodes goes is a choice between nearly equals, hundreds of
times in a row, and the last bits of the processor decide it. Their assertions are about what does not hang on it; their
stored outputs are those of one instruction set.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tools import execute

ROOT = Path(__file__).resolve().parents[2]
CHOOSE = {"00_at_a_glance", "07_significance_pruning", "09_case_study", "12_beyond_finance"}  # which node goes
CHAPTERS = [source for source in execute.sources(ROOT / "notebooks", []) if source.stem not in CHOOSE]
LEVEL = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2", "TQDM_DISABLE": "1"}


def test_the_setting_reaches_torch():
    code = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | LEVEL, capture_output=True, text=True)
    assert done.stdout.split() == ["DEFAULT", "2"]


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="this processor has one level only")
@pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_gives_the_same_outputs_at_the_most_basic_level(source):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    command += ["--nbval-cell-timeout=300", source.with_suffix(".ipynb")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")} | LEVEL
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert not re.search(r"\d+ (failed|xfailed|skipped)", done.stdout), done.stdout
