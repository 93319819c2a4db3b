"""NLL and ranks of whole traces, as selections read them."""

from __future__ import annotations

import pyarrow as pa

from qup.records import TOTALS, TRACES
from qup.scoring.summary import totals
from qup.store import Artifact, rows


def pool_totals(artifact: Artifact) -> pa.Table:
    """Schema TOTALS of a perplexity artifact; computed from its traces where it holds no such table."""
    if artifact.has("totals.parquet"):
        return artifact.table("totals")
    parts = [totals(pa.Table.from_batches([batch])) for batch in rows.batches(artifact, "traces", TRACES.names)]
    return pa.concat_tables(parts) if parts else TOTALS.empty_table()
