"""The style that no linter keeps: sizes of modules, functions and folders, and opening sentences.

Prints every breach with its place; exit status 1 if there is one.
"""

import ast
import pathlib
import sys

MODULE_LINES = 500
FUNCTION_LINES = 70
FOLDER_MODULES = 12
PACKAGE = pathlib.Path(__file__).parent.parent / "pylvs"


def breaches_of(path: pathlib.Path) -> list[str]:
    """Return the breaches in one module."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = []
    if text.count("\n") > MODULE_LINES:
        found.append(f"{path}: more than {MODULE_LINES} lines")
    docstring = ast.get_docstring(tree)
    if not docstring:
        found.append(f"{path}: no opening sentence")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        size = (node.end_lineno or node.lineno) - node.lineno + 1
        if size > FUNCTION_LINES:
            found.append(
                f"{path}:{node.lineno} {node.name}: {size} lines, {FUNCTION_LINES} at most"
            )
    return found


def main() -> int:
    breaches = []
    for path in sorted(PACKAGE.rglob("*.py")):
        breaches += breaches_of(path)
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        if count > FOLDER_MODULES:
            breaches.append(f"{folder}: {count} modules, {FOLDER_MODULES} at most")
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
