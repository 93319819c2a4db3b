"""The tables that stages hand to each other: one Arrow schema each, and what the columns mean.

Axes are named problem (P), sample (S, a rollout's index within its problem), candidate (C), token (T).
Row order is part of a table: problems in the problem set's order, samples and candidates ascending.
"""

from __future__ import annotations

import pyarrow as pa

_ids = pa.list_(pa.int32())
_floats = pa.list_(pa.float32())

PROBLEMS = pa.schema(
    [
        ("problem_id", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),  # gold
        ("solution", pa.string()),  # the data set's own chain of thought; "" where it has none
    ]
)

ROLLOUTS = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("text", pa.string()),  # without the stop token
        ("token_ids", _ids),  # as sampled, the stop token included
        ("logprob_T", _floats),  # of the sampled tokens, natural log
        ("finish", pa.string()),  # stop | length
    ]
)

VERDICTS = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("extracted", pa.string()),  # "" where no answer was found
        ("correct", pa.bool_()),
        ("verdict", pa.string()),  # equal | symbolic | wrong | undecided | no_answer | timeout
        ("eligible", pa.bool_()),  # correct, ended by a stop id, not empty
    ]
)  # one row a rollout, in their order

SOLVABLE = pa.schema(
    [
        ("problem_id", pa.string()),
        ("n_samples", pa.int32()),
        ("n_correct", pa.int32()),
        ("n_eligible", pa.int32()),
        ("kept", pa.int32()),  # the sample that slm_rft keeps
    ]
)

CANDIDATES = pa.schema(
    [
        ("problem_id", pa.string()),
        ("candidate", pa.int32()),
        ("teacher", pa.string()),  # who wrote it: the Oracle's name, a file's, student or dataset
        ("text", pa.string()),
        ("extracted", pa.string()),
        ("correct", pa.bool_()),
        ("verdict", pa.string()),  # as in VERDICTS, or refused | cut_off | empty | echo
        ("eligible", pa.bool_()),
        ("status", pa.string()),  # ok | unchanged | native (stands in for a failure) | flagged (kept though wrong)
        ("attempts", pa.int32()),  # answers, or whole drafts, this candidate took; 0 without an Oracle
        ("input_tokens", pa.int32()),  # of those requests, by the server's usage
        ("output_tokens", pa.int32()),
        ("edit_distance", pa.float32()),  # tokens changed against the trace it was made from, as a share; NaN without one
        ("rules", pa.list_(pa.string())),  # cleaning rules that fired
        ("turns", _ids),  # where spans end, in characters, that student and Oracle wrote in turn, the student's first; [] for one writer
    ]
)

ALIGNED = pa.schema([("problem_id", pa.string())])

LOSSES = pa.schema([("arm", pa.string()), ("problem_id", pa.string()), ("reason", pa.string())])

STREAM = pa.schema(
    [
        ("problem_id", pa.string()),
        ("pool", pa.string()),
        ("candidate", pa.int32()),
        ("teacher", pa.string()),
        ("question", pa.string()),
        ("text", pa.string()),  # the response to be learnt, without a stop token
        ("correct", pa.bool_()),
        ("status", pa.string()),
        ("random_candidate", pa.string()),  # "<pool>/<candidate>" that the random rule would have taken
        ("n_eligible", pa.int32()),
        ("weight", pa.float64()),  # of the example in the loss
        ("turns", _ids),  # as in CANDIDATES
    ]
)

SCORES = pa.schema(
    [
        ("pool", pa.string()),  # "" where the traces are one pool's candidates
        ("problem_id", pa.string()),
        ("candidate", pa.int32()),
        ("score", pa.float64()),  # NaN where the trace does not fit
        ("n_tokens", pa.int32()),  # prompt and trace, under the reward model
        ("fits", pa.bool_()),
    ]
)

TRACES = pa.schema(
    [
        ("pool", pa.string()),
        ("problem_id", pa.string()),
        ("candidate", pa.int32()),
        ("n_prompt", pa.int32()),
        ("n_chars", pa.int32()),  # characters of the response
        ("token_ids", _ids),  # response with its stop token, T entries
        ("nll_T", _floats),  # nats; last entry is the stop token
        ("rank_T", _ids),  # 1 + logits above the target's, clipped
    ]
)

TOTALS = pa.schema(
    [
        ("pool", pa.string()),
        ("problem_id", pa.string()),
        ("candidate", pa.int32()),
        ("n_prompt", pa.int32()),
        ("n_tokens", pa.int32()),  # response tokens, the stop token left out
        ("n_chars", pa.int32()),
        ("nll", pa.float64()),  # nats, summed over those tokens
        ("rank", pa.int64()),  # clipped ranks, summed over those tokens
    ]
)  # one row a trace of TRACES, in its order: what a selection reads

STATISTICS = pa.schema(
    [
        ("pool", pa.string()),
        ("problem_id", pa.string()),
        ("candidate", pa.int32()),
        ("brier", pa.float64()),  # 1 - 2p(y) + sum of p², summed over the response's tokens
        ("brier_top", pa.float64()),  # the same over the likeliest tokens alone, renormalised
        ("question_nll", pa.float64()),  # nats, summed over the question's tokens
        ("question_tokens", pa.int32()),
        ("aa", pa.float64()),  # squared length of the mean normalised activation of the response's tokens; NaN where none is recorded
        ("aq", pa.float64()),  # its product with the question's
        ("sentences", _ids),  # index of each step's first token, for each way of taking steps
        ("lines", _ids),
        ("blank_lines", _ids),
    ]
)  # one row a trace of TRACES, in its order: what measures read beside TOTALS; the stop token left out

MEASURED = pa.schema(
    [
        ("pool", pa.string()),
        ("problem_id", pa.string()),
        ("candidate", pa.int32()),
        ("value", pa.float64()),  # lalp; NaN for grace
        ("gradient", _floats),  # grace: the projected gradient; empty for lalp
    ]
)

TOKENS = pa.schema(
    [
        ("token_id", pa.int32()),
        ("token", pa.string()),  # as the tokenizer decodes it alone
        ("quarter", pa.int8()),  # 1..4
        ("count", pa.int64()),
        ("nll", pa.float64()),  # nats, summed
    ]
)  # which tokens a set of traces holds, and which carry its loss; the stop token left out

RETENTION = pa.schema(
    [
        ("problem_id", pa.string()),
        ("rating", pa.float32()),  # 1..5, NaN where the judge gave none
        ("definitions", pa.float32()),
        ("equations", pa.float32()),
        ("assumptions", pa.float32()),
        ("trial_steps", pa.float32()),
    ]
)

RANKING = pa.schema([("problem_id", pa.string()), ("arm", pa.string()), ("rank", pa.int32())])

RESPONSES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("problem_id", pa.string()),
        ("dev", pa.bool_()),  # kept apart for choosing hyper-parameters
        ("sample", pa.int32()),
        ("text", pa.string()),
        ("n_tokens", pa.int32()),
        ("finish", pa.string()),
    ]
)

EVALUATED = pa.schema(
    [
        *(field for field in RESPONSES if field.name != "text"),
        ("extracted", pa.string()),
        ("correct", pa.bool_()),
        ("verdict", pa.string()),  # as in VERDICTS
    ]
)  # one row a response, in their order
