"""A pytest plug-in: the option by which the conformance suite is told what to test."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--arm NAME``, as often as wanted: an arm, a method or a plug-in; without it everything."""
    parser.addoption(
        "--arm",
        action="append",
        metavar="NAME",
        help="arm (mae+yours), method (bare and with every plug-in) or plug-in (on every method)",
    )
