"""Cells become one graph: shared stages once, keys moved by what changes results and by nothing else."""

from dataclasses import replace

import pytest

from qup.config.schema import Lora, Refinement, Resources, Selection, Source
from qup.pipeline import build_graph
from qup.pipeline.graph import Ref
from tests.helpers.cells import ARMS, cell


def kinds(graph):
    counts = {}
    for ref in graph.nodes:
        counts[ref.kind] = counts.get(ref.kind, 0) + 1
    return counts


def keys(one):
    return {f"{ref.kind} {node.label}": ref.key for ref, node in build_graph([one]).nodes.items()}


def changed(before, after):
    a, b = keys(before), keys(after)
    return {name.split()[0] for name in a if a[name] != b[name]}


def test_a_reference_is_read_as_it_is_written():
    assert Ref.parse(str(Ref("stream", "k"))) == Ref.parse("k", "stream") == Ref("stream", "k")
    assert Ref.parse("accept/k", "candidates") == Ref("accept", "k")


def test_two_objectives_share_everything_but_training():
    graph = build_graph([cell(objective="sft"), cell(objective="dft")])
    counts = kinds(graph)
    assert counts.pop("train") == 2
    assert counts.pop("responses") == counts.pop("evaluate") == 2
    assert counts.pop("reward") == 2
    assert set(counts.values()) == {1}
    assert graph.users[graph.cells[0].wanted[0]] == [0, 1] or len(graph.users[graph.cells[0].wanted[0]]) == 2


def test_inputs_come_before_their_users():
    graph = build_graph([cell(stream, objective) for stream in ARMS for objective in ("sft", "dft")])
    seen = set()
    for ref, node in graph.nodes.items():
        assert set(node.parents) <= seen
        seen.add(ref)


def test_base_cells_that_differ_in_training_only_are_merged_and_named():
    graph = build_graph([cell("base", "sft"), cell("base", "dft")])
    assert len(graph.cells) == 1
    assert len(graph.cells[0].merged) == 1
    assert "train" not in graph.cells[0].stages


def test_every_arm_of_a_student_is_aligned_together():
    graph = build_graph([cell(stream) for stream in ARMS])
    (aligned,) = [node for node in graph.nodes.values() if node.kind == "aligned"]
    assert len(aligned.view.arms) == 5
    assert len(aligned.inputs) == 6


def test_students_are_not_aligned_with_each_other():
    one = cell()
    other = replace(one, model=replace(one.model, lab=replace(one.model.lab, exposure=0.5)))
    assert kinds(build_graph([one, other]))["aligned"] == 2


VERIFIED = {"verdicts", "solvable", "candidates", "aligned", "stream", "reward", "perplexity", "train", "responses", "evaluate"}
"""What verification of rollouts reaches: by content, most of it is adopted where no verdict changes."""
CHANGES = {
    "lr": (lambda c: replace(c, trainer=replace(c.trainer, lr=1e-3)), {"train", "responses", "evaluate"}),
    "lora": (lambda c: replace(c, trainer=replace(c.trainer, lora=Lora())), {"train", "responses", "evaluate"}),
    "evaluation seed": (
        lambda c: replace(c, evaluation=replace(c.evaluation, sampling=replace(c.evaluation.sampling, seed=5))),
        {"responses", "evaluate"},
    ),
    "reading of an answer": (
        lambda c: replace(
            c, evaluation=replace(c.evaluation, benchmarks={n: replace(b, extraction="boxed") for n, b in c.evaluation.benchmarks.items()})
        ),
        {"evaluate"},
    ),
    "time of a comparison": (lambda c: replace(c, evaluation=replace(c.evaluation, timeout_s=9.0)), {"evaluate"}),
    "time of a comparison of rollouts": (lambda c: replace(c, rollouts=replace(c.rollouts, timeout_s=9.0)), VERIFIED),
    "reading of a rollout's answer": (lambda c: replace(c, rollouts=replace(c.rollouts, extraction="boxed")), VERIFIED),
    "resources": (lambda c: replace(c, cluster=replace(c.cluster, train=Resources(gpus="8", time="9:00:00"))), set()),
    "checkpoints": (lambda c: replace(c, trainer=replace(c.trainer, checkpoint_minutes=1.0)), set()),
    "zero": (lambda c: replace(c, zero=replace(c.zero, stage=3)), set()),
    "tracking": (lambda c: replace(c, tracking=replace(c.tracking, name="wandb")), set()),
    "store": (lambda c: replace(c, store=replace(c.store, lease_s=5.0)), set()),
    "name of the study": (lambda c: replace(c, study=replace(c.study, name="other")), set()),
    "oracle unused": (lambda c: replace(c, oracle=replace(c.oracle, model="gpt-9")), set()),
    "weight unused": (lambda c: replace(c, selection=replace(c.selection, weight=3.0)), set()),
    "perplexity": (lambda c: replace(c, perplexity=replace(c.perplexity, rank_cap=50)), {"perplexity"}),
    "cleaning": (
        lambda c: replace(c, source=replace(c.source, cleaning="none")),
        {"candidates", "aligned", "stream", "reward", "perplexity", "train", "responses", "evaluate"},
    ),
    "judge of slm_rft": (lambda c: replace(c, judge=replace(c.judge, model="other")), set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_moves_just_the_keys_that_depend_on_it(name):
    change, expected = CHANGES[name]
    assert changed(cell(), change(cell())) == expected


def test_oracle_price_and_pace_move_no_key():
    one = cell("oracle_refined")
    assert changed(one, replace(one, oracle=replace(one.oracle, rpm=10.0, usd_per_million_input=3.0, concurrency=2))) == set()
    assert "candidates" in changed(one, replace(one, oracle=replace(one.oracle, temperature=0.3)))


def test_a_grid_of_weights_scores_the_pool_once():
    def joint(weight):
        return cell(selection=Selection(name="joint", seed=0, reward="lab_steps", weight=weight))

    weights = [0.25, 0.5, 1.0, 2.0, 4.0]
    graph = build_graph([joint(weight) for weight in weights])
    pools = [node for node in graph.nodes.values() if node.kind in ("reward", "perplexity") and node.inputs["traces"].kind == "candidates"]
    assert sorted(node.kind for node in pools) == ["perplexity", "reward"]
    counts = kinds(graph)
    assert counts["train"] == counts["stream"] == counts["evaluate"] == len(weights)
    streams = [node for node in graph.nodes.values() if node.kind == "perplexity" and node.inputs["traces"].kind == "stream"]
    assert all(node.hints for node in streams)


def test_random_selection_reads_no_scores():
    graph = build_graph([cell()])
    (stream,) = [node for node in graph.nodes.values() if node.kind == "stream"]
    assert not [name for name in stream.inputs if name.startswith(("nll", "reward"))]


def test_several_pools_share_their_candidates_with_single_ones():
    both = cell("slm_rft", source=Source(name="student+oracle"))
    graph = build_graph([cell("slm_rft"), cell("oracle_synthesized"), both])
    assert kinds(graph)["candidates"] == 2
    stream = graph.nodes[Ref("stream", graph.cells[2].stages["stream"])]
    assert stream.view.pools == ("student", "oracle")


def test_guided_refinement_is_unrolled_into_rounds():
    guided = cell("oracle_refined", refinement=Refinement(name="refine", tries=3, accept="perplexity"))
    counts = kinds(build_graph([guided]))
    assert counts["candidates"] == 3
    assert counts["accept"] == 1
    assert counts["perplexity"] == 3 + 1 + 1


def test_refining_the_oracles_own_text_asks_for_it_first():
    graph = build_graph([cell("oracle_synthesized", refinement=Refinement(name="style_aligned"))])
    refined = [node for node in graph.nodes.values() if node.kind == "candidates" and node.view.refinement.name == "style_aligned"]
    assert refined[0].inputs["base"].kind == "candidates"


def test_kept_weights_along_the_way_are_evaluated_each():
    one = cell()
    graph = build_graph([replace(one, trainer=replace(one.trainer, evaluate_at=[0.5, 1.0]))])
    assert set(graph.cells[0].stages["evaluate_at"]) == {"0.5", "1.0"}
    assert kinds(graph)["evaluate"] == 2


def test_world_size_is_in_the_key_only_where_the_normalisation_depends_on_it():
    def with_tasks(normalisation, tasks):
        one = cell()
        trainer = replace(one.trainer, normalisation=normalisation)
        return replace(one, trainer=trainer, cluster=replace(one.cluster, train=Resources(tasks=tasks)))

    assert changed(with_tasks("global", 1), with_tasks("global", 2)) == set()
    assert changed(with_tasks("micro_batch", 1), with_tasks("micro_batch", 2)) == {"train", "responses", "evaluate"}


def test_labels_tell_cells_apart():
    one = cell()
    grid = [replace(one, trainer=replace(one.trainer, lr=lr, seed=seed)) for lr in (1e-5, 2e-5) for seed in (0, 1)]
    labels = [made.label for made in build_graph(grid).cells]
    assert len(set(labels)) == 4
    assert labels[0] == "lab_foreign/slm_rft/sft/lr=1e-05/seed=0"


def test_a_label_names_what_no_column_of_the_table_does():
    one = cell("slm_rft")
    grid = [one, replace(one, trainer=replace(one.trainer, clip=0.5)), replace(one, trainer=replace(one.trainer, clip=0.5, eps=1e-6))]
    assert [made.label for made in build_graph(grid).cells] == [
        "lab_foreign/slm_rft/sft",
        "lab_foreign/slm_rft/sft/trainer.clip=0.5",
        "lab_foreign/slm_rft/sft/trainer.eps=1e-06/trainer.clip=0.5",
    ]


def test_merged_cells_are_named_by_what_they_differ_in():
    (made,) = build_graph([cell("base", "sft"), cell("base", "dft"), cell("base", "sft")]).cells
    assert made.label == "lab_foreign/base"
    assert made.merged == ["lab_foreign/base/trainer.objective=dft", "lab_foreign/base#3"]


def pool_of(*names, teacher="", selection="random", **settings):
    one = cell("oracle_synthesized")
    oracles = {name: replace(one.oracle, name=name) for name in names}
    source = Source(name="student+oracle", teacher=teacher, **settings)
    return replace(one, source=source, teacher=oracles, selection=Selection(selection, 0))


def test_several_oracles_make_one_pool_and_each_writes_a_part_of_its_own():
    graph = build_graph([pool_of("a", "b")])
    (stream,) = [node for node in graph.nodes.values() if node.kind == "stream"]
    assert stream.view.pools == ("student", "oracle.a", "oracle.b")
    assert [graph.nodes[stream.inputs[f"pool.oracle.{name}"]].view.oracle.name for name in "ab"] == ["a", "b"]


def test_an_arm_of_one_teacher_shares_that_teachers_candidates_and_the_alignment():
    arms = [pool_of("a", "b"), *(pool_of("a", "b", teacher=name) for name in ("student", "a", "b"))]
    graph = build_graph(arms)
    assert kinds(graph)["candidates"] == 3
    (aligned,) = [node for node in graph.nodes.values() if node.kind == "aligned"]
    assert dict(zip(aligned.view.arms, aligned.view.teachers, strict=True))["oracle.none.a:a"] == "a"
    pools = [node.view.pools for node in graph.nodes.values() if node.kind == "stream"]
    assert sorted(pools) == [("oracle.a",), ("oracle.b",), ("student",), ("student", "oracle.a", "oracle.b")]


def test_the_students_own_traces_are_one_stream_by_whatever_name():
    graph = build_graph([cell("slm_rft"), pool_of("a", teacher="student")])
    assert kinds(graph)["candidates"] == 1
    assert kinds(graph)["train"] == 1


def test_a_teacher_of_a_file_is_taken_out_of_the_whole_files_pool():
    one = cell("slm_rft")
    arms = [replace(one, source=Source(name="file", files=["a.jsonl", "b.jsonl"], content="c", teacher=name)) for name in ("", "a")]
    graph = build_graph(arms)
    assert kinds(graph)["candidates"] == 1
    assert sorted(node.view.teacher for node in graph.nodes.values() if node.kind == "stream") == ["", "a"]
