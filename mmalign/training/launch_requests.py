"""What a launcher asks for in the environment: done, or refused by name before anything loads.

`accelerate launch` and its configuration file say by variables what the process shall do: shard the model, compile it,
accumulate gradients. Accelerate would act on some of them behind the configuration of the run, and drop others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from mmalign.config.run_config import RunConfig
from mmalign.errors import ConfigError

_SHARDING = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}


def check_launch_requests(config: RunConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Checks that the launcher asks for nothing that would not be done.

    Raises:
        ConfigError: names the variable, and what to do instead.
    """
    for variable, name in _SHARDING.items():
        if _is_true(environment.get(variable)):
            raise ConfigError(
                f"{variable}: the launcher asks for {name}, and sharded training is not supported: every process holds "
                "the whole model. Launch without it, e.g. `torchrun --nproc_per_node 2 -m mmalign train ...` or "
                "`accelerate launch --multi_gpu`; where memory is short, train an adapter"
            )
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no":
        raise ConfigError(
            f"ACCELERATE_DYNAMO_BACKEND: the launcher asks for {backend!r}, but nothing is compiled; drop it"
        )
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", "auto"):
        raise ConfigError(
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS: the launcher asks for {steps}, but gradients are accumulated as "
            "`train.batch_size` and `train.micro_batch_size` say; drop it there"
        )
    _check_precision(environment.get("ACCELERATE_MIXED_PRECISION", "no").lower(), config.train.mixed_precision)


def _check_precision(asked: str, configured: str) -> None:
    if asked not in ("no", configured):
        raise ConfigError(
            f"ACCELERATE_MIXED_PRECISION: the launcher asks for {asked!r}, train.mixed_precision is {configured!r}; "
            "set the key alike, or launch without"
        )


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes", "y", "on", "t")
