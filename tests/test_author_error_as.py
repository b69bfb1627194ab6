"""The block around an author's code: any error becomes one, interrupts and chosen ones pass."""

from __future__ import annotations

import pytest

from ddpo.author_errors import author_error_as, author_line
from ddpo.errors import INTERRUPTS, ConfigError, RewardLoadError, UserError


def made(error: BaseException) -> RewardLoadError:
    return RewardLoadError(f"it failed: {author_line(error)}")


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), StopIteration(), ConfigError("x"), BaseException("x")]
)
def test_any_error_becomes_the_callers(error: BaseException) -> None:
    with pytest.raises(RewardLoadError, match="it failed: ") as caught, author_error_as(made):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", INTERRUPTS)
def test_interrupts_pass(kind: type[BaseException]) -> None:
    error = kind()
    with pytest.raises(kind) as caught, author_error_as(made):
        raise error
    assert caught.value is error


def test_chosen_errors_pass_with_their_subclasses() -> None:
    error = ConfigError("x")
    with pytest.raises(ConfigError) as caught, author_error_as(made, passing=(UserError,)):
        raise error
    assert caught.value is error
    assert caught.value.__cause__ is None


def test_a_block_without_an_error_is_left_alone() -> None:
    with author_error_as(made):
        value = 1
    assert value == 1
