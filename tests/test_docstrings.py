"""Docstrings of the public interface: a first sentence, and `Args`, `Returns` and `Raises` where they apply.

Public is what a module lists in `__all__`: its functions, its classes, and the public methods of those classes. Checked
on the source, without importing it. The command line is left out: there a docstring is the help text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hesse"
MODULES = sorted(p for p in SOURCE.rglob("*.py") if "cli" not in p.parts and p.name != "__main__.py")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_names(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def public_functions(tree: ast.Module) -> Iterator[tuple[str, Function, ast.ClassDef | None]]:
    names = public_names(tree)
    for node in tree.body:
        if isinstance(node, Function) and node.name in names:
            yield node.name, node, None
        if isinstance(node, ast.ClassDef) and node.name in names:
            for method in node.body:
                if isinstance(method, Function) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method, node


def parameters(function: Function, owner: ast.ClassDef | None) -> list[str]:
    a = function.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args)]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    if owner is not None and not static:
        names = names[1:]
    names += [arg.arg for arg in (a.vararg, *a.kwonlyargs, a.kwarg) if arg is not None]
    return [name for name in names if not name.startswith("_")]


def raised(function: Function) -> set[str]:
    """Names of the errors that the body raises itself (not those of nested functions)."""
    result: set[str] = set()
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(error, ast.Name) and error.id[:1].isupper():
                result.add(error.id)
        pending.extend(ast.iter_child_nodes(node))
    return result


def section(docstring: str, title: str) -> str | None:
    match = re.search(rf"^( *){title}:\n((?:\1 +.*\n|\s*\n)*)", docstring + "\n", re.MULTILINE)
    return match.group(2) if match else None


def faults(name: str, function: Function, owner: ast.ClassDef | None) -> Iterator[str]:
    docstring = ast.get_docstring(function, clean=True) or ""
    decorators = {d.id if isinstance(d, ast.Name) else getattr(d, "attr", "") for d in function.decorator_list}
    if "overload" in decorators:  # only a type; the function follows
        return
    if not docstring:
        yield f"{name}: no docstring"
        return
    if docstring.startswith("See `") or "overload" in decorators:  # implements a documented method
        return
    is_attribute = bool(decorators & {"property", "cached_property", "setter"})
    wanted = [] if is_attribute else parameters(function, owner)
    described = section(docstring, "Args")
    if wanted and described is None:
        yield f"{name}: no Args"
    elif described is not None:
        written = re.findall(r"^ +(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", described, re.MULTILINE)
        listed = {n.lstrip("*") for group in written for n in group.split(", ")}
        for missing in [n for n in wanted if n not in listed]:
            yield f"{name}: Args without {missing}"
    returns = function.returns
    returns_nothing = returns is None or (isinstance(returns, ast.Constant) and returns.value is None)
    generator = {"contextmanager", "asynccontextmanager"} & decorators
    never = isinstance(returns, ast.Name) and returns.id in ("NoReturn", "Never")
    has_section = section(docstring, "Returns") is not None or section(docstring, "Yields") is not None
    if not (returns_nothing or is_attribute or never or generator or has_section):
        yield f"{name}: no Returns"
    errors = raised(function)
    described = section(docstring, "Raises") or ""
    for error in sorted(errors):
        if not re.search(rf"\b{error}\b", described):
            yield f"{name}: Raises without {error}"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_public_functions_are_documented(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    problems = [fault for item in public_functions(tree) for fault in faults(*item)]
    assert not problems, "\n".join(problems)
