"""Figures of the source's structure: `python -m tests.structure [CHECKOUT]`.

Rooms are the packages. An arrow is an import from one room into another; arrows point back where no
order of the rooms lets them all point down. Files are read as text, so any checkout will do.
"""

import ast
import itertools
import re
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path

import networkx as nx

PACKAGES = ("db", "worker", "scheduler")
SMALL = 8  # lines


def modules(root: Path) -> dict[str, Path]:
    """Every module by its dotted name, except migrations."""
    paths = (path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
        if "migrations" not in path.parts
    }


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a module imports, lazily and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            outer = len(inner) < len(node.names)
            found |= inner | ({node.module} if outer else set())
    return {each for each in found if each in known and each != name}


def room(name: str, known: dict[str, Path]) -> str:
    """The package that a module is in."""
    return name if known[name].name == "__init__.py" else name.rpartition(".")[0]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach one another."""
    components = nx.strongly_connected_components(nx.DiGraph(graph))
    return sorted(sorted(component) for component in components if len(component) > 1)


def back_arrows(arrows: dict[str, set[str]]) -> int:
    """How many arrows have to be cut, node by node, until the rooms have an order."""
    left = {node: set(others) for node, others in arrows.items()}
    cut = 0
    while loops := circles(left):
        inside = set(loops[0])
        node = min(loops[0], key=lambda each: len(left[each] & inside))
        cut += len(left[node] & inside)
        left[node] -= inside
    return cut


def functions(path: Path) -> list[tuple[str, int]]:
    """Each function of a file with its number of lines."""
    return [
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def spread(numbers: list[int]) -> str:
    """Median, ninetieth percentile and the largest."""
    ninth = statistics.quantiles(numbers, n=10)[-1]
    return f"median {statistics.median(numbers):g}, p90 {ninth:g}, longest {max(numbers)}"


def used_once(path: Path) -> tuple[int, int, int]:
    """A file's private functions, those of them used once, and the small ones of these."""
    text = path.read_text("utf-8")
    private = [(n, size) for n, size in functions(path) if re.match(r"_[a-z]", n)]
    once = [size for n, size in private if len(re.findall(rf"\b{n}\b", text)) == 2]
    return len(private), len(once), sum(size <= SMALL for size in once)


def main(root: Path) -> None:
    """Print the figures of one checkout."""
    known = modules(root)
    graph = {name: imports(name, path, known) for name, path in known.items()}
    arrows: dict[str, set[str]] = defaultdict(set)
    for name, others in graph.items():
        arrows[room(name, known)] |= {room(other, known) for other in others}
    for place, others in arrows.items():
        others.discard(place)
    files = Counter(room(name, known) for name in known if known[name].name != "__init__.py")
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in known.items()}
    print("room                        files  lines")
    for place in sorted(arrows | files):
        total = sum(lines[name] for name in known if room(name, known) == place)
        print(f"{place:26} {files[place]:6} {total:6}")
    print(f"rooms {len(arrows)}, arrows between them {sum(map(len, arrows.values()))}, ", end="")
    print(f"of these pointing back {back_arrows(arrows)}")
    inside = [loop for loop in circles(graph) if not is_package_with_child(loop)]
    print(f"circles of rooms {len(circles(arrows))}, of modules {len(inside)}")
    for loop in inside:
        print("  " + " ".join(loop))
    print("functions:", spread([size for path in known.values() for _, size in functions(path)]))
    print("files:", spread([size for size in lines.values() if size]))
    private = [used_once(path) for path in known.values()]
    total, once, small = (sum(each) for each in zip(*private, strict=True))
    print(f"private functions {total}, used once {once}, of these at most {SMALL} lines {small}")


def is_package_with_child(loop: list[str]) -> bool:
    """Whether a circle is a package and its own modules, as of a registry that imports entries."""
    return any(
        all(other == name or other.startswith(f"{name}.") for other in loop) for name in loop
    ) and not any(a.count(".") == b.count(".") for a, b in itertools.combinations(loop, 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
