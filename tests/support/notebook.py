"""Runs a notebook without Jupyter, and writes what its cells show into it.

    python tests/support/notebook.py examples/reviews.ipynb

A line that begins with `!` is a command of the shell, as in Jupyter.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["run_notebook"]


def run_notebook(path: Path) -> tuple[dict[str, object], list[str]]:
    """Run the code cells of *path* in the current folder.

    Returns their variables, and what each cell shows. Raises what a cell raises.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    shown = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                _run_cell("".join(cell["source"]), names)
            shown.append(output.getvalue())
    return names, shown


def _run_cell(source: str, names: dict[str, object]) -> None:
    lines = [f"_shell({line[1:]!r})" if line[:1] == "!" else line for line in source.splitlines()]
    tree = ast.parse("\n".join(lines))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    names["_shell"] = _shell
    exec(compile(tree, "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        if value is not None:
            sys.stdout.write(f"{value!r}\n")


def _shell(command: str) -> None:
    """Run *command* with the programs of this environment first, and show what it prints."""
    folder = str(Path(sys.executable).parent)
    variables = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, shell=True, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    sys.stdout.write(done.stdout)


def _write_outputs(path: Path) -> None:
    """Put what the cells show into the notebook."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _, shown = run_notebook(path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, text) in enumerate(zip(cells, shown, strict=True), 1):
        cell["execution_count"] = number
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(True)}
        cell["outputs"] = [stream] if text else []
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write_outputs(Path(sys.argv[1]).resolve())
