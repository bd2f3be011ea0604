"""Who may import whom, read from the imports in the code (docs/architecture.md has the picture)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

import pytest

from repository import ROOT

SERVE, TRAIN = "sentimill", "sentimill_train"
HALVES = {SERVE: "serve", TRAIN: "train"}
# "" is the package itself, which keeps libraries from reporting to their makers.
TRAIN_MAY_USE = {
    "",  # keeps libraries from reporting to their makers
    "errors",
    "types",
    "bundle",
    "text",
    "classifier",
    "atomic_write",
    "installed_packages",
    "engine",  # an exported graph is judged by the session that serves it
    "evidence",
}

# Which other modules of serving a package of training may use. Every command that takes a delimited
# file reads it as `score` does, has its options and writes to the terminal as it does.
TRAIN_MAY_SHARE = {
    "data": r"scoring\.formats\.\w+",
    "cli": r"cli\.(options|terminal)",
}

# The modules, without their package, that may import a third-party library. A library that
# serving imports and this table lacks is refused: a new dependency is added here first.
SERVE_LIBRARIES = {
    "emoji": r"text\.emoji_names",
    "fsspec": r"scoring\..*",
    "google": r"server\..*|client\.\w+",
    "grpc": r"server\..*|client\.\w+",
    "grpc_health": r"server\.server",
    "grpc_reflection": r"server\.server",
    "huggingface_hub": r"bundle\.reference",
    "msgspec": r".*",
    "narwhals": r"dataframes",
    "nupunkt": r"evidence\.sentences",
    "numpy": r".*",
    "openpyxl": r"scoring\.formats\.excel",
    "xlsxwriter": r"scoring\.formats\.excel",
    "onnx": r"evidence\.states",
    "onnxruntime": r"engine\.\w+",
    "opentelemetry": r"observability\.tracing",
    "openvino": r"engine\.\w+",
    "py3langid": r"text\.language",
    "prometheus_client": r"observability\.\w+|scoring\.job_metrics",
    "pyarrow": r"scoring\..*|dataframes",
    "ray": r"scoring\.ray_runner",
    "rich": r"cli\.\w+|progress",
    "tokenizers": r"text\.\w+",
    "tokie": r"text\.fast_tokenizer",
    "typer": r"cli\.\w+",
    "usearch": r"evidence\.index",
}
TRAIN_LIBRARIES = {
    "anthropic": r"labelling\.providers\.anthropic",
    "cleanlab": r"curation\.label_errors",
    "datasets": r"data\.readers",
    "datasketch": r"curation\.near_duplicates",
    "grpc": r"none",
    "jinja2": r"reporting\.html",
    "markupsafe": r"(evaluation|cost|curation)\.report",
    "matplotlib": r"reporting\.charts",
    "openai": r"labelling\.providers\.openai",
    "optimum": r"export\.optimum",
    "peft": r"model\.lora",
    "prometheus_client": r"none",
    "sklearn": r"evaluation\.baselines|curation\.label_errors|metrics\.two_sample_tests",
    "torch": r"model\.\w+|training\.\w+|export\.onnx",
}
# Which packages (or modules at the top) each package may import: imports run one way.
SERVE_ARROWS = {
    "errors": set[str](),
    "atomic_write": set[str](),
    "types": {"errors"},
    "progress": set[str](),
    "bundle": {"errors", "atomic_write"},
    "installed_packages": {"errors"},
    "text": {"errors", "types", "installed_packages"},
    "engine": {"errors", "installed_packages"},
    "decisions": set[str](),
    "evidence": {"errors", "types", "atomic_write", "bundle", "installed_packages"},
    "classifier": {
        "errors", "types", "progress", "decisions", "bundle", "text", "engine", "evidence",
    },
    "dataframes": {"errors", "types", "bundle", "text", "classifier", "client", "scoring"},
    "observability": {"errors", "types"},
    "batching": {"errors", "engine", "observability"},
    "client": {"errors", "types", "progress", "v1"},
    "scoring": {
        "errors", "types", "atomic_write", "installed_packages", "bundle", "text", "engine",
        "evidence", "classifier", "client",
    },
    "server": {
        "errors", "types", "v1", "bundle", "text", "engine", "evidence", "classifier",
        "observability", "batching",
    },
}  # fmt: skip
# The order inside the engine: types, then what ranks and opens, then backends, then the factory.
ENGINE_ARROWS = {
    "base": set[str](),
    "failures": set[str](),
    "hardware": set[str](),
    "onnx_session": set[str](),
    "selection": {"base", "hardware"},
    "onnx_cpu": {"base", "failures", "onnx_session"},
    "onnx_cuda": {"base", "failures", "onnx_session"},
    "openvino": {"base", "failures"},
    "factory": {"base", "hardware", "selection", "onnx_cpu", "onnx_cuda", "openvino"},
}
BASICS = {"optional_packages", "metrics", "data"}
TRAIN_ARROWS = {
    "optional_packages": set[str](),
    "metrics": set[str](),
    "data": {"metrics"},
    "model": BASICS,
    "calibration": BASICS,
    "training": BASICS | {"model", "calibration"},
    "reporting": {"metrics", "calibration"},
    "evaluation": BASICS | {"model", "calibration", "reporting"},
    "export": BASICS | {"model", "calibration", "evaluation"},
    "packaging": BASICS | {"model", "calibration", "training", "reporting", "evaluation", "export"},
    "labelling": BASICS | {"calibration"},
    "curation": BASICS | {"reporting"},
    "monitoring": BASICS | {"model", "curation"},
    "cost": {"optional_packages", "reporting", "labelling"},
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
    def place(self) -> str:
        """The module without the name of its half, such as `engine.base`."""
        return self.module.partition(".")[2]

    @property
    def imported_package(self) -> str:
        """The package (or module at the top) that is imported; empty for the half itself."""
        return self.name.partition(".")[2].partition(".")[0]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"


@cache
def imports_of(package: str) -> list[Import]:
    """Return every import of *package*, also those inside functions, without generated code."""
    folder = ROOT / HALVES[package] / package
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


def test_the_imports_are_read() -> None:
    """The other tests would pass on nothing."""
    assert len(imports_of(SERVE)) > 100
    assert imports_of(TRAIN)


def test_serving_never_imports_training() -> None:
    """What serves must run where nothing of the training is installed."""
    assert [str(each) for each in imports_of(SERVE) if each.top == TRAIN] == []


def test_training_uses_only_the_shared_packages_of_serving() -> None:
    """Training uses the errors, the bundle, the tokenizer, the classifier and the engine."""
    assert [
        str(each)
        for each in imports_of(TRAIN)
        if each.top == SERVE
        and each.imported_package not in TRAIN_MAY_USE
        and not re.match(
            rf"sentimill\.{TRAIN_MAY_SHARE.get(each.place.partition('.')[0], 'none')}\b", each.name
        )
    ] == []


@pytest.mark.parametrize(
    ("package", "importers"),
    [(SERVE, SERVE_LIBRARIES), (TRAIN, TRAIN_LIBRARIES)],
    ids=[SERVE, TRAIN],
)
def test_each_library_is_imported_in_one_place(package: str, importers: dict[str, str]) -> None:
    """When a library changes, one place changes with it."""
    assert [
        str(each)
        for each in imports_of(package)
        if each.top in importers and not re.fullmatch(importers[each.top], each.place)
    ] == []


def test_serving_imports_only_listed_libraries() -> None:
    """The run time stays small on purpose."""
    known = sys.stdlib_module_names | SERVE_LIBRARIES.keys() | {SERVE}

    assert [str(each) for each in imports_of(SERVE) if each.top not in known] == []


@pytest.mark.parametrize(
    ("half", "package"),
    [(SERVE, each) for each in SERVE_ARROWS] + [(TRAIN, each) for each in TRAIN_ARROWS],
)
def test_a_package_imports_only_packages_below_it(half: str, package: str) -> None:
    """Arrows point one way, function-level imports and type annotations included."""
    allowed = (SERVE_ARROWS if half == SERVE else TRAIN_ARROWS)[package] | {package}

    assert [
        str(each)
        for each in imports_of(half)
        if each.place.partition(".")[0] == package
        and each.top == half
        and each.imported_package not in allowed
    ] == []


def test_the_engine_has_an_order_of_its_own() -> None:
    """Types know no backend, and a backend knows no factory."""
    mine = [each for each in imports_of(SERVE) if each.place.startswith("engine.")]
    assert {each.place.removeprefix("engine.") for each in mine} == set(ENGINE_ARROWS)

    assert [
        str(each)
        for each in mine
        if each.name.startswith("sentimill.engine.")
        and each.name.split(".")[2] not in ENGINE_ARROWS[each.place.removeprefix("engine.")]
    ] == []


def test_every_package_has_its_arrows() -> None:
    """A new package says what it may import before it imports anything."""
    serve = {each.place.partition(".")[0] for each in imports_of(SERVE)} - {"", "cli"}
    train = {each.place.partition(".")[0] for each in imports_of(TRAIN)} - {"", "cli", "pipeline"}

    assert serve == set(SERVE_ARROWS)
    assert train <= set(TRAIN_ARROWS)


def test_nothing_imports_the_command_line() -> None:
    """The command line is the outermost package."""
    assert [
        str(each)
        for each in imports_of(SERVE)
        if each.imported_package == "cli" and not each.place.startswith("cli.")
    ] == []


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
    """A program that classifies by itself needs neither gRPC nor metrics nor a terminal."""
    assert loaded_by("from sentimill import Classifier") == {"numpy", "tokenizers"}


def test_the_client_loads_no_engine_and_no_server() -> None:
    """A caller of a service needs no inference engine and no metrics."""
    names = "AsyncClient, Client, Fallback, Security"

    assert loaded_by("import sentimill.client") == set()
    assert loaded_by(f"from sentimill.client import {names}") == {"google.protobuf", "grpc"}
    assert loaded_by(f"from sentimill import {names}, Prediction") == {"google.protobuf", "grpc"}


def test_the_command_line_loads_no_engine_and_no_server_to_start() -> None:
    """`sentimill --help` is quick; each command loads what it needs."""
    assert loaded_by("import sentimill.cli.main") == {"numpy", "rich", "tokenizers", "typer"}


def test_every_public_name_is_there() -> None:
    """Names that are loaded at their first use are those that are promised."""
    code = "import sentimill\nfor name in sentimill.__all__: getattr(sentimill, name)"

    assert "grpc" in loaded_by(code)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy loading answers as Python does."""
    import sentimill

    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        sentimill.Nonsense  # noqa: B018 - the access is the test
