"""The tokenizers of the students whose stages are to run, tried before anything is spent."""

from __future__ import annotations

from qup.config.schema import Model
from qup.errors import ConfigError, Fault, InputError
from qup.launch.plan import Plan


def check_tokenizers(plan: Plan) -> None:
    """Raises ConfigError naming each student whose tokenizer, as loaded here, isn't what its files say."""
    if faults := tokenizer_faults_of(plan):
        raise ConfigError(faults)


def tokenizer_faults_of(plan: Plan) -> list[Fault]:
    """One fault a student. A hub name whose files can't be had here is left to the stage, which tries it before its first draw."""
    models: dict[str, Model] = {}
    for planned in plan.to_run.values():
        model = getattr(planned.node.view, "model", None)
        if isinstance(model, Model) and model.lab is None:
            models[f"{model.path}@{model.content}/{model.gguf_file}/{model.template}"] = model
    return [fault for model in models.values() for fault in _faults(model)]


def _faults(model: Model) -> list[Fault]:
    from qup.config.paths import local
    from qup.models.load import gguf_path, load_tokenizer, placed, tokenizer_file
    from qup.models.probe import tokenizer_faults

    if gguf_path(model) is not None:
        # it has to be dequantised first, which takes longer than a plan may
        return []
    try:
        tokenizer = load_tokenizer(model)
        wrong = tokenizer_faults(tokenizer, model.template, tokenizer_file(placed(model), "tokenizer.json"))
    except InputError as error:
        return [Fault("model.path", model.path, str(error))] if local(model.path) is not None else []
    return [Fault("model.path", model.path, why) for why in wrong]
