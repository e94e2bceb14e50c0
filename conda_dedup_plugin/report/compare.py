"""What ``compare`` prints: text of 80 columns at most, and JSON documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..builds import explain
from ..channels import channel_name
from ..model import SCHEMA
from ..specs.packages import PYPI
from ..tone import amount
from ..versions import newer
from .text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..matching import Pair
    from ..similar import Cluster, Compared, Comparison
    from ..specs.packages import Package, Specs

CLASSES = ("identical", "other_build", "other_channel", "other_version", "only_a", "only_b")
_TITLES = {
    "other_build": "Same version, other build",
    "other_channel": "Same package from another channel",
    "other_version": "Other version",
}
_WIDTH = 80
#: So many packages of one class are named, at most.
_MOST = 20


def difference(pair: Pair) -> str:
    """Say in a few words what differs in a package that both have, A's first."""
    a, b = pair
    if a is None or b is None:
        return ""
    if a.is_pip != b.is_pip or a.dist.version == b.dist.version:
        one, other = _origin(a), _origin(b)
        if one != other and (a.is_pip != b.is_pip or a.dist.build == b.dist.build):
            return f"{one} against {other}"
        return explain(a, b)
    order = newer(a.dist.version, b.dist.version, a.is_pip)
    said = f"{a.dist.version or 'any'} against {b.dist.version or 'any'}"
    return said if order is None else f"{said}; {'A' if order > 0 else 'B'} is newer" if order else said


def _origin(package: Package) -> str:
    return PYPI if package.is_pip else channel_name(package.dist.channel) or "no channel"


def pair_document(found: Comparison) -> dict[str, Any]:
    """What ``compare A B --json`` prints."""
    return {
        "schema": SCHEMA,
        "a": _specs(found.a),
        "b": _specs(found.b),
        **_numbers(found),
        "classes": {
            name: [
                {
                    "name": pair.package.dist.name,
                    "a": _package(pair.a),
                    "b": _package(pair.b),
                    "difference": "" if name == "identical" else difference(pair),
                }
                for pair in getattr(found, name)
            ]
            for name in CLASSES
        },
    }


def all_document(found: Compared) -> dict[str, Any]:
    """What ``compare --all --json`` prints."""
    return {
        "schema": SCHEMA,
        "threshold": found.threshold,
        "environments": [_specs(specs) for specs in found.specs],
        "pairs": [
            {"a": pair.a.source, "b": pair.b.source, **_numbers(pair)}
            | {name: len(getattr(pair, name)) for name in CLASSES}
            for pair in found.pairs
        ],
        "clusters": [
            {
                "environments": [member.source for member in cluster.members],
                "names": [member.name for member in cluster.members],
                "common_packages": len(cluster.common),
                "bytes_of_all": cluster.bytes_of_all,
                "bytes_of_union": cluster.bytes_of_union,
                "saving": cluster.saving,
                "unknown_sizes": cluster.unknown_sizes,
            }
            for cluster in found.clusters
        ],
    }


def _specs(specs: Specs) -> dict[str, Any]:
    return {
        "name": specs.name,
        "source": specs.source,
        "packages": len(specs.packages),
        "bytes": sum(package.size or 0 for package in specs.packages),
        "unknown_sizes": sum(package.size is None for package in specs.packages),
        "exact": specs.exact,
    }


def _numbers(found: Comparison) -> dict[str, Any]:
    return {
        "similarity": found.similarity,
        "byte_similarity": found.byte_similarity,
        "core_similarity": found.core_similarity,
        "common_bytes": found.common_bytes,
        "all_bytes": found.all_bytes,
        "unknown_sizes": found.unknown_sizes,
    }


def _package(package: Package | None) -> dict[str, Any] | None:
    if package is None:
        return None
    dist = package.dist
    return {
        "version": dist.version,
        "build": dist.build,
        "subdir": dist.subdir,
        "channel": channel_name(dist.channel),
        "digest": dist.digest,
        "bytes": package.size,
    }


def print_pair(found: Comparison, out: Console) -> None:
    """Print how similar two environments are, and every package that is not identical."""
    for letter, specs in (("A", found.a), ("B", found.b)):
        _line(out, f"{letter}  {specs.name}", specs.source if specs.source != specs.name else "")
    out.print()
    same, total = len(found.identical), len(found.identical) + len(found.differing)
    _line(out, f"{_percent(found.similarity)} alike: {same:,} of {total:,} packages are identical")
    if found.byte_similarity is not None:
        share = _percent(found.byte_similarity)
        _line(out, f"{share} in bytes: {amount(found.common_bytes)} of {amount(found.all_bytes)}")
    if found.unknown_sizes:
        _line(out, f"       nobody knows the size of {_packages(found.unknown_sizes)}")
    if found.core_similarity is not None:
        _line(out, f"{_percent(found.core_similarity)} of the core: {', '.join(sorted(found.core))}")
    for specs in (found.a, found.b):
        if not specs.exact:
            _line(out, f"       as far as {specs.name} says: it leaves versions or builds open")
    for name, title in _TITLES.items():
        pairs = getattr(found, name)
        _list(out, f"{title}: {len(pairs):,}", [(pair, difference(pair)) for pair in pairs])
    for title, pairs in (("Only in A", found.only_a), ("Only in B", found.only_b)):
        _list(out, f"{title}: {len(pairs):,}", [(pair, _known(pair.package)) for pair in pairs])


def _list(out: Console, title: str, lines: Sequence[tuple[Pair, str]]) -> None:
    if not lines:
        return
    out.print()
    out.print(Text(title, style="bold"))
    for pair, said in lines[:_MOST]:
        pip = " (pip)" if pair.package.is_pip else ""
        _line(out, f"  {pair.package.dist.name}{pip}", said)
    if len(lines) > _MOST:
        _line(out, f"  and {len(lines) - _MOST:,} more; all of them: --json")


def _known(package: Package) -> str:
    size = "" if package.size is None else f", {amount(package.size)}"
    build = "" if package.is_pip or not package.dist.build else f" {package.dist.build}"
    return f"{package.dist.version}{build}{size}"


def _line(out: Console, what: str, more: str = "") -> None:
    """Print one line, or what does not fit there on lines of its own below."""
    what, more = printable(what), printable(more)
    line = f"{what:28}  {more}".rstrip() if more else what
    if len(line) <= _WIDTH:
        out.print(Text(line))
        return
    for part in _wrapped(what, 0):
        out.print(Text(part))
    for part in _wrapped(more, 6):
        out.print(Text(part))


def _wrapped(text: str, indent: int) -> list[str]:
    import textwrap

    start = " " * (indent or len(text) - len(text.lstrip()))
    return textwrap.wrap(text.strip(), _WIDTH, initial_indent=start, subsequent_indent=start + "  ")


def _percent(share: float) -> str:
    """Write a share; never 100 % of what is not all of it."""
    text = f"{share:6.1%}"
    return " 99.9%" if text == "100.0%" and share < 1 else text


def _share(share: float | None, of: str) -> str:
    return "" if share is None else f", {_percent(share).strip()} {of}"


def _packages(count: int) -> str:
    return "1 package" if count == 1 else f"{count:,} packages"


def print_all(found: Compared, out: Console) -> None:
    """Print the clusters of near-identical environments, largest saving first."""
    many = len(found.specs)
    compared = "1 environment" if many == 1 else f"{many:,} environments"
    if not found.clusters:
        _line(out, f"{compared}, no two of which are {found.threshold:.0%} alike.")
        return
    _line(out, f"{compared}; these are at least {found.threshold:.0%} alike")
    for cluster in found.clusters:
        _print_cluster(found, cluster, out)
    alone = many - sum(len(cluster.members) for cluster in found.clusters)
    if alone:
        out.print()
        _line(out, f"{alone:,} more like no other")


def _print_cluster(found: Compared, cluster: Cluster, out: Console) -> None:
    out.print()
    title = ", ".join(printable(member.name) for member in cluster.members)
    for part in _wrapped(title, 0):
        out.print(Text(part, style="bold"))
    _line(out, f"  {_packages(len(cluster.common))} in common")
    _line(out, f"  {amount(cluster.bytes_of_all)} together, {amount(cluster.bytes_of_union)} "
          f"if each package is there once: saves {amount(cluster.saving)}")  # fmt: skip
    if cluster.unknown_sizes:
        _line(out, f"  nobody knows the size of {_packages(cluster.unknown_sizes)}")
    inside = {member.source for member in cluster.members}
    for pair in found.pairs:
        if pair.a.source in inside and pair.b.source in inside:
            size = _share(pair.byte_similarity, "in bytes")
            core = _share(pair.core_similarity, "of the core")
            _line(out, f"  {pair.a.name} and {pair.b.name}",
                  f"{_percent(pair.similarity).strip()} alike{size}{core}")  # fmt: skip
