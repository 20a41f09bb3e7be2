"""Writes the tables of known options: what the argument parsers in published wheels accept, read without running them.

    python benchmarks/extract_options.py WHEEL...

Wheels come from PyPI (`pip download --no-deps vllm==0.24.0`). A table is one option a line, after a heading that says
where it was read. Option names are the literals of `add_argument` calls and the fields of argument dataclasses.
"""

import ast
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

TABLES = Path(__file__).parents[1] / "tests" / "search_spaces" / "engines" / "known_options"

# Distribution -> table name -> (files with add_argument calls, classes whose fields are options, by file).
SOURCES: dict[str, dict[str, tuple[list[str], dict[str, list[str]]]]] = {
    "vllm": {
        "vllm": (
            ["vllm/engine/arg_utils.py", "vllm/entrypoints/openai/cli_args.py", "vllm/entrypoints/cli/serve.py"],
            {"vllm/entrypoints/openai/cli_args.py": ["BaseFrontendArgs", "FrontendArgs"]},
        ),
        "vllm-bench": (
            ["vllm/benchmarks/serve.py", "vllm/benchmarks/datasets.py", "vllm/benchmarks/datasets/datasets.py"],
            {},
        ),
    },
    "sglang": {"sglang": (["sglang/srt/server_args.py"], {"sglang/srt/server_args.py": ["ServerArgs"]})},
    "vllm_router": {"vllm-router": (["vllm_router/router_args.py"], {})},
    "sglang_router": {"sglang-router": (["sglang_router/router_args.py", "sglang_router/launch_router.py"], {})},
    "ai_dynamo": {
        f"dynamo-{part}": (
            [*files, "dynamo/common/configuration/groups/runtime_args.py"],
            {},
        )
        for part, files in {
            "frontend": ["dynamo/frontend/frontend_args.py", "dynamo/common/configuration/groups/router_args.py"],
            "vllm": ["dynamo/vllm/backend_args.py"],
            "trtllm": ["dynamo/trtllm/backend_args.py"],
            "sglang": ["dynamo/sglang/backend_args.py"],
        }.items()
    },
}


def added(tree: ast.AST) -> Iterator[str]:
    """Option strings of add_argument(...) and of helpers that take `flag_name=`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        named = [keyword.value for keyword in node.keywords if keyword.arg in {"flag_name", "obsolete_flag"}]
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for argument in [*(node.args if "add_argument" in called else []), *named]:
            text = literal(argument)
            if text.startswith("-"):
                yield text


def literal(node: ast.AST) -> str:
    """A string, also an f-string whose only hole is an empty prefix, as the routers have."""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def fields(tree: ast.AST, classes: list[str]) -> Iterator[str]:
    """Fields of argument dataclasses, as options, and the aliases in their annotations."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or node.name not in classes:
            continue
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                yield "--" + field.target.id.replace("_", "-")
                constants = [part.value for part in ast.walk(field.annotation) if isinstance(part, ast.Constant)]
                yield from (text for text in constants if isinstance(text, str) and text.startswith("--"))


def table(wheel: zipfile.ZipFile, files: list[str], classes: dict[str, list[str]]) -> list[str]:
    names = {"-h", "--help"}
    for file in files:
        if file in wheel.namelist():
            tree = ast.parse(wheel.read(file))
            names |= set(added(tree)) | set(fields(tree, classes.get(file, [])))
    return sorted(name for name in names if " " not in name)


def main(paths: list[str]) -> None:
    TABLES.mkdir(exist_ok=True)
    for path in map(Path, paths):
        distribution, version = path.name.split("-")[:2]
        with zipfile.ZipFile(path) as wheel:
            for name, (files, classes) in SOURCES[distribution].items():
                options = table(wheel, files, classes)
                heading = f"# {', '.join(files)} in {path.name}\n"
                (TABLES / f"{name}-{version}.txt").write_text(heading + "\n".join(options) + "\n")
                print(f"{name} {version}: {len(options)} options")


if __name__ == "__main__":
    main(sys.argv[1:])
