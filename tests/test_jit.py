"""What is done to Numba for our own functions, and to nobody else's."""

import numba
import numpy as np
import pytest

from pylvs.jit import COMPILES, apart, compiled, door, entrance

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
