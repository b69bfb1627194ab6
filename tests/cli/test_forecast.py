"""How long an evaluation draws, said once."""

from __future__ import annotations

from ddpo.cli.evaluate import _Forecast
from ddpo.eval.runner import EvalProgress


def drawn(done: int, found: int = 0) -> EvalProgress:
    return EvalProgress("sampling", "base", done, 100, found)


def test_the_speed_of_later_blocks_is_that_of_the_rest() -> None:
    """16 images in 8 seconds; of 1,000 are 968 left: 484 seconds."""
    forecast = _Forecast(1000)
    assert forecast.line(drawn(16), 60.0) is None  # which took in the loading of the model
    assert (
        forecast.line(drawn(32), 68.0)
        == "about 8 min to draw what is left of 1,000 images; scoring comes after it"
    )
    assert forecast.line(drawn(48), 76.0) is None


def test_images_of_an_earlier_evaluation_do_not_count() -> None:
    forecast = _Forecast(60)
    assert forecast.line(drawn(20, 20), 0.0) is None
    assert forecast.line(drawn(30, 20), 5.0) is None
    assert (
        forecast.line(drawn(40, 20), 10.0)
        == "about 10 s to draw what is left of 60 images; scoring comes after it"
    )


def test_scoring_says_nothing() -> None:
    forecast = _Forecast(60)
    for done in (10, 20, 30):
        assert forecast.line(EvalProgress("scoring", "darkness", done, 60, 0), float(done)) is None
