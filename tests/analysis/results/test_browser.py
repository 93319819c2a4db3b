"""Traces to look at."""

from __future__ import annotations

import json
import math
import re

import pyarrow as pa
import pyarrow.parquet as pq

from qup.analysis.results.browser import edits, split_like, writer_at
from tests.analysis.world import ONE, World, build_study, lab_cells, reseal, told


def test_pieces_of_a_trace_join_to_it() -> None:
    for words, tokens in (
        ("To find it, é 12", ["To", " find", " it", ",", "\ufffd", "\ufffd", " 12"]),
        ("a  b\nc", ["a", "b", "c"]),
        ("abc", ["x", "y"]),
        ("", []),
    ):
        pieces = split_like(words, tokens)
        assert len(pieces) == len(tokens)
        assert "".join(pieces) == words


def test_edits_name_what_is_new_and_what_is_gone() -> None:
    added, removed = edits("we add 3 and 4", "we take 3 and 4 now")
    assert ["we take 3 and 4 now"[low:high].strip() for low, high in added] == ["take", "now"]
    assert [words for _, words in removed] == ["add"]


def test_surprise_that_is_no_number_is_shown_as_none(tmp_path) -> None:
    folder, store = build_study(tmp_path, World(lab_cells(**ONE, arms=("slm_rft", "oracle_refined"))))
    for artifact in [one for one in store.artifacts() if one.stage == "perplexity"]:
        table = pq.read_table(artifact.path / "traces.parquet")
        broken = [[math.nan, *values[1:]] for values in table["nll_T"].to_pylist()]
        column = pa.array(broken, table.schema.field("nll_T").type)
        pq.write_table(table.set_column(table.column_names.index("nll_T"), "nll_T", column), artifact.path / "traces.parquet")
        reseal(artifact.path)
    (embedded_data,) = re.findall(r'id="trace-data">(.*?)</script>', told(folder, store), re.DOTALL)
    trace = json.loads(embedded_data)[0]["problems"][0]["traces"][0]
    assert trace["tokens"][0][1] is None
    assert trace["tokens"][1][1] is not None


def test_a_character_belongs_to_the_span_that_it_lies_in() -> None:
    """Spans of 3, 0 and 2 characters: student, Oracle (nothing), student."""
    assert [writer_at([3, 3, 5], place) for place in range(5)] == [0, 0, 0, 0, 0]
    assert [writer_at([2, 4], place) for place in range(4)] == [0, 0, 1, 1]
