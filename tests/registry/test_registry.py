"""The registry: names, clashes, what a broken registration costs, and import strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from mmalign.contract.specs import DecodingSpec, QuantitySpec, RewardSpec, Spec
from mmalign.errors import ConfigError, PluginError
from mmalign.hookspecs import hookimpl
from mmalign.import_strings import load_object
from mmalign.plugins.loading import PluginInfo, PluginSet
from mmalign.plugins.registry import HOOK_OF, KINDS, Registry


def reward(name: str, **changes: Any) -> RewardSpec:
    return RewardSpec(name=name, summary="A reward.", target="a_module:A", **changes)


@dataclass(eq=False)
class Offers:
    """A plugin that registers what it is built with."""

    rewards: Any = ()
    decodings: Any = ()
    quantities: Any = ()

    @hookimpl
    def register_rewards(self) -> Any:
        return self.rewards

    @hookimpl
    def register_decodings(self) -> Any:
        return self.decodings

    @hookimpl
    def register_quantities(self) -> Any:
        return self.quantities


class Raises:
    """A plugin whose registration fails."""

    @hookimpl
    def register_rewards(self) -> Any:
        raise RuntimeError("no rewards today")


def plugin_set_of(*, strict: bool = False, **plugins: Any) -> PluginSet:
    plugin_set = PluginSet(strict=strict)
    for name, plugin in plugins.items():
        plugin_set.manager.register(plugin, name)
        plugin_set.add(PluginInfo(name, distribution=f"dist-{name}", version="2.1"))
    return plugin_set


def registry_of(**plugins: Any) -> Registry:
    return Registry(plugin_set_of(**plugins))


def test_part_is_found_by_name_and_alias() -> None:
    registry = registry_of(one=Offers(rewards=[reward("brevity", aliases=("shortness",))]))
    entry = registry.find("reward", "brevity", "rewards[0].name")
    assert entry.spec.name == "brevity"
    assert entry.plugin.provides == {"reward": ["brevity"]}
    assert registry.find("reward", "shortness", "rewards[0].name") is entry
    assert registry.names("reward") == ["brevity"]


def test_unknown_name_is_answered_with_place_nearest_known_and_plugins() -> None:
    registry = registry_of(one=Offers(rewards=[reward("brevity"), reward("length")]))
    with pytest.raises(ConfigError) as caught:
        registry.find("reward", "brevty", "rewards[0].name")
    assert str(caught.value) == (
        "rewards[0].name: unknown 'brevty'; did you mean 'brevity'? known: brevity, length (plugins: one 2.1)"
    )


def test_name_of_another_kind_is_pointed_out() -> None:
    decoding = DecodingSpec(name="greedy", summary="", target="a_module:A")
    registry = registry_of(one=Offers(rewards=[reward("brevity")], decodings=[decoding]))
    with pytest.raises(ConfigError, match="'greedy' is the name of a part of another kind: decoding"):
        registry.find("reward", "greedy", "rewards[0].name")


def test_unknown_name_lists_the_plugins_that_are_out() -> None:
    plugin_set = plugin_set_of(one=Offers(rewards=[reward("brevity")]), bad=Raises())
    plugin_set.add(PluginInfo("off", distribution="dist-off", version="3", status="disabled", error="switched off"))
    registry = Registry(plugin_set)
    with pytest.raises(ConfigError) as caught:
        registry.find("reward", "vader", "rewards[0].name")
    assert "plugin 'bad' (dist-bad 2.1) is broken" in str(caught.value)
    assert "no rewards today" in str(caught.value)
    assert "plugin 'off' (dist-off 3) is disabled" in str(caught.value)


@pytest.mark.parametrize("second", [reward("same"), reward("other", aliases=("same",))])
def test_same_name_in_two_plugins_is_an_error_that_names_both(second: RewardSpec) -> None:
    with pytest.raises(PluginError, match=r"reward 'same': 'one' \(dist-one 2\.1\) and 'two' \(dist-two 2\.1\)"):
        registry_of(one=Offers(rewards=[reward("same")]), two=Offers(rewards=[second]))


def test_same_name_in_two_kinds_is_no_clash() -> None:
    decoding = DecodingSpec(name="same", summary="", target="a_module:A")
    registry = registry_of(one=Offers(rewards=[reward("same")]), two=Offers(decodings=[decoding]))
    assert registry.find("decoding", "same", "decoding.name").plugin.name == "two"


def test_raising_registration_costs_only_its_plugin() -> None:
    registry = registry_of(aa=Raises(), bb=Offers(rewards=[reward("brevity")]), zz=Raises())
    assert registry.names("reward") == ["brevity"]
    assert [info.status for info in registry.plugin_set.infos] == ["broken", "ok", "broken"]
    assert registry.plugin_set.manager.get_plugin("aa") is None
    assert "register_rewards failed: RuntimeError: no rewards today" in registry.plugin_set["aa"].error


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType, expected a list of RewardSpec"),
        (reward("alone"), "returned RewardSpec, expected a list"),
        ([QuantitySpec(name="q", summary="", axes="N", compute="a:b")], "expected RewardSpec"),
        ([reward("twice"), reward("twice")], "offers 'twice' twice"),
        ([reward("")], "is named ''"),
        ([reward("brevity", aliases="short")], "aliases of 'brevity' is 'short'; expected a tuple"),
        ([RewardSpec(name="brevity", summary="", target="a_module.A")], "expected an import string"),
    ],
)
def test_wrong_registration_breaks_its_plugin(returned: Any, message: str) -> None:
    decoding = DecodingSpec(name="greedy", summary="", target="a_module:A")
    registry = registry_of(one=Offers(rewards=returned, decodings=[decoding]))
    assert registry.plugin_set["one"].status == "broken"
    assert message in registry.plugin_set["one"].error
    assert registry.entries("decoding") == []


def test_strict_stops_at_a_broken_registration() -> None:
    with pytest.raises(PluginError, match="no rewards today"):
        Registry(plugin_set_of(strict=True, bad=Raises()))


def test_part_with_a_missing_module_is_listed_but_cannot_be_used() -> None:
    needy = reward("needy", requires=("nowhere_to_be_found",), extra="sounds")
    bare = reward("bare", requires=("nowhere.at_all",))
    registry = registry_of(one=Offers(rewards=[reward("brevity"), needy, bare]))
    assert registry.names("reward") == ["bare", "brevity", "needy"]
    with pytest.raises(PluginError, match=r'needs nowhere_to_be_found.*pip install "dist-one\[sounds\]"'):
        registry.find("reward", "needy", "rewards[0].name")
    with pytest.raises(PluginError, match=r"pip install nowhere\.at_all"):
        registry.find("reward", "bare", "rewards[0].name")
    assert registry.plugin_set["one"].status == "ok"


def test_plugin_without_any_usable_part_is_unavailable() -> None:
    registry = registry_of(one=Offers(rewards=[reward("needy", requires=("nowhere_to_be_found",), extra="sounds")]))
    info = registry.plugin_set["one"]
    assert info.status == "unavailable"
    assert info.provides == {"reward": ["needy"]}
    assert 'pip install "dist-one[sounds]"' in info.error


def test_quantities_of_plugins_are_listed() -> None:
    quantity = QuantitySpec(name="surprise", summary="", axes="N", compute="a:b")
    assert [entry.spec for entry in registry_of(one=Offers(quantities=[quantity])).quantities()] == [quantity]


def test_every_kind_of_spec_has_a_hook() -> None:
    kinds = {cls.kind for cls in _all_subclasses(Spec) if cls.kind}
    assert kinds == set(KINDS)
    assert all(spec_class.kind == kind for kind, (_, spec_class) in HOOK_OF.items())


def _all_subclasses(cls: type[Spec]) -> set[type[Spec]]:
    return {one for child in cls.__subclasses__() for one in (child, *_all_subclasses(child))}


def test_import_string_is_loaded() -> None:
    assert load_object("mmalign.errors:PluginError") is PluginError
    assert load_object("mmalign.plugins.loading:PluginInfo.to_dict") is PluginInfo.to_dict


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mmalign.errors.PluginError", "expected 'package.module:attribute'"),
        ("mmalign.errors:", "expected 'package.module:attribute'"),
        ("mmalign.errors:PluginErro", "has no 'PluginErro'; did you mean 'PluginError'?"),
        ("nowhere_to_be_found:x", "import failed: ModuleNotFoundError"),
    ],
)
def test_import_string_that_cannot_be_loaded(path: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        load_object(path)
    assert message in str(caught.value)
    assert repr(path) in str(caught.value)
