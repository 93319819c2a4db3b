"""Whether two shapes are the same answer: True, False, or None where it is not certain. docs/answers.md has the rules."""

from __future__ import annotations

from qup.answers.reading.shapes import Known, Matrix, Quantity, Ratio, Relation, Sequence, Sets, Shape
from qup.answers.sameness import quantities, relations, sequences, sets, texts
from qup.answers.sameness.logic import NotMine, Same, Verdict


def same(answer: Shape, gold: Shape) -> Verdict:
    """Whether two shapes are the same answer."""
    if answer == gold and not isinstance(answer, Quantity | Matrix | Ratio):
        return True
    uncertain = False
    for rule in _RULES:
        try:
            found = rule(answer, gold, same)
        except NotMine:
            continue
        if found is None:
            uncertain = True
            continue
        return found if found or not uncertain else None
    return None if uncertain else False


def _real_sets(answer: Shape, gold: Shape, same: Same) -> Verdict:
    """Intervals, inequalities about one name, and their unions, as sets of real numbers."""
    if not any(isinstance(side, Sets | Known | Relation) or _mixed(side) for side in (answer, gold)):
        raise NotMine
    if isinstance(answer, Known) and isinstance(gold, Known):
        return answer.name == gold.name
    return sets.same_sets(answer, gold, same)


def _mixed(shape: Shape) -> bool:
    return isinstance(shape, Sequence) and any(isinstance(part, Relation) for part in shape.parts)


_RULES = (
    quantities.compare_numerals,
    texts.compare_texts,
    quantities.compare_quantities,
    quantities.compare_ratios,
    quantities.compare_matrices,
    sequences.compare_sequences,
    relations.compare_relations,
    _real_sets,
)
