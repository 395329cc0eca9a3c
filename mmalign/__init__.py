"""mmalign: align any generative model with any objective.

Everything a plugin or a script needs is importable from here. Names are loaded on first use, so that `import mmalign`
costs no torch; `_EXPORTS` is the public interface.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmalign.addresses import show_address as show_address
    from mmalign.api import check as check
    from mmalign.api import evaluate as evaluate
    from mmalign.api import load_run as load_run
    from mmalign.api import train as train
    from mmalign.compute.step_context import StepContext as StepContext
    from mmalign.config.run_config import RunConfig as RunConfig
    from mmalign.config.run_config import load_config as load_config
    from mmalign.contract.batch import Batch as Batch
    from mmalign.contract.components import Collector as Collector
    from mmalign.contract.components import Engine as Engine
    from mmalign.contract.components import EvaluationContext as EvaluationContext
    from mmalign.contract.components import Evaluator as Evaluator
    from mmalign.contract.components import Generate as Generate
    from mmalign.contract.components import Reward as Reward
    from mmalign.contract.components import Transform as Transform
    from mmalign.contract.decoding import Decoding as Decoding
    from mmalign.contract.engine import Networks as Networks
    from mmalign.contract.engine import Policy as Policy
    from mmalign.contract.formats import FileFormat as FileFormat
    from mmalign.contract.formats import Layout as Layout
    from mmalign.contract.formats import RawRow as RawRow
    from mmalign.contract.formats import ReadOptions as ReadOptions
    from mmalign.contract.forward_plan import Divergence as Divergence
    from mmalign.contract.forward_plan import ForwardPlan as ForwardPlan
    from mmalign.contract.forward_plan import Output as Output
    from mmalign.contract.modality import Modality as Modality
    from mmalign.contract.specs import AdvantageSpec as AdvantageSpec
    from mmalign.contract.specs import CollectorSpec as CollectorSpec
    from mmalign.contract.specs import ConformanceSpec as ConformanceSpec
    from mmalign.contract.specs import DecodingSpec as DecodingSpec
    from mmalign.contract.specs import EngineSpec as EngineSpec
    from mmalign.contract.specs import EvaluatorSpec as EvaluatorSpec
    from mmalign.contract.specs import FileFormatSpec as FileFormatSpec
    from mmalign.contract.specs import LayoutSpec as LayoutSpec
    from mmalign.contract.specs import ModalitySpec as ModalitySpec
    from mmalign.contract.specs import ObjectiveSpec as ObjectiveSpec
    from mmalign.contract.specs import Parameters as Parameters
    from mmalign.contract.specs import QuantitySpec as QuantitySpec
    from mmalign.contract.specs import RewardSpec as RewardSpec
    from mmalign.contract.specs import TransformSpec as TransformSpec
    from mmalign.contract.specs import Unbounded as Unbounded
    from mmalign.contract.values import EncodedResponse as EncodedResponse
    from mmalign.contract.values import Generated as Generated
    from mmalign.contract.values import Model as Model
    from mmalign.contract.values import Rollout as Rollout
    from mmalign.contract.values import Sample as Sample
    from mmalign.contract.values import Vocabulary as Vocabulary
    from mmalign.data.chat_messages import message_from_chat as message_from_chat
    from mmalign.data.chat_messages import read_template_arguments as read_template_arguments
    from mmalign.data.chat_messages import read_tools as read_tools
    from mmalign.data.json_text import dump_json as dump_json
    from mmalign.data.json_text import parse_json as parse_json
    from mmalign.data.records import Label as Label
    from mmalign.data.records import Media as Media
    from mmalign.data.records import Message as Message
    from mmalign.data.records import Node as Node
    from mmalign.data.records import Note as Note
    from mmalign.data.records import Part as Part
    from mmalign.data.records import Record as Record
    from mmalign.data.records import Response as Response
    from mmalign.data.records import Score as Score
    from mmalign.data.records import Variant as Variant
    from mmalign.errors import CheckpointError as CheckpointError
    from mmalign.errors import ConfigError as ConfigError
    from mmalign.errors import DataError as DataError
    from mmalign.errors import MediaError as MediaError
    from mmalign.errors import MmalignError as MmalignError
    from mmalign.errors import PlanError as PlanError
    from mmalign.errors import PluginError as PluginError
    from mmalign.errors import TrainingError as TrainingError
    from mmalign.errors import suggest as suggest
    from mmalign.hardware import has_fast_bfloat16 as has_fast_bfloat16
    from mmalign.hookspecs import API_VERSION as API_VERSION
    from mmalign.hookspecs import hookimpl as hookimpl
    from mmalign.json_requests import JsonPoster as JsonPoster
    from mmalign.json_requests import RequestConfig as RequestConfig
    from mmalign.json_requests import RequestFailed as RequestFailed
    from mmalign.json_requests import Url as Url
    from mmalign.json_requests import read_key as read_key
    from mmalign.losses.objectives import Objective as Objective
    from mmalign.losses.reductions import aggregation_weights as aggregation_weights
    from mmalign.losses.reductions import masked_mean as masked_mean
    from mmalign.losses.reductions import masked_sum as masked_sum
    from mmalign.losses.reductions import step_mask as step_mask
    from mmalign.losses.reductions import weighted_sum as weighted_sum
    from mmalign.media.images import is_image as is_image
    from mmalign.media.images import open_image as open_image
    from mmalign.media.limits import MediaLimits as MediaLimits
    from mmalign.media.outputs import describe_output as describe_output
    from mmalign.media.sounds import Sound as Sound
    from mmalign.media.sounds import open_sound as open_sound
    from mmalign.networks.adapters import LoRAParameters as LoRAParameters
    from mmalign.networks.adapters import add_lora as add_lora
    from mmalign.quiet import quiet_loading as quiet_loading
    from mmalign.references.folders import cache_folder as cache_folder
    from mmalign.references.parameter_counts import remember_counts as remember_counts
    from mmalign.references.tensor_store import TensorStore as TensorStore
    from mmalign.sources.arrow import record_schema as record_schema
    from mmalign.testing import build_tiny_text_model as build_tiny_text_model
    from mmalign.testing import try_part as try_part
    from mmalign.toolkits.language.config import LanguageParameters as LanguageParameters
    from mmalign.toolkits.language.loading import find_model as find_model
    from mmalign.toolkits.language.loading import load_processor as load_processor
    from mmalign.toolkits.language.loading import load_tokenizer as load_tokenizer
    from mmalign.toolkits.language.modality import LanguageModality as LanguageModality
    from mmalign.toolkits.tokens.decoders import Decoder as Decoder
    from mmalign.toolkits.tokens.decoders import DecoderOutput as DecoderOutput
    from mmalign.toolkits.tokens.modality import TokenModality as TokenModality
    from mmalign.training.run_scorer import RunScorer as RunScorer
    from mmalign.training.run_scorer import load_scorer as load_scorer

__version__ = "0.1.0.dev0"

_EXPORTS = {
    "addresses": ("show_address",),
    "api": ("check", "evaluate", "load_run", "train"),
    "references.folders": ("cache_folder",),
    "references.parameter_counts": ("remember_counts",),
    "references.tensor_store": ("TensorStore",),
    "networks.adapters": ("LoRAParameters", "add_lora"),
    "contract.batch": ("Batch",),
    "compute.step_context": ("StepContext",),
    "config.run_config": ("RunConfig", "load_config"),
    "sources.arrow": ("record_schema",),
    "data.chat_messages": ("message_from_chat", "read_template_arguments", "read_tools"),
    "contract.formats": ("FileFormat", "Layout", "RawRow", "ReadOptions"),
    "data.json_text": ("dump_json", "parse_json"),
    "data.records": ("Label", "Media", "Message", "Node", "Note", "Part", "Record", "Response", "Score", "Variant"),
    "contract.decoding": ("Decoding",),
    "contract.engine": ("Networks", "Policy"),
    "errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "MediaError",
        "MmalignError",
        "PlanError",
        "PluginError",
        "TrainingError",
        "suggest",
    ),
    "contract.forward_plan": ("Divergence", "ForwardPlan", "Output"),
    "hardware": ("has_fast_bfloat16",),
    "hookspecs": ("API_VERSION", "hookimpl"),
    "json_requests": ("JsonPoster", "RequestConfig", "RequestFailed", "Url", "read_key"),
    "toolkits.language.config": ("LanguageParameters",),
    "toolkits.language.loading": ("find_model", "load_processor", "load_tokenizer"),
    "toolkits.language.modality": ("LanguageModality",),
    "losses.objectives": ("Objective",),
    "losses.reductions": ("aggregation_weights", "masked_mean", "masked_sum", "step_mask", "weighted_sum"),
    "media.limits": ("MediaLimits",),
    "media.images": ("is_image", "open_image"),
    "media.outputs": ("describe_output",),
    "media.sounds": ("Sound", "open_sound"),
    "contract.modality": ("Modality",),
    "contract.components": (
        "Collector",
        "Engine",
        "EvaluationContext",
        "Evaluator",
        "Generate",
        "Reward",
        "Transform",
    ),
    "quiet": ("quiet_loading",),
    "training.run_scorer": ("RunScorer", "load_scorer"),
    "contract.specs": (
        "AdvantageSpec",
        "CollectorSpec",
        "ConformanceSpec",
        "DecodingSpec",
        "EngineSpec",
        "EvaluatorSpec",
        "FileFormatSpec",
        "LayoutSpec",
        "ModalitySpec",
        "ObjectiveSpec",
        "Parameters",
        "QuantitySpec",
        "RewardSpec",
        "TransformSpec",
        "Unbounded",
    ),
    "testing": ("build_tiny_text_model", "try_part"),
    "toolkits.tokens.decoders": ("Decoder", "DecoderOutput"),
    "toolkits.tokens.modality": ("TokenModality",),
    "contract.values": (
        "EncodedResponse",
        "Generated",
        "Model",
        "Rollout",
        "Sample",
        "Vocabulary",
    ),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(["__version__", *_MODULE_OF])


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mmalign' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mmalign.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
