"""The rewards of an evaluation: trained, requested and held-out ones, and pixel statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpo.errors import CheckpointError, ConfigError
from ddpo.eval.config import EvalConfig
from ddpo.eval.inputs.checkpoints import EvalCheckpoint
from ddpo.eval.inputs.held_out import choose_artefacts, choose_embedded, choose_held_out
from ddpo.eval.inputs.runs import RunFacts, nested
from ddpo.policies.model_place import EMBEDDED
from ddpo.rewards.card import RewardCard
from ddpo.rewards.cards.embedded import is_embedded
from ddpo.rewards.scoring.resolve import single_rewards
from ddpo.rewards.setting_paths import missing_files
from ddpo.rewards.spec import words_to_trust
from ddpo.rewards.zoo import ResolvedReward, resolve
from ddpo.user_code import refuse_unnamed, trust_options, unnamed

__all__ = ["PlannedReward", "plan_rewards", "trained_rewards", "unscored_rewards"]


@dataclass(frozen=True, slots=True)
class PlannedReward:
    """A reward of the evaluation and its role."""

    resolved: ResolvedReward
    role: str  # "trained", "heldout", "artefact" or "asked"
    why: str = ""  # of a held-out one: what makes it independent

    @property
    def id(self) -> str:
        """The id on its card."""
        return self.resolved.card.id


def plan_rewards(
    config: EvalConfig, trained: Sequence[ResolvedReward], model: str = ""
) -> tuple[PlannedReward, ...]:
    """The trained and requested rewards and, unless switched off, held-out ones and artefacts.

    For the embedded model, and for a reward by an embedded judge, the held-out rewards are the
    independent embedded judges.

    Args:
        config: settings of the evaluation.
        trained: rewards that the models were trained on.
        model: base model; "" if unknown.

    Raises:
        ConfigError: no reward is known, a reward only judges groups, or two rewards share a name.
    """
    own = _of_single_images(trained)
    requested = _of_single_images([resolve(spec) for spec in config.rewards])
    _check_names([*own, *requested])
    found = {reward.card.id: PlannedReward(reward, "trained") for reward in own}
    for reward in requested:
        found.setdefault(reward.card.id, PlannedReward(reward, "asked"))
    if not found:
        raise ConfigError(
            "the checkpoint does not lie in a run folder, so its reward is not known: give --reward"
        )
    if config.held_out:
        cards = [one.resolved.card for one in found.values()]
        small = model in EMBEDDED or any(map(is_embedded, _all_cards(own)))
        for choice in choose_embedded(cards) if small else choose_held_out(cards):
            planned = PlannedReward(resolve(choice.reward), "heldout", choice.reason)
            found.setdefault(choice.id, planned)
        for id in choose_artefacts(cards):
            found.setdefault(id, PlannedReward(resolve(id), "artefact"))
    return tuple(found.values())


def _all_cards(found: Sequence[ResolvedReward]) -> list[RewardCard]:
    """The cards of all single rewards in combinations."""
    return [one.card for reward in found for one in single_rewards(reward)]


def trained_rewards(
    config: EvalConfig, checkpoints: Sequence[EvalCheckpoint]
) -> list[ResolvedReward]:
    """The distinct rewards of the runs, without those of `unscored_rewards`.

    Raises:
        CheckpointError: the file of a reward is missing, and no `--reward` has the same content.
        UntrustedError: a run names code or a server that the user does not, and there is no other
            reward to score with.
    """
    runs = {
        str(checkpoint.run.config["reward"]): checkpoint
        for checkpoint in checkpoints
        if "reward" in checkpoint.run.config
    }
    found: list[ResolvedReward] = []
    for spec, checkpoint in runs.items():
        if moved := _moved_reward(config, checkpoint.run):
            found.append(moved)
        elif not _unnamed(config, checkpoint):
            found.append(resolve(spec))
        elif not config.rewards:
            refuse_unnamed(_config_file(checkpoint), words_to_trust(spec), _named(config))
    return found


def unscored_rewards(config: EvalConfig, checkpoints: Sequence[EvalCheckpoint]) -> tuple[str, ...]:
    """A note for each run whose reward is code or a server that the user did not name."""
    left = {one.facts.name: words for one in checkpoints if (words := _unnamed(config, one))}
    return tuple(
        f"The reward that {name} was trained on scores nothing here: it names "
        f"{' and '.join(words)}, which was neither run nor called. {trust_options(words)} lets it."
        for name, words in left.items()
    )


def _unnamed(config: EvalConfig, checkpoint: EvalCheckpoint) -> list[str]:
    """Code and servers of a run's reward that the user did not name."""
    return unnamed(words_to_trust(str(checkpoint.run.config.get("reward", ""))), _named(config))


def _named(config: EvalConfig) -> list[str]:
    """The code and the servers that the user named."""
    return [*config.trust, *(word for spec in config.rewards for word in words_to_trust(spec))]


def _config_file(checkpoint: EvalCheckpoint) -> Path:
    """The file that names a run's reward."""
    return (checkpoint.info.run or checkpoint.info.folder) / "config.json"


def _moved_reward(config: EvalConfig, run: RunFacts) -> ResolvedReward | None:
    """The requested reward that replaces a run's missing file; None if nothing is missing."""
    missing = missing_files({"reward": run.config["reward"]}).get("reward")
    if missing is None:
        return None
    before = nested(run.manifest, "reward")
    for found in map(resolve, config.rewards):
        files = [dict(one.files) for one in single_rewards(found) if one.files]
        if found.card.id == run.trained_on and files == (before.get("files") or files):
            return found
    raise CheckpointError(
        f"{run.name}: the file {missing} of its reward is missing; "
        "if it was moved, give its new place with --reward"
    )


def _of_single_images(found: Sequence[ResolvedReward]) -> tuple[ResolvedReward, ...]:
    """The rewards that judge single images; a group reward is replaced by such parts of it.

    Scores within a group mean nothing between two models.
    """
    singles = [reward for one in found for reward in _singles(one)]
    _check_names(singles)
    chosen = {reward.card.id: reward for reward in singles}
    if found and not chosen:
        names = ", ".join(repr(reward.card.id) for reward in found)
        raise ConfigError(
            f"reward {names} judges images as a group and cannot compare two models: give --reward"
        )
    return tuple(chosen.values())


def _check_names(found: Sequence[ResolvedReward]) -> None:
    """Refuses two rewards of user code with one name and different content."""
    seen: dict[str, ResolvedReward] = {}
    for reward in found:
        other = seen.setdefault(reward.card.id, reward)
        contents = {one.origin.rpartition("sha256:")[2] for one in (reward, other)}
        if (reward.user_code or other.user_code) and len(contents) > 1:
            raise ConfigError(
                f"two different rewards are called {reward.card.id!r}, "
                f"of {other.origin} and {reward.origin}: rename one"
            )


def _singles(reward: ResolvedReward) -> list[ResolvedReward]:
    if "group" not in reward.card.inputs:
        return [reward]
    return [single for part in reward.parts for single in _singles(part)]
