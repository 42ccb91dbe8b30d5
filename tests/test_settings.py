"""One codec for the settings of a request."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from lua_demo.request.settings import DEFAULTS, SOURCES, from_query, from_settings, to_settings
from lua_demo.schema import Request, UserError

OTHER = {"scale": 4, "size": 96, "methods": ("lua", "native"), "base": "sdxl", "decoder": "tiny", "seed": 2**52}


def test_every_field_is_a_setting_or_a_source():
    assert {field.name for field in fields(Request)} == {*DEFAULTS, *SOURCES}


def test_there_and_back_through_json():
    request = replace(Request(image="a.png"), **{name: value for name, value in OTHER.items() if name in DEFAULTS})
    settings = json.loads(json.dumps(to_settings(request)))
    assert "image" not in settings and "latent" not in settings
    assert from_settings(settings, image="a.png") == request


def test_what_is_missing_or_unknown():
    assert from_settings({}) == Request()
    assert from_settings({"scale": 4, "colour": "red", "image": "/etc/passwd"}) == Request(scale=4)


def test_the_query_of_a_link():
    query = {"scale": "4", "seed": "7", "methods": "lua, swinir", "__theme": "dark", "image": "/etc/passwd"}
    assert from_query(query) == {"scale": 4, "seed": 7, "methods": ("lua", "swinir")}
    assert from_query({"__theme": "dark", "view": "mode=grid"}) == {}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"scale": "two"}, "scale 'two' is not a whole number"),
        ({"scale": "3"}, "scale 3 does not exist"),
        ({"seed": "1e3"}, "seed '1e3' is not"),
        ({"seed": "9" * 5000}, "seed"),
        ({"size": "-1"}, "size -1 is out of range"),
        ({"methods": ""}, "no method"),
        ({"methods": "lua,<b>"}, "method '<b>' does not exist"),
        ({"base": "mars"}, "base 'mars'"),
    ],
)
def test_bad_links_are_refused_in_one_short_line(query, words):
    with pytest.raises(UserError) as caught:
        from_settings(from_query(query))
    assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [None, {}, [[1]], "x" * 10**5, float("nan"), True, 10**400])
@pytest.mark.parametrize("name", list(DEFAULTS))
def test_any_json_value_is_taken_or_refused(name, value):
    try:
        request = from_settings({name: value})
    except UserError as error:
        assert len(str(error)) < 400
    else:
        assert isinstance(getattr(request, name), type(DEFAULTS[name]))
