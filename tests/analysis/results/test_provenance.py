"""What was lost on the way."""

from __future__ import annotations


def test_what_was_dropped_cut_and_asked_again_is_told(lab) -> None:
    losses = (lab[2].parent / "tables" / "losses.csv").read_text()
    for said in (
        "rollouts of lab_foreign,rollouts cut at the length limit,6.0,416.0",
        "verdicts of lab_foreign,right rollouts cut at the length limit (in no stream),2.0,416.0",
        "verdicts of lab_foreign,answers whose equality is undecided (counted wrong),5.0,416.0",
        "rollouts of lab_foreign,prompts that leave less of the context than the length limit,4.0,52.0",
        "solvable of lab_foreign,problems that the student never solved,7.0,52.0",
        'Oracle answers not accepted, asked again or given up",4.0,44.0',
        "Oracle requests sent again,4.0,44.0",
        "problems dropped from every stream,5.0,45.0",
    ):
        assert said in losses, said
