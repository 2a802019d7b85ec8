"""How the benchmarks are run: whole, or in the short form that guards every change."""

import pytest


def pytest_addoption(parser):
    group = parser.getgroup("pylvs")
    group.addoption("--short", action="store_true", help="few rounds, no million of connections")
    group.addoption("--store-baseline", action="store_true", help="take what is measured for good")


@pytest.fixture(scope="module")
def short(request):
    return request.config.getoption("--short")


@pytest.fixture(scope="module")
def storing(request):
    return request.config.getoption("--store-baseline")
