"""The index of the objectives: fresh, complete, and what the generator says when it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmalign_objectives import generate, index, register_objectives, register_quantities


def test_the_committed_index_is_not_stale() -> None:
    assert generate.main(["--check"]) == 0, "run `make docs`"


def test_what_modules_declare_is_registered() -> None:
    declared = {spec.name: spec for _, spec in generate.iter_declared()}
    registered = {spec.name: spec for spec in [*register_objectives(), *register_quantities()]}
    assert registered == declared
    assert len(declared) == len(list(generate.iter_declared()))


def test_a_loss_is_declared_in_its_module_or_in_one_that_uses_it() -> None:
    away = {spec.name for module, spec in generate.iter_declared() if not _names(spec, module)}
    assert away == {"hpt_imitation"}


def test_a_stale_index_is_refused_then_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "index.json"
    content = json.loads(index.INDEX.read_text())
    content["objective"][0]["summary"] = "Another."
    stale.write_text(json.dumps(content))
    monkeypatch.setattr(generate, "INDEX", stale)
    assert generate.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert stale.read_text() == index.INDEX.read_text()


def test_a_declaration_of_another_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "iter_declared", lambda: iter([("mmalign_objectives.pairs.dpo", "dpo")]))
    with pytest.raises(TypeError, match=r"pairs\.dpo\.SPECS: expected specs .* got 'dpo'"):
        generate.render_index()


def _names(spec: object, module: str) -> bool:
    paths = [getattr(spec, name, "") for name in ("loss", "compute", "module")]
    return any(path.startswith(f"{module}:") for path in paths)
