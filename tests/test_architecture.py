"""The rules of the house, read off the source: who may import whom, and how large things may grow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {"ops": set(), "torch_utils": set(), "stylegan": {"ops", "torch_utils"},
          "training": {"ops", "torch_utils", "stylegan"}}  # fmt: skip
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
ROOMS = [*FLOORS, "benchmarks", "docs", "tests"]
SOURCES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])
PRODUCT = [path for path in SOURCES if "tests" not in path.relative_to(ROOT).parts]
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 300, 60, 8
JUNK_DRAWERS = {"utils", "util", "misc", "common", "helpers", "helper"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def imported(path: Path) -> set[str]:
    """The top-level packages a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0] if not node.level else path.relative_to(ROOT).parts[0])
    return names


every_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)
every_product_file = pytest.mark.parametrize("path", PRODUCT, ids=name_of)


def test_there_is_something_to_check():
    assert {"train.py", "training/schedule.py", "stylegan/networks/generator.py"} <= {name_of(path) for path in PRODUCT}


@every_product_file
def test_imports_go_down_only(path):
    floor = "cli" if "stylegan/cli/" in name_of(path) else path.relative_to(ROOT).parts[0]
    ours = imported(path) & (set(FLOORS) | SCRIPTS | {"tests", "benchmarks"})
    own = {floor} | SCRIPTS if floor == "benchmarks" else set()  # which may time the scripts, and be several files
    allowed = FLOORS[floor] | {floor} if floor in FLOORS else set(FLOORS) | own
    assert ours <= allowed, f"{name_of(path)} imports {sorted(ours - allowed)}"


@every_source
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MAX_FILE


@every_product_file
def test_functions_are_short(path):
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(path) if f.end_lineno}
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION} == {}


@every_product_file
def test_functions_take_few_parameters(path):
    counts = {f.name: len(f.args.posonlyargs + f.args.args + f.args.kwonlyargs) for f in functions(path)}
    assert {name: count for name, count in counts.items() if count > MAX_PARAMETERS + 1} == {}  # and self


@every_product_file
def test_parameters_are_not_passed_through_unnamed(path):
    """A `**kwargs` handed on would hide which parameters there are."""
    handed_on = [
        (f.name, call.lineno)
        for f in functions(path) if f.args.kwarg
        for call in ast.walk(f) if isinstance(call, ast.Call)
        for argument in call.keywords if argument.arg is None and ast.unparse(argument.value) == f.args.kwarg.arg
    ]  # fmt: skip
    assert handed_on == []


@every_source
def test_exceptions_are_caught_by_name(path):
    handlers = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    too_wide = [h.lineno for h in handlers if h.type is None or ast.unparse(h.type) in ("Exception", "BaseException")]
    assert too_wide == []


@every_source
def test_no_junk_drawers(path):
    assert path.stem not in JUNK_DRAWERS


def test_setup_does_not_need_what_it_installs():
    assert imported(ROOT / "setup.py") == {"setuptools"}


def test_nothing_depends_on_torchvision():
    assert [name_of(path) for path in SOURCES if "torchvision" in imported(path)] == []
