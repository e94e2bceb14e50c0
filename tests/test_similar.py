"""Two environments side by side: classes, similarity and clusters, counted by hand."""

from __future__ import annotations

from conda_dedup_plugin.channels import channel_name
from conda_dedup_plugin.model import Dist
from conda_dedup_plugin.similar import clusters, compare
from conda_dedup_plugin.specs.packages import Package, Specs, in_order

SHA = "a" * 64


def package(name, version="1.0", build="0", size=100, digest="", channel="", subdir="linux-64", md5=""):
    return Package(Dist(name, version, build, subdir, digest, channel), size, "", md5)


def pip(name, version="1.0", tags="py3-none-any", size=10):
    return package(name, version, tags, size, subdir="pypi")


def specs(name, *packages, exact=True):
    return Specs(name, f"/envs/{name}", in_order(list(packages)), exact)


def names(pairs):
    return [pair.package.dist.name for pair in pairs]


def test_every_class_once():
    a = specs(
        "a",
        package("same", digest=SHA),
        package("build", build="py311_0", size=50),
        package("channel", channel="https://conda.anaconda.org/conda-forge/linux-64"),
        package("version", "1.9"),
        package("left"),
        pip("Pip_Same"),
        pip("pip.version"),
    )
    b = specs(
        "b",
        package("same", digest=SHA, channel="mirror"),
        package("build", build="py312_0", size=60),
        package("channel", channel="https://repo.anaconda.com/pkgs/main/linux-64"),
        package("version", "1.10"),
        package("right", size=None),
        pip("pip-same", "1.0.0", tags=""),
        pip("pip-version", "2"),
    )
    found = compare(a, b)
    assert names(found.identical) == ["Pip_Same", "same"]
    assert names(found.other_build) == ["build"]
    assert names(found.other_channel) == ["channel"]
    assert names(found.other_version) == ["pip.version", "version"]
    assert names(found.only_a) == ["left"]
    assert names(found.only_b) == ["right"]
    assert found.similarity == 2 / 8
    # build, channel, version, pip's version of both, what is only in A; of "right" nobody knows
    assert found.common_bytes == 110
    assert found.all_bytes == 110 + (50 + 60) + 2 * 100 + 2 * 100 + 2 * 10 + 100
    assert found.byte_similarity == found.common_bytes / found.all_bytes
    assert found.unknown_sizes == 1
    assert compare(b, a).similarity == found.similarity


def test_the_same_digest_is_the_same_package_from_anywhere_and_another_is_another_build():
    one = package("x", digest=SHA, channel="one")
    assert compare(specs("a", one), specs("b", package("x", digest=SHA, channel="two"))).similarity == 1
    rebuilt = compare(specs("a", one), specs("b", package("x", digest="b" * 64, channel="one")))
    assert names(rebuilt.other_build) == ["x"]
    elsewhere = compare(specs("a", one), specs("b", package("x", digest="b" * 64, channel="two")))
    assert names(elsewhere.other_channel) == ["x"]


def test_md5_speaks_where_only_one_has_sha256():
    both = package("x", digest=SHA, md5="c" * 32)
    assert compare(specs("a", both), specs("b", package("x", digest="c" * 32))).similarity == 1
    assert names(compare(specs("a", both), specs("b", package("x", digest="d" * 32))).other_build) == ["x"]


def test_conda_and_pip_have_the_same_package():
    found = compare(specs("a", package("Numpy", subdir="noarch")), specs("b", pip("numpy")))
    assert names(found.other_channel) == ["Numpy"]
    both = specs("both", package("numpy"), pip("numpy"))
    assert compare(both, both).similarity == 1


def test_a_file_that_leaves_versions_open():
    a = specs("a", package("numpy", "1.26.4", "py312_0"), package("python", "3.12.1"), package("zlib"))
    b = specs("b", package("numpy", "=1.26", ""), package("python", ">=3.11,<3.12", ""), exact=False)
    found = compare(a, b)
    assert names(found.identical) == ["numpy"]
    assert names(found.other_version) == ["python"]
    assert names(found.only_a) == ["zlib"]


def test_core_packages_are_counted_apart():
    a = specs("a", package("numpy"), package("pytorch"), package("x"), package("y"))
    b = specs("b", package("numpy"), package("pytorch", "2.0"))
    assert compare(a, b).core_similarity is None
    assert compare(a, b, ["NumPy", "pytorch", "absent"]).core_similarity == 0.5


def test_empty_environments_are_the_same():
    found = compare(specs("a"), specs("b"))
    assert found.similarity == 1
    assert found.byte_similarity is None


def test_clusters_are_connected_and_the_largest_saving_comes_first():
    base = [package(f"p{number}", size=number) for number in range(20)]
    a, b, c = specs("a", *base[:18]), specs("b", *base[:19]), specs("c", *base[1:20])
    small = [package(f"s{number}", size=1) for number in range(3)]
    d, e = specs("d", *small), specs("e", *small)
    found = clusters([a, d, b, e, c, specs("alone", package("z"))], 0.9)
    assert [[member.name for member in cluster.members] for cluster in found] == [["a", "b", "c"], ["d", "e"]]
    first = found[0]
    assert [one.dist.name for one in first.common] == sorted(f"p{number}" for number in range(1, 18))
    assert first.bytes_of_all == sum(range(18)) + sum(range(19)) + sum(range(20))
    assert first.bytes_of_union == sum(range(20))
    assert first.saving == first.bytes_of_all - first.bytes_of_union
    # a and c alone are not alike: b is between them
    assert compare(a, c).similarity < 0.9
    # nor does it matter which of them comes first
    middle = specs("z", *base[:19])
    (found,) = clusters([a, c, middle], 0.9)
    assert [member.name for member in found.members] == ["a", "c", "z"]


def test_what_people_call_a_channel():
    assert channel_name("https://conda.anaconda.org/conda-forge/linux-64") == "conda-forge"
    assert channel_name("https://prefix.dev/conda-forge/") == "conda-forge"
    assert (
        channel_name("https://conda.anaconda.org/t/secret/pytorch/label/nightly/noarch")
        == "pytorch/label/nightly"
    )
    assert channel_name("https://me:secret@host.example/t/x/c/linux-64") == "https://host.example/c"
    assert channel_name("https://repo.anaconda.com/pkgs/main/linux-64") == "defaults"
    assert channel_name("file:///srv/channel/linux-64") == "file:///srv/channel"
    assert channel_name("conda-forge") == "conda-forge"
