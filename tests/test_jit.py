"""What is done to Numba for our own functions, and to nobody else's."""

import numba
import numpy as np
import pytest

from pylvs.jit import COMPILES, apart, by_pointer, compiled, door, entrance, pointer_to, records

VALUES = np.arange(10)


@numba.njit
def find(values, at):  # named like one of ours
    return values[at]


@compiled
def inner(values, at):
    return values[at]


@door
def ours(values, at):
    return inner(values, at)


def test_a_plug_ins_own_compiled_functions_are_left_alone():
    assert find(VALUES, -1) == 9


def test_an_index_of_ours_counts_from_the_front():
    assert [ours(VALUES, at) for at in (0, 9)] == [0, 9]


def test_a_negative_index_of_ours_is_taken_as_it_is():
    """An error where bounds are checked; only plain Python counts from the end."""
    some = VALUES[3:8]
    if numba.config.BOUNDSCHECK:
        with pytest.raises(IndexError):
            ours(some, -1)
    else:
        assert ours(some, -1) == (2 if COMPILES else 7)


@apart
def _divided(number, by):
    return number // by


@compiled
def _divided_twice(number, first, second):
    return _divided(number, first) + _divided(number, second)


def test_the_second_call_that_fails_is_as_loud_as_the_first():
    divided_twice = entrance(_divided_twice)
    assert divided_twice(8, 2, 4) == 6
    for first, second in ((0, 1), (1, 0)):
        with pytest.raises(ZeroDivisionError):
            divided_twice(8, first, second)


@door
def halved(values, at, by):
    return values[at // by]


_halved = by_pointer(halved)


@door
def halved_elsewhere(place, values, at, by):
    return _halved(place, values, at, by) + 1


def test_a_door_is_called_by_a_pointer_to_its_code():
    place = pointer_to(halved, VALUES, 0, 2)
    assert [halved_elsewhere(place, VALUES, at, 2) for at in (0, 9)] == [1, 5]


def test_what_fails_in_a_door_called_by_a_pointer_fails():
    place = pointer_to(halved, VALUES, 0, 2)
    with pytest.raises(ZeroDivisionError):
        halved_elsewhere(place, VALUES, 9, 0)


def test_records_have_their_fields_as_attributes_for_code_that_runs_uncompiled():
    inner = np.dtype([("low", np.int64), ("octets", np.uint8, (4,))])
    table = records(np.dtype([("one", np.int64), ("pairs", inner, (2,))]), 3)
    if COMPILES:
        assert not hasattr(table[1], "one")
        return
    table[1].one = 7
    table[1].pairs[1].low = 8
    table[1].pairs[0].octets[:] = 9
    assert table["one"].tolist() == [0, 7, 0]
    assert table["pairs"]["low"].tolist() == [[0, 0], [0, 8], [0, 0]]
    assert table["pairs"]["octets"].sum() == 36
    with pytest.raises(AssertionError, match="flags"):
        records(np.dtype([("flags", np.int64)]), 1)
