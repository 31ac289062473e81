"""Goal: every drop reason and counter of the Python side is declared once, is used, and has a counter from the start.
Method: the two enumerations, the package's source text, and a membership router that has received nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pipeline
from pipeline.address import parse
from pipeline.config import MembershipConfig
from pipeline.drop_reasons import MembershipCounter, MessageRefusal
from pipeline.membership.router import MembershipRouter

WORDS = [*MembershipCounter, *MessageRefusal]


def test_words_are_unique_labels_with_a_meaning() -> None:
    """Goal: a word can be a JSON key and a metric's label.  Method: all words of both enumerations."""
    assert len(set(WORDS)) == len(WORDS)
    for word in WORDS:
        assert re.fullmatch(r"[a-z][a-z_]*", word)
        assert word.text
        assert str(word) == word.value


@pytest.mark.parametrize("word", WORDS)
def test_every_reason_is_used(word: MembershipCounter | MessageRefusal) -> None:
    """Goal: no dead reason.  Method: a member of the enumeration is named in another module of the package."""
    package = Path(pipeline.__file__).parent
    name = f"{type(word).__name__}.{word.name}"
    texts = (path.read_text() for path in package.rglob("*.py") if path.name != "drop_reasons.py")
    assert any(re.search(rf"{name}\b", text) for text in texts)


@pytest.mark.parametrize("word", WORDS)
def test_no_reason_is_typed_again(word: MembershipCounter | MessageRefusal) -> None:
    """Goal: the declaration is the only place of the word.  Method: search string literals of the cores."""
    package = Path(pipeline.__file__).parent
    for part in ("wire", "membership", "overlay", "engines", "messages.py"):
        for path in [package / part] if part.endswith(".py") else (package / part).rglob("*.py"):
            assert f'"{word}"' not in path.read_text(), path


def test_membership_counters_exist_from_zero() -> None:
    """Goal: a scraper sees a counter before its first event.  Method: the counters of a new router."""
    v4, v6 = parse("10.77.255.254"), parse("fe80::1")
    router = MembershipRouter(MembershipConfig(), querier_v4=v4, querier_v6=v6, mtu=1436, now=0.0)
    assert router.counters == dict.fromkeys(map(str, MembershipCounter), 0)
