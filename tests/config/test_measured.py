"""What a configuration of measures must be, and the stages it asks for."""

from __future__ import annotations

import json

import pytest

from qup.config.compose import compose_cell
from qup.config.measured import relevant_measure, selected_measure, token_pass
from qup.config.schema import Measure
from qup.launch.check import faults
from qup.pipeline import KINDS, build_graph

POOL = ("source=student", "rollouts.sampling.n=4")


def told(*overrides):
    return [str(fault) for fault in faults(compose_cell([*POOL, *overrides]))]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["selection=measure"], "selection.measure=None: is needed with selection=measure; valid: mean_logprob"),
        (["selection=measure", "selection.measure=lalp"], "is no configured measure"),
        (["selection=measure", "selection.measure=lalp"], "measure=[…,lalp] adds it"),
        (["measure=[grace]", "selection=measure", "selection.measure=grace"], "grace is a measure of a whole set"),
        (["measure=[lark]", "selection=perplexity", "selection.measure=lark"], "is not read by selection=perplexity"),
        (
            ["measure=[car]", "selection=joint", "selection.measure=car", "selection.reward=lab_steps"],
            "holds the reward already, which selection=joint weighs again",
        ),
        (["measure=[car]", "measure.car.reward=nobody"], "is no configured reward model"),
        (["measure=[lark]", "measure.lark.reward=lab_steps"], "is read by car, not by lark"),
        (["measure=[lark]", "measure.lark.better=low"], "is for length; lark has its own: high"),
        (["measure=[lalp]", "measure.lalp.window=1.5"], "must be a share below 1 or a whole number of steps"),
    ],
)
def test_a_measure_that_cant_be_is_refused_with_what_would_be_valid(overrides, words):
    assert any(words in fault for fault in told(*overrides)), told(*overrides)


def test_all_that_one_pass_gives_are_there_by_default_and_sound():
    assert told() == []
    assert set(compose_cell([]).measure) == {"mean_logprob", "rank_surprisal", "aslec_drop", "aslec_casl", "lark", "scas", "length"}


def test_a_student_whose_architecture_has_no_up_proj_is_told_what_to_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    cell = ["model=qwen2_5_math_1_5b", f"model.path={tmp_path}"]
    assert any(
        "perplexity.activation='mlp.up_proj': the student is a gpt2, which has mlp.c_fc; name that" in fault for fault in told(*cell)
    )
    assert not [fault for fault in told(*cell, "measure=[lark]") if "activation" in fault]


def test_the_pass_records_activations_only_where_a_measure_reads_them():
    assert token_pass(compose_cell(["measure=[lark]"])).activation is None
    assert token_pass(compose_cell(["measure=[lark,scas]"])).activation == "mlp.up_proj"


def test_settings_that_a_measure_does_not_read_split_no_keys():
    assert relevant_measure(Measure("lark", window=0.5, beta=9.0)) == Measure("lark")
    assert relevant_measure(Measure("lark", brier="full")) != Measure("lark")


@pytest.mark.parametrize(("rule", "kind"), [("perplexity", "mean_logprob"), ("rank_surprisal", "rank_surprisal")])
def test_the_old_rules_are_names_for_measures(rule, kind):
    assert selected_measure(compose_cell([*POOL, f"selection={rule}"])) == Measure(kind)


def test_joint_weighs_the_nll_where_no_measure_is_named():
    cell = [*POOL, "selection=joint", "selection.reward=lab_steps"]
    assert selected_measure(compose_cell(cell)) == Measure("mean_logprob")
    assert selected_measure(compose_cell([*cell, "selection.measure=scas"])) == Measure("scas")


def kinds(*overrides):
    graph = build_graph([compose_cell([*POOL, *overrides])])
    return [node.kind for node in graph.nodes.values()], graph


def test_a_measure_with_a_pass_of_its_own_is_a_stage_of_the_stream_and_of_the_pool_that_a_selection_reads():
    assert "measure" not in kinds()[0]
    assert kinds("measure=[lalp]")[0].count("measure") == 1
    found, graph = kinds("measure=[lalp]", "selection=measure", "selection.measure=lalp")
    assert found.count("measure") == 2
    (stream,) = [node for node in graph.nodes.values() if node.kind == "stream"]
    assert stream.inputs["measure.student"].kind == "measure"
    own = graph.nodes[next(ref for ref in graph.cells[0].wanted if ref.kind == "measure")]
    assert own.hints["pool.student"] == stream.inputs["measure.student"]


def test_a_measure_of_the_pass_is_no_stage_of_its_own():
    found, graph = kinds("selection=measure", "selection.measure=lark")
    (stream,) = [node for node in graph.nodes.values() if node.kind == "stream"]
    assert stream.inputs["nll.student"].kind == "perplexity"
    assert found.count("perplexity") == 2


def test_car_brings_the_reward_model_that_it_reads():
    _, graph = kinds("measure=[car]", "selection=measure", "selection.measure=car", "measure.car.reward=lab_steps")
    (stream,) = [node for node in graph.nodes.values() if node.kind == "stream"]
    assert graph.nodes[stream.inputs["reward.student"]].view.name == "lab_steps"


def test_no_measure_is_asked_of_a_server_which_gives_no_hidden_states():
    """The pass runs the student in process, whoever draws its rollouts."""
    served = ["rollouts.sampling.backend=vllm", "evaluation.sampling.backend=vllm", "measure=[scas,lalp,grace]"]
    assert told(*served) == []
    _, graph = kinds(*served)
    scoring = [node for node in graph.nodes.values() if node.kind in ("perplexity", "measure")]
    assert len(scoring) == 3
    assert all(KINDS[node.kind].asked_of(node.view) is None and not KINDS[node.kind].endpoint for node in scoring)
