"""What a plan is expected to take."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qup.config.schema import Benchmark, LabProblems, Problems
from qup.launch.costs import ASSUMED_BENCHMARK, ASSUMED_PROBLEMS, count_rows


def test_rows_of_local_data_are_counted_whatever_the_format(tmp_path: Path) -> None:
    path = str(tmp_path / "p.parquet")
    pq.write_table(pa.table({"question": ["a"] * 30}), path)
    assert count_rows(Problems(path=path)) == 30
    assert count_rows(Problems(path=path, limit=7)) == 7
    assert count_rows(Benchmark(path=path, limit=40)) == 30


def test_what_cannot_be_counted_from_here_is_assumed() -> None:
    assert count_rows(Problems(path="org/name")) == ASSUMED_PROBLEMS
    assert count_rows(Problems(path="org/name", limit=9)) == 9
    assert count_rows(Benchmark(path="org/name")) == ASSUMED_BENCHMARK
    assert count_rows(Problems(lab=LabProblems(n=12))) == 12
