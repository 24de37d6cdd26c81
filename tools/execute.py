"""Execute the chapters and write their outputs. Nothing else in the repository writes outputs.

The MyST source ``notebooks/NN_name.md`` is read, executed from top to bottom in a fresh kernel, and its twin
``notebooks/NN_name.ipynb`` is replaced as a whole or, after an error, not at all. Run time and peak memory of each
chapter go to ``book/status.json``, from which the status page and the chapters' own boxes take them.

    python tools/execute.py                    # all chapters
    python tools/execute.py 00 07_significance # those whose names begin so
    python tools/execute.py --check            # execute, compare with what is stored, write nothing
    python tools/execute.py --repo https://... # write the repository's address into the first cells, then execute
"""

import argparse
import base64
import collections
import datetime
import hashlib
import json
import os
import platform
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools import live

ROOT = Path(__file__).resolve().parents[1]
STATUS = ROOT / "book" / "status.json"
PICTURES = {"fig-at-a-glance": ROOT / "book" / "_static" / "at_a_glance.png"}  # figures that the README shows
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
PEAK_MEMORY = "import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.platform)"


def sources(folder: Path, names: list[str]) -> list[Path]:
    """Return a folder's chapters in reading order; given `names`, those that begin with one of them."""
    chapters = sorted(folder.glob("[0-9][0-9]_*.md"))
    for name in names:
        if not any(chapter.stem.startswith(name) for chapter in chapters):
            raise SystemExit(f"{name}: got no chapter of that name, need one of {', '.join(c.stem for c in chapters)}")
    return [chapter for chapter in chapters if not names or chapter.stem.startswith(tuple(names))]


def read(source: Path) -> NotebookNode:
    """Return the notebook that a MyST source describes."""
    return read_text(source.read_text(encoding="utf-8"))


def read_text(text: str) -> NotebookNode:
    """Return the notebook that MyST text describes, with ids that depend on the cells' text alone.

    A cell that was not edited keeps its id however many cells come to stand before it; equal cells are counted.
    """
    notebook = jupytext.reads(text, "md:myst")
    seen = collections.Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    notebook.metadata = nbformat.from_dict({"jupytext": notebook.metadata.get("jupytext", {}), "kernelspec": KERNEL})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def write_address(source: Path, url: str) -> None:
    """Write the repository's address into a chapter's first cell, which fetches a clone where there is none."""
    if re.fullmatch(r"https?://[^\s\"'{}\\]+", url) is None:
        raise SystemExit(f"--repo: got {url!r}, need an address that begins with https://")
    text, count = re.subn(r'(?m)^REPO = ".*?"', f'REPO = "{url}"', source.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{source.name}: got {count} lines that begin with 'REPO = ', need 1")
    _replace(source, text)


def execute(notebook: NotebookNode, folder: Path, timeout: int = 300, ask: str | None = None) -> dict:
    """Execute a notebook in place, in a fresh kernel, and return its run time in seconds and peak memory in MB.

    What the code `ask` prints at the end is returned too, under "answer".
    """
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=KERNEL["name"],
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    start = time.perf_counter()
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        seconds = time.perf_counter() - start
        memory = _answer(client, PEAK_MEMORY).split()
        answer = {"answer": _answer(client, ask)} if ask else {}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3", "file_extension": ".py"}
    size = int(memory[0]) / (2**20 if memory[1] == "darwin" else 2**10)
    return {"seconds": round(seconds, 1), "memory_mb": round(size)} | answer


def _answer(client: NotebookClient, code: str) -> str:
    """Ask the kernel itself, in a cell that is taken away again."""
    client.nb.cells.append(nbformat.v4.new_code_cell(code))
    text = client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1).outputs[0].text
    client.nb.cells.pop()
    return text


def write(notebook: NotebookNode, target: Path) -> None:
    """Replace a file by a notebook, whole or not at all."""
    nbformat.validate(notebook)
    _replace(target, nbformat.writes(notebook) + "\n")


def pictures(notebook: NotebookNode) -> dict[Path, bytes]:
    """Return the files and contents of the notebook's figures that are shown elsewhere too."""
    found = {}
    for cell in notebook.cells:
        target = PICTURES.get(cell.metadata.get("mystnb", {}).get("figure", {}).get("name"))
        for output in cell.get("outputs", []) if target else []:
            if "image/png" in output.get("data", {}):
                found[target] = base64.b64decode(output.data["image/png"])
    return found


def _replace(target: Path, content: str | bytes) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def differences(fresh: NotebookNode, stored: NotebookNode) -> list[str]:
    """Return where two executions of a chapter differ: in cells, counts, or outputs other than pictures."""
    if [cell.source for cell in fresh.cells] != [cell.source for cell in stored.cells]:
        return ["the source was edited after its outputs were written"]
    found = []
    for number, (new, old) in enumerate(zip(fresh.cells, stored.cells, strict=True), start=1):
        if new.cell_type != "code" or "nbval-ignore-output" in new.metadata.get("tags", []):
            continue
        if new.execution_count != old.execution_count:
            found.append(f"cell {number}: stored with count {old.execution_count}, is {new.execution_count}")
        if _texts(new) != _texts(old):
            found.append(f"cell {number}: stored\n{_shown(old)}\n  is\n{_shown(new)}")
    return found


def _texts(cell: NotebookNode) -> list:
    """Return all of a cell's outputs that must be equal from run to run."""
    return [
        (output.output_type, output.get("name"), output.get("text"), _without_pictures(output.get("data", {})))
        for output in cell.outputs
    ]


def _without_pictures(data: dict) -> dict:
    return {kind: content for kind, content in data.items() if not kind.startswith("image/")}


def _shown(cell: NotebookNode) -> str:
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join("    " + line for line in "".join(texts).splitlines())


def summary(notebook: NotebookNode) -> dict[str, int]:
    """Count what a reader may rely on: outputs that are compared on every run, and figures."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    checked = [cell for cell in cells if "nbval-ignore-output" not in cell.metadata.get("tags", [])]
    figures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    return {"checked": len(checked), "unchecked": len(cells) - len(checked), "figures": figures}


def record(chapter: str, measured: dict) -> None:
    """Write what one chapter took, and where and when, to the file behind the status page."""
    status = json.loads(STATUS.read_text(encoding="utf-8")) if STATUS.exists() else {}
    environment = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch").partition("+")[0],
        "numpy": version("numpy"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    status[chapter] = measured | environment
    kept = {source.stem for source in sources(ROOT / "notebooks", [])}
    _replace(STATUS, json.dumps({name: status[name] for name in sorted(kept & status.keys())}, indent=2) + "\n")


def prepare_environment() -> None:
    """Set what the kernels inherit: this library, no bars on stderr, and figures inline."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.pop("MPLBACKEND", None)


def run(source: Path, *, check: bool) -> bool:
    """Execute one chapter, say what it took, and return whether all went well."""
    notebook, target = read(source), source.with_suffix(".ipynb")
    try:
        measured = execute(notebook, source.parent, ask=live.CELLS.get(source.stem))
    except CellExecutionError as error:
        print(f"{source.stem}: failed, nothing was written\n{error}", file=sys.stderr)
        return False
    print(f"{source.stem:32} {measured['seconds']:7.1f} s {measured['memory_mb']:7} MB", flush=True)
    if check:
        if not target.exists():
            found = ["no outputs are stored"]
        else:
            found = differences(notebook, nbformat.read(target, as_version=4))
        for difference in found:
            print(f"{source.stem}: {difference}", file=sys.stderr)
        return not found
    write(notebook, target)
    for file, content in pictures(notebook).items():
        _replace(file, content)
    if "answer" in measured:
        _replace(live.FOLDER / f"{source.stem}.json", measured.pop("answer"))
    record(source.stem, measured | summary(notebook))
    return True


def main() -> int:
    """Execute the chapters named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Execute chapters and write their outputs.")
    parser.add_argument("chapters", nargs="*", help="beginnings of chapter names (none: all chapters)")
    parser.add_argument("--check", action="store_true", help="compare with the stored outputs and write nothing")
    parser.add_argument("--repo", help="address of the repository, to be written into the chapters' first cells")
    options = parser.parse_args()
    if options.check and options.repo is not None:
        parser.error("--repo: writes the chapters, and --check writes nothing: need one of the two")
    chapters = sources(ROOT / "notebooks", options.chapters)
    if options.repo is not None:
        for source in chapters:
            write_address(source, options.repo)
    prepare_environment()
    done = [run(source, check=options.check) for source in chapters]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
