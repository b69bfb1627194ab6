"""The forecast of an evaluation's sampling time, which is printed once."""

from __future__ import annotations

from ddpo.cli.evaluation_display import SAMPLING, Forecast
from ddpo.eval.runner import EvalProgress


def sampled(done: int, found: int = 0) -> EvalProgress:
    return EvalProgress(SAMPLING, "base", done, 100, found)


def test_the_speed_of_later_blocks_is_that_of_the_rest() -> None:
    """16 images in 8 seconds; of 1,000 are 968 left: 484 seconds."""
    forecast = Forecast(1000)
    assert forecast.line(sampled(16), 60.0) is None  # this time includes the loading of the model
    assert (
        forecast.line(sampled(32), 68.0)
        == "about 8 min to sample the rest of 1,000 images; scoring comes after it"
    )
    assert forecast.line(sampled(48), 76.0) is None


def test_images_of_an_earlier_evaluation_do_not_count() -> None:
    forecast = Forecast(60)
    assert forecast.line(sampled(20, 20), 0.0) is None
    assert forecast.line(sampled(30, 20), 5.0) is None
    assert (
        forecast.line(sampled(40, 20), 10.0)
        == "about 10 s to sample the rest of 60 images; scoring comes after it"
    )


def test_scoring_has_no_forecast() -> None:
    forecast = Forecast(60)
    for done in (10, 20, 30):
        assert forecast.line(EvalProgress("scoring", "darkness", done, 60, 0), float(done)) is None
