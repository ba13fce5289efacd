"""The conformance suite that ships, on every method and plug-in of this tree."""

from __future__ import annotations

from bench.testing.test_conformance import *  # noqa: F403
