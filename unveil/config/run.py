"""One training run as a value: what a file in `recipes/` holds."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unveil.config.tree import Config

Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
RowTask = Literal["generate", "understand", "edit", "copy", "shift", "look", "quiz", "read", "think", "interleave"]


class OptimConfig(Config):
    """AdamW or Muon with linear warm-up, a constant stretch, and a linear decay to zero over the last part."""

    lr: float = Field(gt=0)
    warmup: int = Field(100, ge=0)  # train steps
    decay: float = Field(0.3, ge=0, le=1)  # share of all steps
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    slow: dict[str, Weight] = {}  # parameters whose name holds the key learn at this multiple of the rate
    orthogonal: float | None = Field(None, gt=0)  # matrices in layers take Muon's steps at this multiple
    momentum: Decay = 0.95  # of those steps
    average: Decay = 0.999  # decay of the running mean of the weights, which is what ships


class TokenizerTask(Config):
    """Image tokenizer: reconstruction, words of what each code covers, SigLIP (heads are dropped afterwards)."""

    objective: Literal["image_tokenizer"]
    dense: int = Field(ge=1)  # pictures a step with 6 to 16 things, for the codebook
    captioned: int = Field(ge=2)  # pictures a step with 1 to 4 things and a caption, for the contrastive loss
    pixel_weight: Weight = 10.0
    words_weight: Weight = 10.0
    contrast_weight: Weight = 0.1
    commitment_weight: Weight = 0.5
    agreement_weight: Weight = 3.0  # pulls the codes of one attention window together: fewer codes, easier to predict
    codebook_decay: Decay = 0.99
    revive_after: int = Field(60, ge=0)  # train steps without use
    revive_until: Share = 0.98  # share of the run


class RetrievalTask(Config):
    """SigLIP heads on top of the frozen image tokenizer."""

    objective: Literal["retrieval"]
    batch: int = Field(ge=2)


class VaeTask(Config):
    """AutoencoderKL on rendered pictures: L1, L2 and a small KL term."""

    objective: Literal["vae"]
    batch: int = Field(ge=1)
    crop: int = Field(64, ge=8, multiple_of=8)  # pixels; dense crops teach faster than whole pictures
    kl_weight: Weight = 1e-6


class DecoderTask(Config):
    """Flow matching of VAE latents given codes; the code embedding learns along."""

    objective: Literal["decoder"]
    batch: int = Field(ge=1)
    drop_condition: float = Field(0.1, ge=0, le=1)
    time_shift: float = Field(1.0, gt=0)  # alpha of t / (t + alpha (1 - t)); 1 is none
    initialize_codes: bool = True  # the code embedding starts from the tokenizer's codebook


class BackboneTask(Config):
    """Block diffusion on a mixture of tasks; each train step has one batch of rows per task."""

    objective: Literal["backbone"]
    rows: dict[RowTask, Annotated[int, Field(ge=1)]] = Field(min_length=1)  # rows of each task a train step
    questions: int = Field(5, ge=1)  # questions that share one picture
    described: Share = 0.4  # share of such rows in which the last question asks for a description
    copies: int = Field(2, ge=1, le=2)  # noised copies per row; 2 are complementary masks
    drop_prompt: float = Field(0.1, ge=0, le=1)
    planned: float = Field(0.0, ge=0, le=1)  # share of the pictures to generate that are asked for by their layout plan
    placed: Share = 0.0  # share of the edits that add or move a thing, and to no corner
    rates: tuple[Share, Share] = (0.0, 1.0)  # lowest and highest share of a block that is masked
    fact_rates: tuple[Share, Share] = (0.1, 0.6)  # the same for rows of facts, whose words ask for each other
    whole_windows: Share = 0.0  # share of rows whose codes are masked by whole attention windows of the tokenizer
    weighting: Literal["mean", "elbo", "mtrs"] = "mean"
    rarity: float = Field(0.0, ge=0, le=1)  # at first a token counts (its count in the batch) ** -rarity
    rarity_steps: int = Field(0, ge=0)  # train steps over which `rarity` fades, until every token counts the same
    end_weight: float = Field(0.1, ge=0, le=1)  # padding (EOS) after a response, relative to its words
    balance: float = Field(0.001, ge=0)  # step of the router bias
    place_weight: float = Field(0.0, ge=0)  # of an auxiliary loss: each code must know its row and column
    neighbour_weight: float = Field(0.0, ge=0)  # of another: each word must know the words beside it
    neighbour_reach: int = Field(3, ge=1)  # how many on either side
    probe_layers: int = Field(2, ge=1)  # after this many layers both are asked
    referent_weight: float = Field(0.0, ge=0)  # of a third: each noun must know how many things it names, and where
    referent_layers: int = Field(4, ge=1)  # after this many layers
    question_weight: float = Field(0.0, ge=0)  # of a fourth: each question mark must know the things of its question
    question_layers: int = Field(4, ge=1)  # after this many layers
    initialize_codes: bool = True  # embedding and head rows of the codes start from the tokenizer's codebook
    common_part: bool = False  # fresh embedding rows of the words get the mean of those of the codes added
    embedding_scale: float | None = Field(None, gt=0)  # deviation of all fresh embedding rows; none: the preset's
    head_scale: float = Field(0.25, gt=0)  # deviation of the head's fresh code rows; of its text rows a third of it

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        for name, (low, high) in (("rates", self.rates), ("fact_rates", self.fact_rates)):
            if not low <= high or high == 0:
                raise ValueError(f"{name} must be a low and a high one, the high one above 0, not {(low, high)}")
        return self


Task = Annotated[TokenizerTask | RetrievalTask | VaeTask | DecoderTask | BackboneTask, Field(discriminator="objective")]


class RunConfig(Config):
    """One training run. `parts` is the directory of weights it reads from and writes its result to."""

    name: str
    preset: str = "tiny"
    seed: int = Field(0, ge=0, lt=1 << 32)  # a step mixes its number into it
    steps: int = Field(ge=1)
    task: Task
    optim: OptimConfig
    parts: Path
    start: Literal["scratch", "parts"] = "scratch"  # "parts": begin from the weights of this part in `parts`
    samples_from: int = Field(0, ge=0)  # the train step whose samples (and `rarity`) come first, for going on
    directory: Path  # checkpoints and log of this run
    checkpoint_every: int = Field(500, ge=1)
    log_every: int = Field(20, ge=1)
    keep: int = Field(2, ge=1)
    threads: int = Field(2, ge=1)  # of each process
    processes: int = Field(1, ge=1)  # each takes `rows` of its own in every train step; gradients are averaged

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.start == "parts" and isinstance(self.task, TokenizerTask):
            raise ValueError("an image tokenizer cannot start from parts, its training heads are not kept; use scratch")
        if self.processes > 1 and isinstance(self.task, TokenizerTask):
            raise ValueError("processes must be 1 for an image tokenizer: its codebook follows the features of one")
        return self
