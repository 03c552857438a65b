"""Field types and the base class of all sections of the schema."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""The range that numpy and vLLM accept."""
NotEmpty = Annotated[str, Field(min_length=1)]
Temperature = Annotated[float, Field(ge=0.01, le=2)]
"""vLLM raises lower temperatures to 0.01, while the trainer would divide the logits by the configured one."""
Gpus = Annotated[float, Field(ge=0, le=1)]
"""GPUs of one worker: one, or a share of one."""
Momentum = Annotated[float, Field(ge=0, lt=1)]


class StrictModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False, protected_namespaces=())
