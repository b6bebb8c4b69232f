"""The rules of the house, read off the source: who may import whom, who may name a family, how large a file may be."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {"ops": set(), "torch_utils": set(), "stylegan": {"ops", "torch_utils"},
          "training": {"ops", "torch_utils", "stylegan"}}  # fmt: skip
CLI = "stylegan/cli/"
"""The commands stand on all floors, so nothing below them may import them."""
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
ROOMS = [*FLOORS, "benchmarks", "docs", "tests"]
SOURCES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])
PRODUCT = [path for path in SOURCES if "tests" not in path.relative_to(ROOT).parts]
MODULES = [path for path in PRODUCT if path.relative_to(ROOT).parts[0] in FLOORS]
FOLDERS = sorted({path.parent for path in MODULES})
MAX_LINES, MAX_ENTRIES, MAX_PARAMETERS, MAX_DOOR = 500, 15, 8, 25
JUNK_DRAWERS = {"utils", "util", "misc", "common", "helpers", "helper"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def imports(path: Path) -> Iterator[str]:
    """Yields the dotted names that a file imports, wherever in it, under `TYPE_CHECKING` and in functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}:{node.lineno} imports relatively"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def imported(path: Path) -> set[str]:
    """The top-level packages a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def graph() -> dict[str, set[str]]:
    """Module -> the modules of ours it imports."""
    modules = {module_of(path): path for path in MODULES}
    found = {}
    for module, path in modules.items():
        whole = {name if name in modules else name.rpartition(".")[0] for name in imports(path)}
        found[module] = {name for name in whole if name in modules and name != module}
    return found


every_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)
every_product_file = pytest.mark.parametrize("path", PRODUCT, ids=name_of)
every_folder = pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
every_script = pytest.mark.parametrize("script", sorted(ROOT.glob("*.py")), ids=name_of)


def test_there_is_something_to_check():
    assert {"train.py", "training/schedule.py", "stylegan/networks/stylegan1.py"} <= {name_of(path) for path in PRODUCT}
    assert "stylegan.networks.base" in graph()["stylegan.networks.dcgan"]


@every_product_file
def test_imports_go_down_only(path):
    floor = path.relative_to(ROOT).parts[0]
    ours = imported(path) & (set(FLOORS) | SCRIPTS | {"tests", "benchmarks"})
    own = {floor} | SCRIPTS if floor == "benchmarks" else set()  # which may time the scripts, and be several files
    below = floor in FLOORS and not name_of(path).startswith(CLI)
    allowed = FLOORS[floor] | {floor} if below else set(FLOORS) | own
    assert ours <= allowed, f"{name_of(path)} imports {sorted(ours - allowed)}"
    if below:
        assert [name for name in imports(path) if name.startswith("stylegan.cli")] == []


def test_no_import_circles():
    """Each module that is left over imports another one that is left over, and so on in a circle."""
    left = graph()
    while ready := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in ready}
    assert {module: sorted(needs & left.keys()) for module, needs in left.items()} == {}


@every_source
def test_files_have_an_end(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@every_folder
def test_folders_can_be_taken_in_at_a_glance(folder):
    entries = [path.name for path in folder.iterdir() if path in MODULES or path in FOLDERS]
    entries = [name for name in entries if name != "__init__.py"]
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


@every_script
def test_scripts_are_doors(script):
    """What a command does is in `stylegan/cli/`, where the installed `stylegan` finds it too."""
    assert len(script.read_text().splitlines()) <= MAX_DOOR


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


@every_product_file
def test_only_networks_ask_which_family_it_is(path):
    """Elsewhere a family's own methods answer, so that a new family is a file and an entry in the registry."""
    if name_of(path).startswith("stylegan/networks/"):
        return
    asked = [
        node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators) if ast.unparse(side).split(".")[-1] in ("family", "FAMILY")
    ]  # fmt: skip
    assert asked == [], name_of(path)


def test_a_family_is_one_file():
    """dcgan is the proof: outside its module and the registry only its presets name it."""
    naming = {name_of(path) for path in MODULES if "dcgan" in path.read_text().lower()}
    assert naming == {"stylegan/networks/dcgan.py", "stylegan/networks/registry.py", "training/presets.py"}


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


PRINTERS = {"torch_utils/text.py": 1, "ops/build.py": 1}
"""How often these print: in `say`, and in that of the ops, which import nothing."""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_one_function_prints(path):
    """It makes escape sequences in names from elsewhere harmless."""
    calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    printing = [f for f in calls if ast.unparse(f) in ("print", "click.echo", "click.secho", "sys.stdout.write")]
    assert len(printing) == PRINTERS.get(name_of(path), 0)
