"""The loader: every way in which a plugin can go wrong, and the traps of pluggy that it must not fall into."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmalign.errors import ConfigError, PluginError
from mmalign.hookspecs import hookimpl
from mmalign.plugins import loading
from mmalign.plugins.discovery import HOOKS, check_hooks, new_manager
from mmalign.plugins.loading import load_plugins

OBSERVER = """
    import mmalign
    @mmalign.hookimpl
    def on_step_ended(run, metrics):
        run.append(__name__)
"""


class Site:
    """A folder on `sys.path` into which a test installs distributions."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.monkeypatch = monkeypatch
        self.names: list[str] = []

    def install(self, name: str, code: str, *, distribution: str = "", target: str = "", extras: str = "") -> None:
        """Installs a distribution with one plugin; only plugins installed so are loaded."""
        distribution = distribution or f"dist-{name}"
        module = target.partition(":")[0] or f"{distribution.replace('-', '_')}_module"
        (self.path / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = self.path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n{extras}")
        (info / "entry_points.txt").write_text(f"[mmalign]\n{name} = {target or module}\n")
        importlib.invalidate_caches()
        self.names.append(name)
        self.monkeypatch.setenv("MMALIGN_PLUGINS", ",".join(self.names))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv("MMALIGN_STRICT_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    loading._warn_once.cache_clear()
    yield Site(tmp_path, monkeypatch)
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def error_of(site: Site, code: str, **options: str) -> str:
    """Installs a plugin that cannot be used; returns the reason, after checking that nothing of it is registered."""
    site.install("odd", code, **options)
    plugin_set = load_plugins()
    assert plugin_set["odd"].status == "broken"
    assert plugin_set.manager.get_plugin("odd") is None
    return plugin_set["odd"].error


def test_installed_plugin_is_described(site: Site) -> None:
    site.install("watch", OBSERVER)
    info = load_plugins()["watch"]
    assert (info.status, info.distribution, info.version) == ("ok", "dist-watch", "1.5")
    assert info.hooks == ("on_step_ended",)
    assert json.loads(json.dumps(info.to_dict()))["file"] == str(site.path / "dist_watch_module.py")


# -- traps of pluggy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["1 / 0", "raise SystemExit(3)", "def broken(:", "import colorsys.nothing"])
def test_plugin_that_fails_to_import_leaves_the_others_loaded(
    site: Site, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    site.install("aa", OBSERVER)
    site.install("mm", statement)
    site.install("zz", OBSERVER)
    with caplog.at_level(logging.WARNING):
        plugin_set = load_plugins()
    assert [info.status for info in plugin_set.infos if info.name in site.names] == ["ok", "broken", "ok"]
    assert "'mm' (dist-mm 1.5) is broken: import failed" in caplog.text


def test_error_names_the_line_of_the_plugin(site: Site) -> None:
    error = error_of(site, "x = 1\ny = x / 0")
    assert "ZeroDivisionError: division by zero" in error
    assert error.endswith("dist_odd_module.py, line 2)")


def test_same_name_in_two_distributions_is_an_error_that_names_both(site: Site) -> None:
    site.install("twin", OBSERVER, distribution="dist-one")
    site.install("twin", OBSERVER, distribution="dist-two")
    with pytest.raises(PluginError, match=r"'twin'.*(dist-one 1\.5.*dist-two|dist-two 1\.5.*dist-one)"):
        load_plugins()
    assert load_plugins(disabled=["twin"])["twin"].status == "disabled"


def test_misspelt_hook_is_refused_with_the_nearest(site: Site) -> None:
    error = error_of(site, "import mmalign\n@mmalign.hookimpl\ndef register_objctives(): return []")
    assert "unknown hook 'register_objctives'; did you mean 'register_objectives'?" in error


def test_hook_that_is_marked_optional_may_be_unknown(site: Site) -> None:
    site.install("future", OBSERVER + "    @mmalign.hookimpl(optionalhook=True)\n    def on_moon_landing(run): pass")
    assert load_plugins()["future"].status == "ok"


def test_forgotten_marker_is_refused(site: Site) -> None:
    code = textwrap.dedent(OBSERVER) + "def register_rewards(): return []"
    assert "'register_rewards' is named like a hook, but not marked" in error_of(site, code)


def test_marker_of_another_project_is_refused(site: Site) -> None:
    code = "import pluggy\n@pluggy.HookimplMarker('pytest')\ndef register_rewards(): return []"
    assert "forgot @mmalign.hookimpl?" in error_of(site, code)


def test_module_without_hooks_is_refused(site: Site) -> None:
    assert "implements no hook" in error_of(site, "x = 1")


def test_class_is_refused_but_an_instance_is_not(site: Site) -> None:
    code = """
        import mmalign
        class Plugin:
            @mmalign.hookimpl
            def on_step_ended(self, run, metrics): run.append("instance")
        instance = Plugin()
    """
    assert "'Plugin' is a class" in error_of(site, code, target="classy:Plugin")
    site.install("fine", code, target="instanced:instance")
    calls: list[str] = []
    load_plugins().manager.hook.on_step_ended(run=calls, metrics={})
    assert calls == ["instance"]


def test_argument_with_a_default_is_refused(site: Site) -> None:
    error = error_of(site, "import mmalign\n@mmalign.hookimpl\ndef on_step_ended(run, metrics=None): pass")
    assert "argument 'metrics' of 'on_step_ended' has a default" in error
    assert "the arguments are: run, metrics" in error


def test_failed_registration_leaves_nothing_registered(site: Site) -> None:
    error = error_of(site, "import mmalign\n@mmalign.hookimpl\ndef on_step_ended(runn): pass")
    assert "runn" in error
    assert load_plugins().manager.get_plugins() == set()


def test_observers_run_in_the_order_of_names(site: Site) -> None:
    for name in ("mm", "zz", "aa"):
        site.install(name, OBSERVER)
    calls: list[str] = []
    load_plugins().manager.hook.on_step_ended(run=calls, metrics={})
    assert calls == ["dist_aa_module", "dist_mm_module", "dist_zz_module"]


def test_no_hook_is_first_result_because_without_a_plugin_that_returns_none() -> None:
    manager = new_manager()
    assert len(HOOKS) == len(set(HOOKS)) >= 18
    for hook in HOOKS:
        caller = getattr(manager.hook, hook)
        assert not caller.spec.opts["firstresult"]
        assert caller(**dict.fromkeys(caller.spec.argnames)) == []


def test_wrapper_of_a_registration_is_refused() -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def register_rewards(self):
            return (yield)

    with pytest.raises(PluginError, match="'register_rewards' is a wrapper"):
        check_hooks(Wrapper(), "wrapper")


def test_same_object_under_two_names_is_refused(site: Site) -> None:
    site.install("aa", OBSERVER, target="shared_module")
    site.install("bb", OBSERVER, target="shared_module")
    plugin_set = load_plugins()
    assert (plugin_set["aa"].status, plugin_set["bb"].status) == ("ok", "broken")
    assert "the same object as plugin 'aa'" in plugin_set["bb"].error


# -- versions, missing modules, switches ----------------------------------------------------------------------------


def test_other_api_version_is_incompatible(site: Site) -> None:
    site.install("future", "MMALIGN_API = 99\n" + textwrap.dedent(OBSERVER))
    info = load_plugins()["future"]
    assert info.status == "incompatible"
    assert "written for plugin API 99" in info.error


def test_missing_module_is_unavailable_with_the_command_that_mends_it(site: Site) -> None:
    site.install("needy", "import nowhere_to_be_found")
    site.install("packed", "import nowhere_to_be_found", extras="Provides-Extra: packed\n")
    plugin_set = load_plugins()
    assert plugin_set["needy"].status == plugin_set["packed"].status == "unavailable"
    assert plugin_set["needy"].error.endswith("; pip install nowhere_to_be_found")
    assert plugin_set["packed"].error.endswith('; pip install "dist-packed[packed]"')


def test_strict_stops_at_a_broken_plugin(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("odd", "1 / 0")
    with pytest.raises(PluginError, match=r"'odd' \(dist-odd 1\.5\) is broken"):
        load_plugins(strict=True)
    monkeypatch.setenv("MMALIGN_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="division by zero"):
        load_plugins()
    assert load_plugins(strict=False)["odd"].status == "broken"


def test_broken_plugin_is_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.install("odd", "1 / 0")
    load_plugins()
    load_plugins()
    assert [record.levelname for record in caplog.records if "'odd'" in record.message] == ["WARNING"]


def test_disabled_plugin_is_listed_but_not_imported(site: Site) -> None:
    site.install("odd", "1 / 0")
    info = load_plugins(disabled=["odd"], strict=True)["odd"]
    assert (info.status, info.error, info.distribution) == ("disabled", "switched off", "dist-odd")


def test_environment_leaves_out_or_allows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("aa", OBSERVER)
    site.install("bb", OBSERVER)
    monkeypatch.setenv("MMALIGN_PLUGINS", "-aa")
    plugin_set = load_plugins()
    assert (plugin_set["aa"].status, plugin_set["bb"].status) == ("disabled", "ok")
    monkeypatch.setenv("MMALIGN_PLUGINS", "aa, bb")
    assert {info.name for info in load_plugins().infos if info.status == "ok"} == {"aa", "bb"}


def test_unknown_name_to_leave_out_is_an_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("rewarding", OBSERVER)
    with pytest.raises(ConfigError, match="--no-plugin: unknown plugin 'rewardin'; did you mean 'rewarding'"):
        load_plugins(disabled=["rewardin"])
    monkeypatch.setenv("MMALIGN_PLUGINS", "-rewardin")
    with pytest.raises(ConfigError, match="MMALIGN_PLUGINS: unknown plugin 'rewardin'"):
        load_plugins()


def test_loading_imports_no_torch() -> None:
    code = "import sys, mmalign.plugins.registry as r; r.load_registry(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
