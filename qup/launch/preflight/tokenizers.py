"""The tokenizers of the students whose stages are to run, tried before anything is spent."""

from __future__ import annotations

from qup.config.paths import is_commit, local
from qup.config.schema import Model
from qup.errors import ConfigError, Fault, InputError
from qup.launch.plan import Plan
from qup.models.apart import of_model
from qup.models.load import gguf_path
from qup.models.probe import faults_as_loaded


def check_tokenizers(plan: Plan) -> None:
    """Raises ConfigError naming each student whose tokenizer, as loaded here, isn't what its files say. Downloads those on the hub."""
    if faults := tokenizer_faults_of(plan, download=True):
        raise ConfigError(faults)


def tokenizer_faults_of(plan: Plan, *, download: bool = False) -> list[Fault]:
    """One fault a student. A hub name that isn't here is left to the stage, which tries it before its first draw."""
    models: dict[str, Model] = {}
    for planned in plan.to_run.values():
        model = getattr(planned.node.view, "model", None)
        if isinstance(model, Model) and model.lab is None:
            models[f"{model.path}@{model.content}/{model.gguf_file}/{model.template}"] = model
    return [fault for model in models.values() for fault in _faults(model, download)]


def _faults(model: Model, download: bool) -> list[Fault]:
    if gguf_path(model) is not None:
        # it has to be dequantised first, which takes longer than a plan may
        return []
    on_hub = local(model.path) is None
    here = on_hub and _downloaded(model)
    # where the hub told no commit it can't be reached, and asking again takes minutes
    if on_hub and not here and not (download and is_commit(model.content)):
        return []
    try:
        wrong = of_model(faults_as_loaded, model, here)
    except InputError as error:
        return [] if on_hub else [Fault("model.path", model.path, str(error))]
    return [Fault("model.path", model.path, why) for why in wrong]


def _downloaded(model: Model) -> bool:
    from huggingface_hub import try_to_load_from_cache

    commit = model.content if is_commit(model.content) else model.revision
    return isinstance(try_to_load_from_cache(model.path, "tokenizer_config.json", revision=commit), str)
