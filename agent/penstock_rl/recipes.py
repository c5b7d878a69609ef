"""Recipes of training: what `penstock train` reads. No torch here, so that a recipe is checked before torch loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from penstock_api.errors import KindError, MalformedDocumentError
from penstock_api.files import UnreadableFileError, text_of
from penstock_api.reading import Source, load_yaml, parse
from penstock_api.rules import Rule
from pydantic import Field

from penstock_rl.scenarios.fields import Part, rule

LARGEST_BYTES = 1 << 20
AQUARIUS_GROUPS = ("counts", "fct", "flow_duration")  # the features that RLB-SAC was published with

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=1e6)]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names file, field, value and fix."""


class Section(Part):
    """Base of all sections."""


class EnvironmentSection(Section):
    """What a step of the environment is; `penstock_rl.envs.batch.Settings` has the same fields."""

    step: Annotated[float, Field(ge=0.01, le=60.0)] = 0.2
    """Seconds between two decisions."""
    level: Literal["basic", "full", "both"] = "full"
    """Feature level of the data plane; `both`: in turn, one iteration each."""
    load: Literal["open", "active"] = "active"
    """Which flows the scheduler counts."""
    forwarding: Literal["nat", "gre", "both"] = "nat"
    """`gre`: the data plane sees one direction only; `both`: every second pair of iterations."""
    anchor: str = "bayes"
    """Heuristic to whose decision the network adds its own."""
    reward: str = "duration"
    """Name of a reward of `penstock_rl.envs.rewards`."""
    max_weight_ratio: Annotated[float, Field(ge=1.0, le=1000.0)] = 10.0
    """Guardrail: largest weight over the smallest."""
    max_change_per_step: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    """Guardrail: share of a weight that one step may add or take."""


class Stage(Section):
    """Scenarios of a part of the training."""

    until: Share = 1.0
    """Share of all iterations at which this stage ends; the last one's is 1."""
    scenarios: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] = ("training",)
    """Drawn in turn: `training` (all of the space), a kind of unseen scenario, a named one, or a file (`./my.yaml`)."""


def _rises_to_1(ends: list[float]) -> bool:
    return ends == sorted(set(ends)) and ends[-1] == 1.0


class ScenarioSection(Section):
    """Which scenarios training and evaluation draw."""

    curriculum: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=32)] = (Stage(),)
    """Stages, in order."""
    environments: Annotated[int, Field(ge=1, le=1024)] = 16
    """Environments that run side by side in an iteration."""
    seconds: Annotated[float, Field(ge=1.0, le=100_000.0)] = 60.0
    """Length of an episode; scenarios that last longer are cut."""
    max_backends: Annotated[int, Field(ge=1, le=256)] = 16
    """Random scenarios with more backends are drawn again."""
    max_balancers: Annotated[int, Field(ge=1, le=64)] = 6
    """Random scenarios with more balancers are drawn again."""
    evaluation: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Scenarios of the evaluation, as in a stage; none: those of the last one."""
    evaluation_environments: Annotated[int, Field(ge=2, le=1024)] = 16
    """Environments of the evaluation: the same ones every time, with seeds that are not trained on."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "`until` must rise from stage to stage and end at 1",
            "order the stages, and leave `until` out in the last one",
            lambda self: _rises_to_1([stage.until for stage in self.curriculum]),
            "curriculum",
        ),
    )


class NetworkSection(Section):
    """Size and outputs of the network of a balancer."""

    hidden: Annotated[int, Field(ge=4, le=256)] = 32
    """Width of all layers."""
    memory: bool = True
    """A GRU cell for each backend."""
    weight_limit: Annotated[float, Field(gt=0.0, le=5.0)] = 1.0
    """Largest change of a log weight relative to the anchor."""
    base_limit: Annotated[float, Field(ge=0.0, le=5.0)] = 1.0
    """Largest change of a log base relative to the anchor; 0: the base stays the anchor's."""
    feature_groups: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Groups of features that the network reads; none: all, for `rlb-sac` those of Aquarius."""


class Optimisation(Section):
    """Fields that all algorithms share."""

    learning_rate: Rate = 3e-4
    """Step size of Adam."""
    gamma: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """Discount of one step."""
    max_gradient: Positive = 1.0
    """Norm to which gradients are clipped."""
    batch_sequences: Count = 64
    """Sequences of an update."""
    sequence: Annotated[int, Field(ge=2, le=1000)] = 16
    """Steps of a sequence that are learned from."""


class OffPolicy(Optimisation):
    """Fields of algorithms that replay."""

    burn_in: Annotated[int, Field(ge=0, le=1000)] = 8
    """Steps before a sequence that only refresh the memory."""
    updates: Count = 64
    """Updates of an iteration."""
    buffer_sequences: Count = 4000
    """Sequences that the replay buffer holds."""
    target_rate: Rate = 0.005
    """Share of the online network that a target network takes over with each update."""
    trace: Rate = 0.8
    """lambda of the returns: about 1 / (1 - lambda) steps are summed before a value is bootstrapped."""
    priority_exponent: Share = 0.6
    """alpha of prioritised replay; 0: uniform."""
    importance_exponent: Share = 0.4
    """beta of prioritised replay."""


class SacGru(OffPolicy):
    """Recurrent soft actor-critic, whose critic sees the simulator's truth in training."""

    name: Literal["sac-gru"]
    target_entropy: Annotated[float, Field(ge=-20.0, le=2.0)] = -1.0
    """Entropy of each decided value that the temperature is tuned to."""
    initial_temperature: Rate = 0.1
    """alpha at the start."""
    privileged_critic: bool = True
    """The critic reads the truth beside what the actor reads."""


class RlbSac(OffPolicy):
    """RLB-SAC of Aquarius: weights from duration features alone, SED below."""

    name: Literal["rlb-sac"]
    target_entropy: Annotated[float, Field(ge=-20.0, le=2.0)] = -1.0
    """Entropy of each decided value that the temperature is tuned to."""
    initial_temperature: Rate = 0.1
    """alpha at the start."""


class Qmix(OffPolicy):
    """QMIX: one agent for each balancer, a monotonic mixer in training."""

    name: Literal["qmix"]
    levels: Annotated[tuple[float, ...], Field(min_length=2, max_length=64)] = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    """Factors of a weight relative to the anchor that an agent chooses from."""
    mixer_width: Annotated[int, Field(ge=1, le=256)] = 32
    """Width of the mixer."""
    mixing: Literal["monotonic", "independent"] = "monotonic"
    """`independent`: each agent learns from its own reward (the control)."""
    exploration: Share = 0.3
    """Share of random choices at the start; falls to `exploration_end` over half of the iterations."""
    exploration_end: Share = 0.02
    """Share of random choices at the end."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule("must be above 0", "remove the others", lambda self: min(self.levels) > 0, "levels"),
    )


class Ppo(Optimisation):
    """Clipped PPO with a privileged critic: the control."""

    name: Literal["ppo"]
    epochs: Annotated[int, Field(ge=1, le=100)] = 4
    """Passes over the steps of an iteration."""
    clip: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Largest change of a probability ratio."""
    gae_lambda: Rate = 0.9
    """lambda of generalised advantage estimation."""
    entropy: Share = 0.003
    """Weight of the entropy."""


class Imitation(Optimisation):
    """DAgger with a privileged critic: minimises the expected true marginal delay of the soft choice."""

    name: Literal["imitation"]
    burn_in: Annotated[int, Field(ge=0, le=1000)] = 8
    """Steps before a sequence that only refresh the memory."""
    updates: Count = 128
    """Updates of an iteration."""
    buffer_sequences: Count = 4000
    """Sequences that are kept; the oldest ones make room."""
    sharpness: Positive = 25.0
    """beta of the soft choice."""
    gain_rounds: Annotated[int, Field(ge=0, le=1000)] = 0
    """Generations of CMA-ES on the limits of the trained network; 0: none."""


Algorithm = Annotated[SacGru | RlbSac | Qmix | Ppo | Imitation, Field(discriminator="name")]


class TrainingSection(Section):
    """Length, seeds and machinery."""

    iterations: Count = 200
    """Times that episodes are collected and learned from."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 1
    """Everything random follows from it."""
    seeds: Annotated[int, Field(ge=1, le=64)] = 1
    """Runs with `seed`, `seed` + 1, ...: the population."""
    paired: bool = True
    """Rewards are differences to the anchor on the same arrivals; doubles the simulation."""
    feature_dropout: Share = 0.25
    """Probability that a group of features is missing for a whole episode of an environment."""
    evaluate_every: Count = 20
    """Iterations between evaluations."""
    checkpoint_every: Count = 20
    """Iterations between checkpoints."""
    batches: Annotated[int, Field(ge=1, le=256)] = 1
    """Batches that the environments of an iteration are divided into, each with a seed of its own; changes results."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that collect batches; 0: the training process does. Results do not depend on it."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of the simulator and of torch; more of them pay with many environments or wide layers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are trained; `auto` takes a GPU if there is one."""
    mixed_precision: bool = True
    """bfloat16 where a GPU is used."""


class Recipe(Section):
    """One file that describes one training."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    """Name of the model."""
    algorithm: Algorithm
    """Name and parameters of the algorithm."""
    environment: EnvironmentSection = EnvironmentSection()
    """What a step is."""
    scenarios: ScenarioSection = ScenarioSection()
    """What is trained on."""
    network: NetworkSection = NetworkSection()
    """What is trained."""
    training: TrainingSection = TrainingSection()
    """How long, and with which seeds."""

    @property
    def feature_groups(self) -> tuple[str, ...]:
        """Groups of features that the network reads; empty: all."""
        if self.network.feature_groups or self.algorithm.name != "rlb-sac":
            return self.network.feature_groups
        return AQUARIUS_GROUPS

    @property
    def shortest(self) -> float:
        """Seconds that an episode must have: one sequence, with its burn-in."""
        return (self.algorithm.sequence + getattr(self.algorithm, "burn_in", 0)) * self.environment.step

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "must divide scenarios.environments",
            "change either",
            lambda self: self.scenarios.environments % self.training.batches == 0,
            "training.batches",
        ),
        rule(
            "must not be above training.batches",
            "raise training.batches, or lower it",
            lambda self: self.training.workers <= self.training.batches,
            "training.workers",
        ),
        rule(
            "must be at least the steps of a sequence with its burn-in",
            "lengthen episodes, or lower algorithm.sequence or algorithm.burnIn",
            lambda self: self.scenarios.seconds >= self.shortest,
            "scenarios.seconds",
        ),
    )


def load(path: Path) -> Recipe:
    """Read a recipe; raises RecipeError."""
    try:
        text = text_of(path, LARGEST_BYTES)
    except UnreadableFileError as error:
        raise RecipeError(str(error)) from error
    return read(text, str(path))


def read(text: str, file: str) -> Recipe:
    """Read the text of a recipe; raises RecipeError."""
    try:
        documents = list(load_yaml(text))
        if len(documents) != 1 or not isinstance(documents[0], dict):
            raise MalformedDocumentError("must be one mapping with name, algorithm, ...; see examples/train")
        return parse(Recipe, documents[0], source=Source.FILE)
    except KindError as error:
        raise RecipeError(error.located(file)) from error


def with_training(recipe: Recipe, field: str, value: object) -> Recipe:
    """Return the recipe with another value of a field of `training`; raises RecipeError."""
    content = recipe.model_dump(mode="json", by_alias=True)
    content["training"][field] = value
    try:
        return parse(Recipe, content, source=Source.FILE)
    except KindError as error:
        raise RecipeError(f"--{field}: {error}") from error
