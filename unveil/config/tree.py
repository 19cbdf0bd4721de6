"""Every number that makes one model differ from another: a frozen tree that `tiny` and `official` fill."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Layers = Annotated[int, Field(ge=0, le=1 << 10)]
"""How many layers: bounded, since even without memory each takes time to build."""
Steps = Annotated[int, Field(ge=1, le=10_000)]
Strength = Annotated[float, Field(ge=0, le=100)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Threshold = Annotated[float, Field(ge=0, le=1e6)]


class Config(BaseModel):
    """A frozen value; unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class VocabConfig(Config):
    """One vocabulary: text tokens, special tokens, then image codes from `image_offset` on (spec backbone 0.1)."""

    size: int
    image_offset: int
    pad: int  # also end of sequence, as in the official model
    mask: int


class ImageTokenizerConfig(Config):
    """SigLIP-VQ: a vision transformer and a codebook; one code per patch (spec image 2, 3)."""

    width: int
    mlp_width: int
    layers: Layers
    heads: PositiveInt
    patch_size: int
    position_grid: int  # side of the learned position table; other grids interpolate it
    norm_eps: float = 1e-6
    codes: int
    code_width: int
    pixel_mean: float = 0.5
    pixel_std: float = 0.5
    window: int | None = None  # attention stays inside windows of window x window patches; None: the whole picture

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class BackboneConfig(Config):
    """The mixture-of-experts transformer over text tokens and image codes (spec backbone 1)."""

    width: int
    layers: Layers
    dense_layers: int  # the first ones have one MLP instead of experts
    heads: int
    kv_heads: PositiveInt
    head_dim: int
    mlp_width: int
    experts: int
    chosen_experts: int
    groups: PositiveInt
    kept_groups: int
    expert_width: int
    shared_experts: int
    routed_scale: float
    rope_theta: float
    rotary_fraction: float
    norm_eps: float = 1e-6
    context: int
    block_size: int = 32
    initializer_range: float = 0.02

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.experts % self.groups:
            raise ValueError(f"experts {self.experts} is not a multiple of groups {self.groups}")
        if self.kept_groups * (self.experts // self.groups) < self.chosen_experts:
            raise ValueError(f"kept_groups {self.kept_groups} hold fewer than chosen_experts {self.chosen_experts}")
        return self


class DecoderConfig(Config):
    """The flow-matching transformer that renders codes into latents (spec image 5)."""

    width: int
    layers: Layers
    refiner_layers: int
    heads: PositiveInt
    condition_width: int  # width of the code embedding that conditions it
    patch_size: int = 2
    axes_dims: tuple[int, int, int]  # head_dim split over (sequence, row, column)
    axes_lens: tuple[int, int, int]
    rope_theta: float = 256.0
    norm_eps: float = 1e-5
    time_scale: float = 1000.0
    time_width: int = 256
    time_mlp_width: int = 1024
    pad_multiple: int = 32
    condition_upsample: int = 2  # each code is repeated this often along each side
    condition_layout: Literal["line", "grid"] = "line"  # positions of the codes: 1-D as released, or (row, column)

    @model_validator(mode="after")
    def _split(self) -> Self:
        if sum(self.axes_dims) * self.heads != self.width:
            raise ValueError(f"axes_dims {self.axes_dims} times heads {self.heads} do not make width {self.width}")
        return self


class VaeConfig(Config):
    """diffusers.AutoencoderKL (spec image 7)."""

    block_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_groups: PositiveInt
    sample_size: int
    scaling_factor: float
    shift_factor: float

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if not self.block_channels or any(width % self.norm_groups for width in self.block_channels):
            raise ValueError(f"block_channels {self.block_channels} are no multiples of norm_groups {self.norm_groups}")
        return self

    @property
    def factor(self) -> int:
        """Pixels per latent along a side."""
        return 2 ** (len(self.block_channels) - 1)


class SamplingConfig(Config):
    """Defaults of a request; every one can be changed per call."""

    grid: tuple[PositiveInt, PositiveInt]  # (rows, columns) of codes when no size is asked for
    steps: Steps  # denoise steps per block
    guidance: Strength
    rescale: float = Field(0.7, ge=0, le=1)
    threshold: Threshold = 0.95  # codes surer than this do not wait for their turn; 1 leaves all to the quota
    whole_blocks: bool = True  # fill the last block of a picture to its end, as the official model was trained to
    temperature: Strength = 0.0
    edit_text_guidance: Strength = 4.0
    edit_image_guidance: Strength = 0.0
    text_steps: Steps = 32
    text_threshold: Threshold = 0.95
    text_order: Literal["confidence", "left_to_right"] = "confidence"  # left_to_right: a sure word waits for its turn
    text_temperature: Strength = 0.0
    text_tokens: Tokens = 2048
    thinking_tokens: Tokens = 4096
    solver: Literal["euler", "turbo"] = "euler"  # turbo: for a decoder that has learned to arrive in a few jumps
    solver_steps: Steps = 50
    solver_shift: float = Field(6.0, ge=0.01, le=100)
    decoder_guidance: Strength = 1.0  # p + g (p - n); 0 is none
    max_pictures: PositiveInt = 10


class ModelConfig(Config):
    """One model. `tiny` and `official` differ in these values and in nothing else."""

    name: str
    vocab: VocabConfig
    image_tokenizer: ImageTokenizerConfig
    backbone: BackboneConfig
    decoder: DecoderConfig
    vae: VaeConfig
    sampling: SamplingConfig

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.vocab.size != self.vocab.image_offset + self.image_tokenizer.codes:
            found = f"{self.vocab.size} is not {self.vocab.image_offset} + {self.image_tokenizer.codes}"
            raise ValueError(f"vocab.size must be vocab.image_offset + image_tokenizer.codes, but {found}")
        return self

    @property
    def picture_scale(self) -> int:
        """Pixels of the rendered picture per code along a side; the tokenizer sees half of that."""
        d = self.decoder
        return d.condition_upsample * d.patch_size * self.vae.factor
