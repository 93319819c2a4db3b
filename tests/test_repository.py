"""Rules of the repository, as tests."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"errors", "draws", "records", "files"},
    {"measures"},
    {"config", "answers", "selection"},
    {"lab", "pipeline", "serving"},
    {"store", "text", "data"},
    {"study"},
    {"models", "tracking", "samples", "push"},
    {"generation", "training", "scoring"},
    {"oracle", "analysis"},
    {"candidates", "identity", "export"},
    {"stages"},
    {"launch"},
    {"commands", "notebook"},
    {"cli"},
    {"__main__"},
]
"""Parts of qup from low to high. A part knows those below it, and neither those above it nor its neighbours."""
HEAVY = {"torch", "transformers", "datasets", "deepspeed", "wandb"}


def modules():
    found = sorted((ROOT / "qup").rglob("*.py"))
    assert len(found) > 100
    return found


def test_a_file_has_at_most_400_lines():
    files = [path for folder in ("qup", "hydra_plugins", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 500
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 400} == {}, "split by noun"


def imports(path):
    """(line, module of qup) of every import in a file, those within functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            names = [f"qup.{alias.name}" for alias in node.names] if node.module == "qup" else [node.module]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.startswith("qup."))


def test_imports_run_downward():
    floor = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    wrong = []
    for path in modules():
        part = path.relative_to(ROOT / "qup").with_suffix("").parts[0]
        if part == "__init__":
            continue
        for line, name in imports(path):
            other = name.split(".")[1]
            if other != part and floor[other] >= floor[part]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {part} imports {other}")
    assert not wrong, "\n".join(wrong)


def named(path):
    """(line, module of qup) of every text in a file that names one, as import_module and `python -m` take it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"qup(\.\w+)+\.?", node.value):
            yield node.lineno, node.value


def test_no_higher_floor_is_reached_by_name():
    """Only a kind names its stage, whose code is loaded where it runs."""
    floor = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    wrong, seen = [], 0
    for path in modules():
        part = path.relative_to(ROOT / "qup").with_suffix("").parts[0]
        for line, name in named(path):
            other = name.split(".")[1]
            seen += 1
            if floor.get(other, -1) > floor.get(part, len(FLOORS)) and path.relative_to(ROOT / "qup") != Path("pipeline/kinds.py"):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {part} names {name}")
    assert seen > 3
    assert not wrong, "\n".join(wrong)


def test_stages_share_records_and_artifacts_and_never_each_other():
    for path in (ROOT / "qup" / "stages").glob("*.py"):
        assert not [name for _, name in imports(path) if name.startswith("qup.stages")], path


@pytest.mark.parametrize("folder", ["store", "pipeline", "launch", "config", "identity"])
def test_planning_imports_no_heavy_library(folder):
    for path in (ROOT / "qup" / folder).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {name.split(".")[0] for name in names} & HEAVY, path


def test_only_launch_knows_stage_modules_and_only_by_name():
    for path in modules():
        if path.parts[-2] != "stages":
            assert not [name for _, name in imports(path) if name.startswith("qup.stages")], path


def opened_by_locale(path):
    """Lines that read or write text, or take a command's output, in whatever encoding the locale has."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(word.arg in ("encoding", None) for word in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [word.value for word in node.keywords if word.arg == "mode"]
        modes += node.args[1:2] if isinstance(node.func, ast.Name) else node.args[:1]
        mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else "r" if not modes else "b"
        text = name in ("open", "fdopen") and "b" not in str(mode)
        written = (name == "read_text" and not node.args) or (name == "write_text" and len(node.args) == 1)
        if text or written or any(word.arg == "text" for word in node.keywords if name in ("run", "Popen", "check_output")):
            yield node.lineno


def test_files_and_outputs_are_read_and_written_in_utf_8_whatever_the_locale():
    paths = [*modules(), ROOT / "launch.py", *(ROOT / "hydra_plugins").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert [f"{path.relative_to(ROOT)}:{line}" for path in paths for line in opened_by_locale(path)] == []


def test_the_conda_file_installs_the_same_set():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-e .[test]"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "python>=3.11" in environment["dependencies"]
    assert project["requires-python"] == ">=3.11"
    assert any(entry.startswith("torch==2.13") for entry in project["dependencies"])


def test_links_of_the_docs_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 8
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_experiments_that_the_readme_names_are_there():
    for name in re.findall(r"experiment=([\w/]+)", (ROOT / "README.md").read_text()):
        assert any((folder / "experiment" / f"{name}.yaml").exists() for folder in (ROOT / "conf", ROOT / "qup/commands/folder/conf")), name


def test_the_workflow_runs_what_is_run_at_home():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    ran = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if step.get("run", "").startswith("make ")]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert "make test PYTHON=python" in ran
    assert {command.split()[1] for command in ran} <= targets
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert f">={versions[0]}" == tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]


def test_the_hooks_before_a_commit_are_those_of_the_tests():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    test = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["test"]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "reference"}
    for hook in hooks:
        assert set(hook.get("additional_dependencies", [])) <= set(test), "the same Ruff, or the two would disagree"
