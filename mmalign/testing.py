"""Tiny models, made in code and in no time, and trials of parts, for tests of plugins.

>>> folder = build_tiny_text_model(tmp_path / "model")          # doctest: +SKIP
>>> modality = TextModality(model=str(folder))                  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from mmalign.trial.objectives import TrialReport

Architecture = Literal["llama", "qwen2", "gpt2"]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, without a default system message."""

_CORPUS = (
    "The user asks and the assistant answers in a short sentence.",
    "Write one sentence about the sea, the city, music or rain.",
    "I like it. That is good, kind and helpful; this is bad, rude and wrong.",
    "What is the capital of France? The capital of France is Paris.",
)


def try_part(
    kind: Literal["objective", "advantage", "quantity"],
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    files: Sequence[str | Path] = (),
    quantities: Mapping[str, Mapping[str, Any]] | None = None,
    rewards: int = 1,
) -> TrialReport:
    """Calls a part once on made-up tensors of the axes that it needs, as `check` does; takes milliseconds, no model.

    Arity, keywords, axes, the dictionary of metrics, `per`, finite numbers where padded steps are NaN, and gradients.

    Args:
        name: of the part, in an installed plugin or one of `files`.
        parameters: as a configuration gives them.
        files: plugin files that are not installed.
        quantities: parameters of quantities that the part needs, by their names.
        rewards: number of reward dimensions K.

    Returns:
        what was found out: `constants` has, by objective, the parameters that are computed from what is trained and get
        no gradient.

    Raises:
        MmalignError: something is wrong; the message has a line for each mistake.
    """
    from mmalign.plugins.registry import load_registry
    from mmalign.trial.alone import try_alone

    registry = load_registry(files=[Path(file) for file in files], strict=bool(files))
    spec = registry.find(kind, name, "try_part").spec
    report = try_alone(registry, spec, parameters, quantities, rewards)
    report.raise_problems()
    return report


def build_tiny_text_model(
    directory: str | Path,
    *,
    architecture: Architecture = "llama",
    hidden_size: int = 32,
    layers: int = 2,
    vocabulary: int = 384,
    seed: int = 0,
) -> Path:
    """Writes a random causal language model and a byte-level tokenizer, as `AutoModelForCausalLM` loads them.

    The model has about 40 thousand weights in float32, so that a training step takes milliseconds. As in many real
    models, the end token `<|im_end|>` is also the padding token; every text can be encoded.

    Args:
        directory: created if need be.
        architecture: llama and gpt2 tie input and output embeddings, qwen2 has its own output layer.
        vocabulary: at most this many tokens, at least 258: the bytes and two special tokens.
        seed: of the weights; the state of torch's global generator is left as it was.

    Returns:
        the directory.
    """
    import torch

    directory = Path(directory)
    tokenizer = build_tiny_tokenizer(vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build_network(architecture, tokenizer, hidden_size, layers)
    network.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def build_tiny_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Builds a byte-level tokenizer of at most so many tokens, with the ChatML template above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    start, end = "<|im_start|>", "<|im_end|>"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[start, end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def _build_network(architecture: Architecture, tokenizer: Any, hidden_size: int, layers: int) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    shared = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id}
    shared |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if architecture == "gpt2":
        config = AutoConfig.for_model("gpt2", n_embd=hidden_size, n_layer=layers, n_head=4, n_positions=512, **shared)
    else:
        config = AutoConfig.for_model(
            architecture,
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=architecture == "llama",
            # Weights larger than usual, so that next-token distributions are far from uniform.
            initializer_range=0.1,
            **shared,
        )
    return AutoModelForCausalLM.from_config(config)
