"""The logic of losses: counting, the published losses as formulas, and what entailment says of their order."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch

from mmalign_objectives.logic import (
    FALSE,
    INSTANCES,
    TRUE,
    PreferenceStructure,
    Proposition,
    compare,
    count_structures,
    entails,
    iter_structures,
    weighted_count,
)
from mmalign_objectives.pairs.cpo import cpo_loss
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.orpo import orpo_loss
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.odds import log_odds

W, L = Proposition("w"), Proposition("l")
CASES = [(-0.3, -1.7), (-2.0, -0.1), (-1.0, -1.0), (-5.0, -0.01)]


def logs(chosen: float, rejected: float, *reference: float) -> dict[str, float]:
    return dict(zip(("w", "l", "ref_w", "ref_l"), (chosen, rejected, *reference), strict=False))


def tensors(*values: float) -> list[torch.Tensor]:
    return [torch.tensor([value], dtype=torch.float64) for value in values]


def test_counting_by_hand() -> None:
    """p(w) = 1/2, p(l) = 1/4: w or l is 1 - 1/2 * 3/4 = 5/8; l -> w is 1 - 1/4 * 1/2 = 7/8; exactly one is 1/2."""
    weights = logs(math.log(0.5), math.log(0.25))
    expected = {W | L: 5 / 8, L >> W: 7 / 8, (W & ~L) | (~W & L): 1 / 2, W & L: 1 / 8, ~W: 1 / 2, TRUE: 1, FALSE: 0}
    for formula, probability in expected.items():
        assert math.exp(weighted_count(formula, weights)) == pytest.approx(probability, rel=1e-14)


def test_a_formula_and_its_negation_are_everything() -> None:
    weights = {"a": -0.2, "b": -1.5, "c": -30.0, "d": -1e-9}
    a, b, c, d = map(Proposition, "abcd")
    for formula in (a >> (b & ~c), (a | d) & (b | c), ~(a & b & c & d)):
        total = math.exp(weighted_count(formula, weights)) + math.exp(weighted_count(~formula, weights))
        assert total == pytest.approx(1, rel=1e-14)


def test_what_cannot_be_counted_is_said() -> None:
    with pytest.raises(ValueError, match=r"no probability of 'l'; the formula is \(w & l\)"):
        weighted_count(W & L, {"w": -1.0})
    with pytest.raises(ValueError, match="5 propositions, at most 4"):
        weighted_count(W & L & Proposition("a") & Proposition("b") & Proposition("c"), dict.fromkeys("wlabc", -1.0))
    with pytest.raises(ValueError, match=r"expected log-probabilities below 0, got 0\.0"):
        weighted_count(W | L, {"w": 0.0, "l": -1.0})


@pytest.mark.parametrize(("chosen", "rejected"), CASES)
def test_orpo_is_exactly_one(chosen: float, rejected: float) -> None:
    with_odds, without = (orpo_loss(*tensors(chosen, rejected), odds_weight=weight)[0] for weight in (1.0, 0.0))
    expected = (with_odds - without).item()
    assert INSTANCES["orpo"].loss(logs(chosen, rejected)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
@pytest.mark.parametrize(("chosen", "rejected"), CASES)
def test_cpo_is_one_at_least(chosen: float, rejected: float, beta: float) -> None:
    sums = tensors(chosen, rejected, chosen)
    expected = cpo_loss(*sums, beta=beta, nll_weight=0.0, label_smoothing=0.0, link="logistic", alpha=0.0)[0].item()
    assert INSTANCES["cpo"].loss(logs(chosen, rejected), beta=beta) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("chosen", "rejected"), CASES)
def test_asft_is_the_chosen_and_not_the_rejected(chosen: float, rejected: float) -> None:
    """-log[p_w (1 - p_l)], which are the two logistic terms of ASFT."""
    odds = [log_odds(logp) for logp in tensors(chosen, rejected)]
    expected = (logistic(odds[0]) + logistic(-odds[1])).item()
    assert expected == pytest.approx(-chosen - math.log1p(-math.exp(rejected)), rel=1e-11)
    assert INSTANCES["asft"].loss(logs(chosen, rejected)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("chosen", "rejected"), CASES)
def test_uncpo_is_the_implication(chosen: float, rejected: float) -> None:
    wrong = math.exp(rejected) * (1 - math.exp(chosen))
    assert INSTANCES["uncpo"].log_ratio(logs(chosen, rejected)) == pytest.approx(
        math.log((1 - wrong) / wrong), rel=1e-11
    )


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
@pytest.mark.parametrize(("chosen", "rejected"), CASES)
def test_dpo_has_two_more_propositions(chosen: float, rejected: float, beta: float) -> None:
    values = (chosen, rejected, -0.8, -1.1)
    expected = dpo_loss(*tensors(*values), beta=beta, label_smoothing=0.0)[0].item()
    assert INSTANCES["dpo"].loss(logs(*values), beta=beta) == pytest.approx(expected, rel=1e-11)


def test_entailment() -> None:
    assert entails(W & ~L, L >> W) and not entails(L >> W, W & ~L)
    assert entails(FALSE, W) and entails(W, TRUE) and not entails(TRUE, W)


def test_the_published_losses_are_ordered() -> None:
    """ASFT is at least ORPO and unCPO at most; CPO lies beside ORPO, and other propositions are another matter."""
    asft, orpo, cpo, uncpo, dpo = (INSTANCES[name] for name in ("asft", "orpo", "cpo", "uncpo", "dpo"))
    assert (compare(asft, orpo), compare(orpo, asft)) == ("entails", "entailed")
    assert (compare(orpo, uncpo), compare(asft, uncpo), compare(asft, cpo)) == ("entails", "entails", "entails")
    assert (compare(cpo, orpo), compare(dpo, cpo), compare(cpo, cpo)) == ("incomparable", "incomparable", "equivalent")
    for case in CASES:
        difference = asft.loss(logs(*case)) - orpo.loss(logs(*case))
        good, bad = map(math.exp, case)
        assert difference == pytest.approx(-math.log(good * (1 - bad) + bad * (1 - good)), rel=1e-9)


def test_entailment_orders_the_losses_of_all_structures() -> None:
    chance = Random(0)
    structures = list(iter_structures(["l", "w"]))
    assert len(structures) == count_structures(2) == 256
    weights = [logs(-chance.expovariate(1), -chance.expovariate(1)) for _ in range(3)]
    found = 0
    for _ in range(3000):
        one, other = chance.choice(structures), chance.choice(structures)
        usable = all(not entails(side, FALSE) for s in (one, other) for side in (s.preferred, s.dispreferred))
        if usable and compare(one, other) == "entails":
            found += 1
            for weight in weights:
                assert one.loss(weight, beta=0.7) >= other.loss(weight, beta=0.7) - 1e-12
    assert found > 50


def test_every_named_loss_over_two_propositions_is_enumerated() -> None:
    for name in ("orpo", "cpo", "asft", "uncpo"):
        assert sum(compare(one, INSTANCES[name]) == "equivalent" for one in iter_structures(["l", "w"])) == 1
    assert len(list(islice(iter_structures(["a", "b", "c"]), 500))) == 500


def test_a_structure_is_derived_from_its_ratio() -> None:
    for structure in INSTANCES.values():
        derived = PreferenceStructure.from_sides(structure.preferred, structure.dispreferred)
        assert compare(derived, structure) == "equivalent"
    assert INSTANCES["orpo"].equation == "((1 - l) w) / (l (1 - w))"
    with pytest.raises(ValueError, match="the constraint false leaves no world"):
        PreferenceStructure(W, FALSE).log_ratio(logs(-1.0, -1.0))


def test_the_command_prints_formulas_and_order() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mmalign_objectives.logic"], capture_output=True, text=True, check=True
    )
    assert "(l -> w)" in result.stdout and ">=" in result.stdout


def test_the_page_says_what_the_code_does() -> None:
    page = (Path(__file__).parents[2] / "docs" / "logic.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(block, "docs/logic.md", "exec"), names)
    assert names["relation"] == "entails"
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == set(INSTANCES)
