"""What one visitor of a public page may take: the table, its settings, the hour, and who a visitor is."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from conftest import clock

from lua_demo.schema import Request, UserError
from lua_demo.ui import limits as limits_module
from lua_demo.ui.limits import LIMITS, Limits, address_of, setting, to_markdown, visitor_of
from lua_demo.ui.public import PublicEngine


def public(**environment: str) -> Limits:
    return Limits(lambda: True, environment)


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_holds_on_a_public_page_only_and_can_be_set(name):
    assert Limits(lambda: False, {}).of(name) == math.inf
    assert public().of(name) == LIMITS[name].default
    assert Limits(lambda: False, {setting(name): "3"}).of(name) == public(**{setting(name): "3"}).of(name) == 3
    assert public(**{setting(name): "inf"}).of(name) == math.inf
    assert setting(name) in to_markdown()
    limits = public(**{setting(name): "3"})
    limits.check(name, 3)
    with pytest.raises(UserError, match=f"at most 3 .*{setting(name)}"):
        limits.check(name, 4)


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "nan"])
def test_a_limit_that_is_none_is_refused_at_the_start(text):
    with pytest.raises(UserError, match=r"LUA_DEMO_MAX_QUEUE is .*positive"):
        public(LUA_DEMO_MAX_QUEUE=text)


def test_what_is_spent_is_free_again_an_hour_later(monkeypatch):
    limits = public(LUA_DEMO_MAX_VOTES="3")
    limits.spend("votes", "a", 2)
    with pytest.raises(UserError, match="at most 3 votes per visitor and hour; try again in an hour"):
        limits.spend("votes", "a", 2)
    limits.spend("votes", "a")
    limits.spend("votes", "b", 3)
    later = limits_module.time.monotonic() + limits_module.HOUR_S + 1
    monkeypatch.setattr(limits_module, "time", clock(monotonic=lambda: later))
    limits.spend("votes", "a", 3)


def test_many_visitors_take_no_more_memory(monkeypatch):
    monkeypatch.setattr(limits_module, "MOST_VISITORS", 5)
    limits = public()
    for visitor in range(20):
        limits.spend("votes", str(visitor))
    assert len(limits._spent) == 5 and ("votes", "19") in limits._spent


@pytest.mark.parametrize(
    ("forwarded", "peer", "expected"),
    [
        ("", "8.8.4.4", "8.8.4.4"),
        ("1.2.3.4", "8.8.4.4", "8.8.4.4"),  # said by the client itself
        ("1.2.3.4, 9.9.9.9, 10.0.0.7", "127.0.0.1", "9.9.9.9"),  # behind proxies
        ("", "127.0.0.1", ""),
        ("nonsense", "testclient", ""),
        ("", "2a00:1450:4001:80b::200e", "2a00:1450:4001:80b::/64"),
        ("", None, ""),
    ],
)
def test_who_a_visitor_is(forwarded, peer, expected):
    headers = {"x-forwarded-for": forwarded}
    assert address_of(headers, peer) == expected
    request = SimpleNamespace(headers=headers, client=SimpleNamespace(host=peer), session_hash="abc")
    assert visitor_of(request) == (expected or "abc")


def test_nobody_is_a_visitor_too():
    assert visitor_of(None) == ""


def test_a_public_page_takes_no_base_and_no_photo_beyond_its_limits(engine, photo, monkeypatch):
    monkeypatch.setenv("LUA_DEMO_MAX_SIZE", "64")
    monkeypatch.setenv("LUA_DEMO_MAX_MEGAPIXELS", "0.02")
    page = PublicEngine(engine)
    with pytest.raises(UserError, match=r"at most 64 pixels for the longest side .*LUA_DEMO_MAX_SIZE"):
        page.compare(Request(str(photo(64, 48)), size=65))
    with pytest.raises(UserError, match=r"at most 0\.02 megapixels in one photo"):
        page.compare(Request(str(photo(200, 110)), size=64))
    assert page.compare(Request(str(photo(160, 120)), size=64))
