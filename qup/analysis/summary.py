"""summary.json: what the report says, for programs."""

from __future__ import annotations

import math
from typing import Any

from qup.analysis.findings.answer import answers, told
from qup.analysis.findings.contrasts import Contrast
from qup.analysis.findings.survey import Survey
from qup.analysis.findings.wording import causal, finding, headline, scope
from qup.analysis.statistics.estimates import Estimate


def summary_of(survey: Survey) -> dict[str, Any]:
    """JSON-able; NaN is null. `format` rises when a field changes its meaning."""
    return {
        "format": 1,
        "study": survey.study.name,
        "toy_world": survey.toy,
        "cells": len(survey.runs),
        "missing": survey.missing,
        "finished": finished(survey),
        "students": survey.students,
        "arm_names": list(dict.fromkeys(one.arm for one in survey.summaries if not one.run.cell.is_base)),
        "answers": [{"student": one.student, "take": one.take or None, "sentence": one.sentence, "more": list(one.more)} for one in answers(survey)],
        "told": told(survey),
        "setup": {line.name: list(line.told) for line in survey.setup},
        "failures": [{"stage": one.stage, "key": one.key, "cells": list(one.cells), "why": one.why} for one in survey.failures],
        "rule": {"reward": survey.reward, "baseline": survey.baseline, "margin": survey.margin},
        "over_students": survey.over_students or None,
        "verdicts": [
            {
                "student": one.student,
                "outcome": one.outcome,
                "sentence": headline(one),
                "scope": scope(one),
                "seeds": one.seeds,
                "speaks_of": "recipe" if one.recipe else "checkpoints",
                "findings": [
                    {
                        "arm": f.arm, "setting": f.setting, "outcome": f.outcome, "teaches": f.teaches, "reward": _estimate(f.reward.estimate), "utility": _contrast(f.contrast),
                        "sentence": finding(f),
                    }
                    for f in one.findings
                ],
                "causal": [
                    {
                        "arm": f.arm, "refined": f.refined, "setting": f.setting, "outcome": f.outcome, "log_perplexity": _estimate(f.perplexity.estimate),
                        "utility": _contrast(f.contrast), "against_baseline": f.baseline_outcome, "sentence": causal(f),
                    }
                    for f in one.causal
                ],
            }
            for one in survey.verdicts
        ],
        "arms": [
            {
                "student": one.student,
                "arm": one.arm,
                "setting": one.setting,
                "cells": [run.cell.label for run in one.runs],
                "total": _estimate(one.total),
                "total_pooled": _estimate(one.pooled),
                "benchmarks": {name: _estimate(found) for name, found in one.benchmarks.items()},
                "rewards": {name: _estimate(found) for name, found in one.rewards.items()},
                "perplexity": _estimate(one.ppl),
                "retention": _estimate(one.retention),
                "figures": {name: _number(number) for name, number in one.figures.items()},
            }
            for one in survey.summaries
        ],
        "contrasts": [{"student": c.student, "setting": c.setting, "arm": c.arm, "minus": c.other, "question": c.question, **_contrast(c)} for c in survey.contrasts],
        "correlations": [
            {
                "student": one.student, "setting": one.setting, "measure": one.measure, "rho": _number(one.correlation.rho), "n": one.correlation.n,
                "p": _number(one.correlation.p), "claimed": one.correlation.claimed,
            }
            for one in survey.ties
        ],
        "axis": [
            {
                "family": one.family, "setting": one.setting, "axis": one.axis, "value": one.x, "student": one.student,
                "untuned": _estimate(one.base.total) if one.base else None, "prompted": {other.arm: _estimate(other.total) for other in one.prompted},
                "n_solvable": _number(one.solvable), "detectable": _number(one.detectable),
            }
            for one in survey.axis
        ],
        "selection": [
            {
                "student": one.student, "setting": one.setting, "stream": one.stream, "within_correlation": _number(one.within_correlation),
                "chosen": None if one.chosen is None else {"arm": one.chosen.arm, "decided": one.chosen.decided, "why": one.chosen.why},
                "equal": [list(labels) for labels in one.equal],
                "contrasts": [{"arm": c.arm, "minus": c.other, **_contrast(c)} for c in one.contrasts],
            }
            for one in survey.frontiers
        ],
        "cost": {
            "gpu_hours": sum(one.gpu_hours for one in survey.costs), "hours": sum(one.hours for one in survey.costs), "usd": sum(one.usd for one in survey.costs),
        },
        "warnings": survey.faults,
    }  # fmt: skip


def finished(survey: Survey) -> float | None:
    """When the last result was made, in seconds since 1970."""
    return max((one.finished for one in survey.origins if math.isfinite(one.finished)), default=None)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _estimate(one: Estimate | None) -> dict[str, Any] | None:
    if one is None or not math.isfinite(one.value):
        return None
    names = ("value", "low", "high", "low90", "high90", "se", "df")
    return {**{name: _number(getattr(one, name)) for name in names}, "n": one.n, "seeds": one.seeds, "method": one.method}


def _contrast(one: Contrast) -> dict[str, Any]:
    needed = None if one.needed is None else {name: getattr(one.needed, name) for name in ("problems", "samples", "seeds", "goal")}
    return {
        "total": _estimate(one.total),
        "p": _number(one.total.p) if one.total is not None else None,
        "p_holm": _number(one.p_holm),
        "family": one.family,
        "detectable": _number(one.detectable),
        "needed": needed,
        "fault": one.fault or None,
    }
