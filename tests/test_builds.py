"""What differs in two build strings, and which of two versions is newer."""

from __future__ import annotations

import pytest

from conda_dedup_plugin.builds import explain
from conda_dedup_plugin.versions import newer, satisfies
from tests.test_similar import package, pip


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("py311h64a7726_0", "py312heda63a1_0", "python 3.11 against 3.12; hash"),
        ("py311h64a7726_0", "py311h64a7726_1", "number 0 against 1"),
        ("py311h64a7726_0", "py311heda63a1_0", "hash"),
        ("py310", "py_0", "python 3.10 against none; number none against 0; tags"),
        ("mkl_py311h64a7726_0", "openblas_py311h64a7726_0", "BLAS mkl against openblas"),
        ("nompi_py311h64a7726_100", "mpi_mpich_py311h64a7726_0",
         "MPI nompi against mpich; number 100 against 0; tags"),
        ("cpu_py311h64a7726_0", "cuda118_py311h64a7726_200",
         "variant cpu against cuda 118; number 0 against 200"),
        ("cpu_mkl_py39hf1faf6a_100", "gpu_mkl_py39hf1faf6a_100", "variant cpu against gpu"),
        ("py3.11_cuda11.8_cudnn8.7.0_0", "py3.11_cpu_0", None),
        ("np126py312h1234567_0", "np20py312h1234567_0", "numpy 1.26 against 2.0"),
        ("hab00c5b_1_cpython", "hab00c5b_0_cpython", "number 1 against 0"),
        ("h06a4308_0", "h06a4308_0", "another archive of the same build string"),
        ("1_h66dfbfd_blis", "20_linux64_openblas", None),
    ],
)  # fmt: skip
def test_what_differs(one, other, said):
    found = explain(package("x", build=one), package("x", build=other))
    assert found
    if said is not None:
        assert found == said


def test_another_subdir_and_other_wheels():
    said = explain(package("x", subdir="noarch"), package("x"))
    assert said == "subdir noarch against linux-64"
    assert explain(pip("x", tags="py3-none-any"), pip("x", tags="cp312-cp312-linux_x86_64")) == (
        "wheel for py3-none-any against cp312-cp312-linux_x86_64"
    )


@pytest.mark.parametrize(
    ("a", "b", "order"),
    [
        ("1.10", "1.9", 1), ("1.0", "1.0.0", 0), ("1.0rc1", "1.0", -1), ("2024a", "2024a", 0),
        ("=1", "1", None), ("1.0", "", None),
    ],
)  # fmt: skip
def test_which_is_newer(a, b, order):
    assert newer(a, b) == order
    assert newer(b, a) == (None if order is None else -order)


@pytest.mark.parametrize(
    ("version", "wanted", "meets"),
    [
        ("1.26.4", "=1.26", True), ("1.260", "=1.26", False), ("1.26.4", "1.26.*", True),
        ("1.26", "1.26.*", True), ("1.27", "!=1.27", False), ("1.27", "!=1.27.*", False),
        ("1.5", ">=1.4,<1.6", True), ("1.6", ">=1.4,<1.6", False), ("1.6", "<1.5|>=1.6", True),
        ("1.5.2", "~=1.5.0", True), ("1.6.0", "~=1.5.0", False), ("3", "", True), ("3", "*", True),
        ("1.10", ">1.9", True), ("2.0", "==2", True),
    ],
)  # fmt: skip
def test_what_a_range_asks_for(version, wanted, meets):
    assert satisfies(version, wanted) is meets
    assert satisfies(wanted, version) is meets
