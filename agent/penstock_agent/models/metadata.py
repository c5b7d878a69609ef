"""What the JSON text of a model contains: how to evaluate the arrays, and the card, which says what made them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from penstock_embedded.messages import SchedulerLoad, SchedulerType
from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1
"""Version of the file format; the loader reads this one."""

WIDEST = 256
MOST_FEATURES = 256

Text = Annotated[str, Field(max_length=2000)]
Line = Annotated[str, Field(max_length=300)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Part(BaseModel):
    """Nothing unknown, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Head(StrEnum):
    """What the last layer means."""

    CONTINUOUS = "continuous"  # residual = limits * tanh(out), out of two
    LEVELS = "levels"  # residual = levels[argmax(out)]


class Metadata(Part):
    """How to evaluate the arrays."""

    features: Annotated[tuple[Line, ...], Field(min_length=1, max_length=MOST_FEATURES)]
    """Names as of penstock_agent.features, in the order of the arrays `mean` and `std`."""
    features_version: Annotated[int, Field(ge=1)]
    anchor: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,31}$")]
    """Policy whose decision the model corrects."""
    scheduler: SchedulerType = SchedulerType.SED
    load: SchedulerLoad = SchedulerLoad.ACTIVE
    """Flows that the scheduler compared in training."""
    head: Head = Head.CONTINUOUS
    use_base: bool = True
    """False: the base is left to the data plane."""
    hidden: Annotated[int, Field(ge=1, le=WIDEST)]
    """Width of all hidden layers."""
    memory: bool = False
    """Whether a GRU cell follows the encoder."""
    step: Annotated[float, Field(ge=0.02, le=60)] = 0.2
    """Seconds between two decisions in training."""


class Result(Part):
    """One figure of the evaluation."""

    what: Line
    """Scenarios and metric, for example `96 unseen: log-gap closed`."""
    value: float
    low: float
    """Bounds of the 95 % interval."""
    high: float


class Card(Part):
    """What made the model. Nothing in it changes what the model does."""

    name: Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
    description: Text = ""
    algorithm: Line = ""
    recipe: Annotated[str, Field(max_length=20_000)] = ""
    """Text of the recipe's file."""
    scenarios: Annotated[tuple[Line, ...], Field(max_length=200)] = ()
    """Training data: names of scenarios, or kinds and seeds they are drawn from."""
    seeds: Annotated[tuple[int, ...], Field(max_length=200)] = ()
    steps: Annotated[int, Field(ge=0)] = 0
    """Decisions it was trained on."""
    commands: Annotated[tuple[Line, ...], Field(max_length=50)] = ()
    """What reproduces it, from training to evaluation."""
    versions: Annotated[dict[Line, Line], Field(max_length=50)] = {}
    """Of Penstock and of the libraries that trained it."""
    created: Line = ""
    results: Annotated[tuple[Result, ...], Field(max_length=200)] = ()


class Document(Part):
    """The JSON text as a whole."""

    format: Literal[1]
    model: Metadata
    card: Card
    arrays: Sha256
    """Digest of the arrays and of `model`, see `files.digest`."""
