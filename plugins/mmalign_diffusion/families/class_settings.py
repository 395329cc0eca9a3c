"""Settings of networks and schedulers as their classes of diffusers read them.

What a file lacks has the default of its class. What our code does not honour is refused by name: every setting is in
one of the tables below, or it has to have its default. Settings of a later diffusers are refused that way, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mmalign import ConfigError, suggest
from mmalign_diffusion.families.class_defaults import UNKNOWN, as_json, find_defaults, version

_UNET = """center_input_sample flip_sin_to_cos freq_shift down_block_types mid_block_type up_block_types
block_out_channels layers_per_block downsample_padding mid_block_scale_factor dropout act_fn norm_num_groups norm_eps
attention_head_dim resnet_time_scale_shift time_embedding_dim sample_size in_channels out_channels"""
_TRANSFORMER = "num_layers attention_head_dim num_attention_heads patch_size in_channels out_channels"

HONOURED: Mapping[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "UNet2DConditionModel": f"""{_UNET} only_cross_attention cross_attention_dim transformer_layers_per_block
            reverse_transformer_layers_per_block encoder_hid_dim num_attention_heads dual_cross_attention
            use_linear_projection addition_time_embed_dim upcast_attention resnet_skip_time_act resnet_out_scale_factor
            time_embedding_act_fn timestep_post_act time_cond_proj_dim conv_in_kernel conv_out_kernel
            projection_class_embeddings_input_dim mid_block_only_cross_attention cross_attention_norm""",
        "UNet2DModel": f"""{_UNET} downsample_type upsample_type attn_norm_num_groups add_attention num_class_embeds
            num_train_timesteps""",
        "SD3Transformer2DModel": f"""{_TRANSFORMER} sample_size joint_attention_dim caption_projection_dim
            pooled_projection_dim pos_embed_max_size dual_attention_layers qk_norm""",
        "FluxTransformer2DModel": f"""{_TRANSFORMER} num_single_layers joint_attention_dim pooled_projection_dim
            guidance_embeds axes_dims_rope""",
        "PixArtTransformer2DModel": f"""{_TRANSFORMER} sample_size dropout norm_num_groups cross_attention_dim
            attention_bias activation_fn num_embeds_ada_norm upcast_attention norm_elementwise_affine norm_eps
            interpolation_scale use_additional_conditions caption_channels""",
        "AutoencoderKL": """in_channels out_channels down_block_types up_block_types block_out_channels layers_per_block
            act_fn latent_channels norm_num_groups sample_size scaling_factor force_upcast use_quant_conv
            use_post_quant_conv mid_block_add_attention""",
    }.items()
}
"""By class, the settings that may have any value: the network alone is built by them, or a family reads them."""

_VALUES: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "UNet2DConditionModel": {"encoder_hid_dim_type": ("text_proj",)},
}
"""By class, further settings with the values that need nothing but what a text encoder gives."""

_WHOLE = ("in_channels", "out_channels", "latent_channels", "patch_size", "time_cond_proj_dim", "num_train_timesteps")
_NUMBERS = (
    "scaling_factor",
    "shift_factor",
    "beta_start",
    "beta_end",
    "shift",
    "base_shift",
    "max_shift",
    "flow_shift",
)
_LISTS = ("block_out_channels",)
"""Settings that our code computes with, so that another type would end in a traceback."""

_LEVELS = frozenset(
    """num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type rescale_betas_zero_snr
    set_alpha_to_one final_sigmas_type snr_shift_scale use_flow_sigmas flow_shift shift use_dynamic_shifting
    time_shift_type base_shift max_shift base_image_seq_len max_image_seq_len invert_sigmas""".split()
)
"""Settings of schedulers that say how a network was trained; `schedules` and `flow_schedules` read them."""

_SAMPLING = frozenset(
    """clip_sample clip_sample_range thresholding dynamic_thresholding_ratio sample_max_value steps_offset
    timestep_spacing skip_prk_steps solver_order solver_type solver_p algorithm_type lower_order_final euler_at_final
    use_karras_sigmas use_exponential_sigmas use_beta_sigmas use_lu_lambdas lambda_min_clipped variance_type
    interpolation_type original_inference_steps timestep_scaling predict_x0 disable_corrector stochastic_sampling
    noise_sampler_seed rho eta""".split()
)
"""Settings of their own way to sample, for which the decoding stands here."""


def read_network(
    given: Mapping[str, Any],
    class_name: str,
    place: str,
    *,
    also: Collection[str] = (),
    values: Mapping[str, tuple[Any, ...]] | None = None,
    renamed: Collection[str] = (),
) -> dict[str, Any]:
    """Returns the settings of a network with the defaults of its class.

    Args:
        given: what `config.json` holds.
        class_name: the class that is expected.
        place: the setting that names the model, and the file, for errors.
        also: further settings that the family honours.
        values: further settings that it honours with these values.
        renamed: earlier names of the class.

    Raises:
        ConfigError: another class, or a setting that is not honoured has another value than the default.
    """
    own = given.get("_class_name", class_name)
    if own != class_name and own not in renamed:
        raise ConfigError(f"{place}: a {own}; expected a {class_name}")
    if given.get("quantization_config"):
        config = given["quantization_config"]
        method = config.get("quant_method") if isinstance(config, dict) else None
        raise ConfigError(f"{place}: weights quantised by {method or 'some way'}; name a folder with the plain weights")
    defaults = _find_defaults(class_name, place)
    known = {name: value for name, value in given.items() if not name.startswith("_")}
    known.pop("quantization_config", None)
    special = {**_VALUES.get(class_name, {}), **(values or {})}
    honoured = {name for name, allowed in special.items() if as_json(known.get(name)) in allowed}
    _refuse(known, defaults, HONOURED[class_name] | set(also) | honoured, place, class_name)
    return _merge(known, defaults)


def read_scheduler(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Returns the settings of a scheduler with the defaults of its class; `_class_name` stays.

    Raises:
        ConfigError: no such class, or a setting that is not honoured has another value than the default.
    """
    name = given.get("_class_name")
    if name is None:
        return dict(given)
    defaults = _find_defaults(name, place)
    known = {key: value for key, value in given.items() if not key.startswith("_")}
    # Files written for another scheduler keep its settings of sampling; DDIM, as which we sample, knows the last one.
    _refuse(known, defaults, (_LEVELS & defaults.keys()) | _SAMPLING | {"set_alpha_to_one"}, place, name)
    kept = {key: value for key, value in known.items() if key in defaults or key == "set_alpha_to_one"}
    return {"_class_name": name, **_merge(kept, defaults)}


def _find_defaults(name: str, place: str) -> Mapping[str, Any]:
    defaults = find_defaults(name)
    if defaults is None:
        raise ConfigError(f"{place}: {version()} has no class {name!r}; update it, or name another one")
    return defaults


def _merge(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if value is not UNKNOWN} | dict(given)


def _refuse(
    given: Mapping[str, Any], defaults: Mapping[str, Any], honoured: Collection[str], place: str, class_name: str
) -> None:
    for name, value in given.items():
        wrong = name in _WHOLE and (not isinstance(value, int) or value < 1)
        if name in _LISTS and not (isinstance(value, list) and value):
            raise ConfigError(f"{place}: {name}: expected a list, got {value!r}")
        if value is not None and (wrong or (name in _NUMBERS and not isinstance(value, int | float))):
            raise ConfigError(f"{place}: {name}: expected a {'whole ' if wrong else ''}number, got {value!r}")
        if name in honoured:
            continue
        if name not in defaults and not value:  # of a class that it was derived from, and switched off
            continue
        if name not in defaults:
            raise ConfigError(
                f"{place}: {name}: {value!r} is unknown to {class_name} of {version()}, which would pass over it"
                f"{suggest(name, defaults)}; drop it, or update diffusers"
            )
        if as_json(value) != defaults[name]:
            raise ConfigError(
                f"{place}: {name}: {value!r} of {class_name} is not supported; expected {defaults[name]!r}, its default"
            )
