"""Who may import whom: the arrows of design.md section 1, read from the imports themselves."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVE, TRAIN = "sentimill", "sentimill_train"
# "" is the package itself, which keeps libraries from reporting to their makers.
TRAIN_MAY_USE = {"", "errors", "bundle", "text", "classifier", "reference", "engine_onnx"}

# The modules, without their package, that may import a third-party library. What the run time
# imports and this table lacks is refused: a new dependency gets its door here first.
SERVE_DOORS = {
    "fsspec": r"scoring\.\w+",
    "google": r"guard|desk|server|client|calls|packing|tls",
    "grpc": r"guard|desk|service|open_inference|server|client|calls|tls",
    "grpc_health": r"server",
    "grpc_reflection": r"server",
    "msgspec": r".*",
    "numpy": r".*",
    "onnx": r"packing",
    "onnxruntime": r"engine(_\w+)?|machine",
    "opentelemetry": r"spans",
    "openvino": r"engine(_\w+)?",
    "prometheus_client": r"metrics|pooled|web|scoring\.job_metrics",
    "pyarrow": r"scoring\.\w+",
    "ray": r"scoring\.ray",
    "rich": r"cli|scoring\.command",
    "tokenizers": r"text|fast_tokenizer",
    "tokie": r"fast_tokenizer",
    "typer": r"access|cli|scoring\.command",
}
TRAIN_DOORS = {
    "anthropic": r"teacher\.claude",
    "cleanlab": r"noise",
    "datasets": r"records|sources",
    "datasketch": r"duplicates",
    "grpc": r"none",
    "jinja2": r"pages|curate_report",
    "markupsafe": r"report|cost\.page",
    "matplotlib": r"charts|curate_report",
    "openai": r"teacher\.client",
    "optimum": r"optimum_lane",
    "peft": r"lora",
    "py3langid": r"language",
    "prometheus_client": r"none",
    "sklearn": r"baselines|balance|noise|shift",
    "torch": r"student|fit|larger|carried|checkpoint|interpolate|optimiser|processes|export|losses",
}
OFFLINE = {
    "access",
    "errors",
    "bundle",
    "engine",
    "text",
    "classifier",
    "calls",
    "client",
    "reference",
    "scoring",
}
# Rooms that know nothing of the others, so that both halves can use them.
ROOMS = {
    r"errors": set[str](),
    r"text": {"errors", "fast_tokenizer"},
    r"fast_tokenizer": {"machine"},
    r"reference": {"errors"},
    r"bundle": {"errors"},
    r"logs": set[str](),
    r"tracing": set[str](),
    r"spans": {"errors"},
    r"metrics": {"errors"},
    r"history": {"metrics"},
    r"pooled": set[str](),
    r"status": {"history", "metrics"},
    r"web": {"errors", "history", "status"},
    r"lanes": set[str](),
    r"admission": {"errors", "metrics"},
    r"guard": set[str](),
    r"access": {"errors", "calls", "engine"},
    r"watched": set[str](),
    r"callers": {"errors", "watched"},
    r"tls": {"errors", "watched"},
    r"batching": {"errors", "metrics", "lanes", "admission"},
    r"loaded": {"errors", "machine", "text", "classifier", "engine", "batching"},
    r"classifier": {"errors", "bundle", "engine", "engine_choice", "machine", "text"},
    r"machine": set[str](),
    r"packing": set[str](),
    r"engine(_\w+)?": {
        "errors",
        "machine",
        "engine",
        "engine_choice",
        "engine_gpu",
        "engine_onnx",
        "engine_openvino",
        "engine_packed",
        "packing",
    },
    r"scoring\..*": OFFLINE,
    r"calls": {"errors", "text", "classifier", "v1"},
    r"fallback": {"errors", "classifier", "calls"},
    r"client": {"calls", "fallback", "v1"},
}


@dataclass(frozen=True)
class Import:
    """One import, by the module that has it and the full name of what it imports."""

    module: str
    name: str
    line: int

    @property
    def top(self) -> str:
        """The package that is imported."""
        return self.name.partition(".")[0]

    @property
    def room(self) -> str:
        """The module without its package."""
        return self.module.partition(".")[2]

    @property
    def imported_room(self) -> str:
        """The first part of what is imported behind its package; empty for the package itself."""
        return self.name.partition(".")[2].partition(".")[0]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"


def imports_of(package: str, folder: Path) -> list[Import]:
    """Return every import in *folder*, also those inside functions; generated code is left out."""
    found: list[Import] = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if "v1" in parts:
            continue
        module = ".".join([package, *(part for part in parts if part != "__init__")])
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}:{node.lineno} is a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            found += [Import(module, name, node.lineno) for name in names]
    return found


IMPORTS = {
    SERVE: imports_of(SERVE, ROOT / "serve/sentimill"),
    TRAIN: imports_of(TRAIN, ROOT / "train/sentimill_train"),
}


def test_the_imports_are_read() -> None:
    """The other tests would pass on nothing."""
    assert len(IMPORTS[SERVE]) > 100
    assert IMPORTS[TRAIN]


def test_serving_never_imports_training() -> None:
    """What serves must run where nothing of the training is installed."""
    assert [str(each) for each in IMPORTS[SERVE] if each.top == TRAIN] == []


def test_training_uses_only_the_shared_rooms_of_serving() -> None:
    """Nothing but errors, bundle, reference, text and classifier passes between the halves.

    And the session that serves on a CPU: what an exported graph is judged by.
    """
    assert [
        str(each)
        for each in IMPORTS[TRAIN]
        if each.top == SERVE and each.imported_room not in TRAIN_MAY_USE
    ] == []


@pytest.mark.parametrize(
    ("package", "doors"), [(SERVE, SERVE_DOORS), (TRAIN, TRAIN_DOORS)], ids=[SERVE, TRAIN]
)
def test_each_library_has_one_door(package: str, doors: dict[str, str]) -> None:
    """A library that changes is met in one place."""
    assert [
        str(each)
        for each in IMPORTS[package]
        if each.top in doors and not re.fullmatch(doors[each.top], each.room)
    ] == []


def test_serving_imports_only_libraries_that_have_a_door() -> None:
    """The run time stays small on purpose."""
    known = sys.stdlib_module_names | SERVE_DOORS.keys() | {SERVE}

    assert [str(each) for each in IMPORTS[SERVE] if each.top not in known] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    """Arrows point one way."""
    assert [
        str(each)
        for each in IMPORTS[SERVE]
        if re.fullmatch(room, each.room)
        and each.top == SERVE
        and each.imported_room not in ROOMS[room]
    ] == []


def test_nothing_imports_the_command_line() -> None:
    """The command line is the outermost room."""
    assert [str(each) for each in IMPORTS[SERVE] if each.imported_room == "cli"] == []


LARGE = {
    "datasets", "google.protobuf", "grpc", "numpy", "onnxruntime", "openvino", "prometheus_client",
    "pyarrow", "rich", "sklearn", "tokenizers", "torch", "transformers", "typer",
}  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """Return which of `LARGE` a fresh interpreter has loaded after *code*."""
    tell = f"import sys; print(*(set({sorted(LARGE)!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{tell}"],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_large() -> None:
    """A program that mentions `sentimill` pays only for what it uses."""
    assert loaded_by("import sentimill") == set()


def test_the_classifier_loads_no_server() -> None:
    """The library face needs neither gRPC nor metrics nor a terminal."""
    assert loaded_by("from sentimill import Classifier") == {"numpy", "tokenizers"}


def test_the_client_loads_no_engine_and_no_server() -> None:
    """A caller of a service needs no inference engine and no metrics."""
    expected = {"google.protobuf", "grpc", "numpy", "tokenizers"}

    assert loaded_by("from sentimill import AsyncClient, Client") == expected


def test_the_command_line_loads_no_engine_and_no_server_to_start() -> None:
    """`sentimill --help` is quick; each command loads what it needs."""
    assert loaded_by("import sentimill.cli") == {"numpy", "rich", "tokenizers", "typer"}


def test_every_public_name_is_there() -> None:
    """Names that are loaded at their first use are those that are promised."""
    code = "import sentimill\nfor name in sentimill.__all__: getattr(sentimill, name)"

    assert "grpc" in loaded_by(code)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy door says no as Python does."""
    import sentimill

    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        sentimill.Nonsense  # noqa: B018 - the access is the test
