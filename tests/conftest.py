"""Fixtures of all tests: figures that a test measures are printed in the summary at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Function that records figures for the summary and the JUnit file: measured(name=value, …)."""

    def record(**figures: Any) -> None:
        for name, value in figures.items():
            record_property(name, round(value, 3) if isinstance(value, float) else value)

    return record


def pytest_terminal_summary(terminalreporter: Any) -> None:
    lines = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call" and report.user_properties:
                figures = ", ".join(f"{name} {value}" for name, value in report.user_properties)
                lines.append(f"{report.nodeid.rpartition('::')[2]}: {figures}")
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
