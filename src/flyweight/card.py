"""`card.json`: what a model was made from, how, what it scored, and what it costs to run.

The schema is public (docs/reference/card.schema.json, generated from these classes): fields are
added, never renamed. Times are seconds, sizes bytes, scores in the scorer's own range.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from flyweight.figure import Figure
from flyweight.sticker_card import Boundaries, Sticker

SCHEMA = 1


class Part(BaseModel):
    """A piece of the card; unknown fields are refused, so that a typo never passes silently."""

    # an upper limit may be infinite: JSON has no number for it
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class Score(Part):
    """A mean with its two-sided 95 % interval, over `n` items in `groups` groups."""

    mean: float
    low: float
    high: float
    n: int
    groups: int


class SliceScore(Part):
    """One slice of the test items. `p`: Holm-corrected, of "below the bar here"."""

    name: str
    n: int
    student: float
    teacher: float
    ratio: float | None
    p: float | None


class VerdictCard(Part):
    """The verdict on test: the paired ratio with its one-sided limits, against the bar."""

    word: Literal["passes", "falls short", "cannot tell"]
    bar: float
    absolute: bool = False
    estimate: float
    low: float
    high: float
    confidence: float
    n: int
    groups: int
    disagreements: int
    more_groups: int | None
    binds: str = ""  # of several tasks, the one that decides: all figures here are of it
    opening: int  # how many times these test items have been opened, this one included
    sentence: str


class TaskScore(Part):
    """One of several tasks on test: the share kept with its one-sided limits, each to the bar."""

    name: str
    word: Literal["passes", "falls short", "cannot tell"]
    n: int
    groups: int
    teacher: float
    student: float
    ratio: float
    low: float
    high: float
    binds: bool


class FileEntry(Part):
    """A file of the folder."""

    bytes: int
    sha256: str


Role = Literal["teacher", "candidate", "quantised teacher", "from scratch"]


class Forecast(Part):
    """What a file was foretold to take on the device, from the building blocks of networks."""

    latency_p50: float
    latency_p95: float
    memory: float
    speed: float  # tokens a second, of what classifies texts one at a time
    bytes: float


class Row(Part):
    """One model that was measured in the runtime on dev: a line of the report's table.

    The rivals are the teacher only quantised, and the chosen shape at the same bits from scratch.
    """

    name: str
    role: Role
    note: str = ""  # how a rival was made: "the same tokens", "to its plateau, best of 3 rates"
    passes: bool = False  # its lower limit on dev reaches the bar, within the budgets
    beyond: str = ""  # which budget it is not within, in words
    bits: int
    shape: dict[str, int]
    parameters: int
    bytes: int
    dev: Score
    dev_ratio: float
    dev_low: float
    latency_p50: float
    latency_p95: float
    tokens_per_second: float | None  # of what writes, in one stream
    prompt_tokens_per_second: float | None
    texts_per_second: float | None = None  # of what classifies, in batches
    peak_memory: int
    threads: int
    engine: str = "llama.cpp"
    forecast: Forecast | None = None
    joules: Boundaries | None = None  # of one answer, on average
    chosen: bool = False
    chosen_over: float | None = None  # how many times as good the chosen one is, at least


class Source(Part):
    """The teacher: where it came from, and its size. `bytes` are its parameters at 16 bits."""

    name: str
    commit: str | None
    sha256: str
    tokenizer_sha256: str
    parameters: int
    bytes: int
    shape: dict[str, int]


class TaskCard(Part):
    """The task: what it was judged on. `system` is the system message that all its items have.

    `one_turn`: no item has an answer before the one that is asked for.
    """

    name: str
    sha256: str
    test_sha256: str
    score: str
    train: int
    dev: int
    test: int
    system: str | None = None
    one_turn: bool = False


class Recipe(Part):
    """How the student was made; with the same inputs and machine, enough to make it again."""

    by: str
    effort: str = "quick"
    budget: int | None = None  # the most bytes that the file may have
    budgets: dict[str, float] = {}  # all of them: parameters, bytes, memory, latency, speed
    device: str = "this"  # whose figures count: this, or the processor of another one
    keep: float
    steps: int
    batch_size: int
    learning_rate: float
    kl: float
    prompt_weight: float
    seed: int
    threads: int
    tokens: int
    rounded_for: int = 0  # train items for which weights of few bits are rounded; 0: by themselves
    seconds: dict[str, float]  # by stage


class Ranked(Part):
    """A shape of the grid after the cut, before any training: KL to the teacher on dev, in nats."""

    shape: dict[str, int]
    parameters: int
    level: float
    kl: float
    distilled: bool


class Recovery(Part):
    """How one cut shape came back: the share of the teacher's dev score after so many steps.

    Shares are read in torch, teacher-forced, on a sample of dev; they steer the search and decide
    nothing else. `predicted` is what the curve promised for the last step when the search last
    looked, with the range that it held for likely.
    """

    shape: dict[str, int]
    parameters: int
    level: float  # share of the teacher's parameters that it was ranked for
    steps: list[int]
    shares: list[float]
    full_steps: int
    predicted: float | None = None
    predicted_low: float | None = None
    predicted_high: float | None = None
    fate: Literal["finished", "dropped", "hopeless"] = "finished"


class QuotedStage(Part):
    """Seconds of one stage: promised before the run, and taken (None: it did not run)."""

    name: str
    quoted: float
    actual: float | None = None


class QuoteCard(Part):
    """What the job was to take, said before it ran, beside what it took.

    How many sizes have to be trained to the end is known only afterwards: `seconds_shortest` where
    the smallest passes at once, `seconds_longest` where every one is tried, `seconds` on average
    over what past jobs like it needed. Afterwards `seconds_as_it_went` is what would have been
    quoted for those that were trained, to hold beside `actual_seconds`. `source` says whether the
    rates come from past jobs on this machine or are assumed. Energy is all that the computer takes;
    without a country there is no one number of CO2, and `carbon` is a range.
    """

    machine: str
    source: Literal["measured", "assumed"]
    jobs: int  # past jobs on this machine behind the rates
    seconds: float
    seconds_shortest: float
    seconds_longest: float
    tokens: int
    memory: int
    disk: int
    energy_kwh: float | None = None  # the value of `energy`, of which older cards have no more
    co2_kg: float | None = None
    energy: Figure | None = None  # kWh
    carbon: Figure | None = None  # kg of CO2e
    stages: list[QuotedStage]
    seconds_as_it_went: float | None = None
    actual_seconds: float | None = None
    actual_tokens: int | None = None
    actual_memory: int | None = None
    actual_disk: int | None = None
    actual_energy: Figure | None = None
    actual_carbon: Figure | None = None


class SplitScores(Part):
    """Scores by split."""

    dev: Score
    test: Score


class Scores(Part):
    """The teacher's and the student's scores, both measured in the same runtime."""

    teacher: SplitScores
    student: SplitScores


class Answer(Part):
    """A test prompt with both answers, for a person to look at."""

    prompt: str
    wanted: str
    teacher: str
    student: str
    teacher_score: float
    student_score: float


class ItemScores(Part):
    """`scores.json`: what every test item scored, so that two models can be compared in pairs.

    `items` name what was asked and wanted by its hash, `groups` what must be counted together;
    scores are in the scorer's own range, one for each item.
    """

    test_sha256: str
    score: str
    lower_is_better: bool
    items: list[str]
    groups: list[str]
    teacher: list[float]
    student: list[float]


class Parity(Part):
    """The checkpoint in fp32 against the file of most bits, on `prompts` prompts."""

    prompts: int
    equal: int  # answers, or labels
    near_ties: list[str]
    furthest: float | None = None  # of the logits of one that classifies, in standard deviations


class Card(Part):
    """The whole card."""

    schema_version: int = SCHEMA
    name: str
    made: str  # ISO 8601, UTC
    teacher: Source
    task: TaskCard
    recipe: Recipe
    shape: dict[str, int]
    parameters: int
    bits: int
    verdict: VerdictCard
    scores: Scores
    slices: list[SliceScore]
    tasks: list[TaskScore] = []  # where there are several, each of which has to pass
    rows: list[Row]
    ranking: list[Ranked]
    losses: dict[str, list[float]]  # distillation loss by shape, one value per report
    recovery: list[Recovery] = []
    quote: QuoteCard | None = None
    kept_layers: list[int] = []  # blocks of the teacher that the student is made of, from 0
    parity: Parity
    answers: list[Answer]
    files: dict[str, FileEntry]
    formats: list[str]
    engines: list[str]
    versions: dict[str, str]
    device: dict[str, str]
    sticker: Sticker | None = None

    @property
    def classifies(self) -> bool:
        """Whether it gives texts labels, and writes nothing."""
        return any(name.startswith("onnx") for name in self.formats)

    @property
    def sees(self) -> bool:
        """Whether it is asked about pictures."""
        return "encoder_layers" in self.shape

    @property
    def student(self) -> Row:
        """The chosen candidate's row."""
        return next(row for row in self.rows if row.chosen)
