"""service/config is the only reader of the environment."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
# __main__ hands the environment to config.load, children hands it on to the processes that we start.
MAY = {"service/__main__.py", "service/cli/children.py"}


def test_nobody_else_reads_the_environment() -> None:
    found = []
    for path in (*ROOT.glob("service/**/*.py"), *ROOT.glob("workers/**/*.py"), *ROOT.glob("migrations/**/*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in MAY:
            found += [
                f"{name}:{node.lineno}"
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and (node.value.id, node.attr) in {("os", "environ"), ("os", "getenv")}
            ]
    assert not found, f"make it a setting of service/config and pass it as an argument: {found}"
