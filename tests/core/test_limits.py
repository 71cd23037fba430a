import numpy as np
import pytest

from brainmu.core.limits import number, whole
from brainmu.errors import InputError


@pytest.mark.parametrize("value", [True, "1", None, np.nan, np.inf, -1.0])
def test_what_is_no_number_or_too_small_is_refused_by_name(value):
    with pytest.raises(InputError, match="rate is"):
        number("rate", value)


@pytest.mark.parametrize("value", [True, "1", None, 1.0, 0])
def test_what_is_no_whole_number_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"draws is .*whole number of at least 1"):
        whole("draws", value, 1)


def test_numbers_of_any_library_pass():
    assert (number("rate", np.float32(0.5)), whole("draws", np.int64(3))) == (0.5, 3)
    assert number("sign", -2, -np.inf) == -2
    with pytest.raises(InputError, match=r"share is 1\.5, expected a number of at least 0 and at most 1"):
        number("share", 1.5, most=1)
    with pytest.raises(InputError, match="rate is 0, expected a number above 0"):
        number("rate", 0, above=True)
