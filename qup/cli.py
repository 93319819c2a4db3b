"""The console command: launches studies, and looks after them and their stores."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from qup.errors import InputError, QupError, machine_fault

Handler = Callable[[argparse.Namespace, Console], int]


def _launch(args: argparse.Namespace, console: Console) -> int:
    raise InputError("`launch` comes first: qup launch …; where studies are presented is study.dir=")


def _status(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.commands.status import list_studies, show

    if args.study is None:
        return list_studies(args.dir, console)
    return show(args.study, args.dir, console, as_json=args.json, watch=args.watch)


def _retry(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.commands.retry import retry

    return retry(args.study, args.dir, console, stages=args.stage, code=args.code, mem=args.mem, time=args.time)


def _cancel(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.commands.cancel import cancel

    return cancel(args.study, args.dir, console, cell=args.cell)


def _rm(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.commands.rm import remove

    return remove(args.study, args.dir, console)


def _wait(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.commands.wait import wait

    return wait(args.study, args.dir, console)


def _logs(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.commands.logs import show_log

    return show_log(args.study, args.dir, args.cell, args.stage, follow=args.follow)


def _explain(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.commands.explain import explain

    return explain(args.study, args.dir, args.cell, console)


def _report(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.results import finish
    from qup.study import find_study

    if args.index:
        return _index(args, console)
    if not args.study:
        raise InputError("qup report: which study? Name one or more, or give --index for a page over all of them")
    for study in [find_study(name, args.dir, ran=True) for name in args.study]:
        out = args.out / study.name if args.out else study.folder / "report"
        finish(study, console, out=out)
        if args.open:
            _open(out / "report.html", console)
    return 0


def _index(args: argparse.Namespace, console: Console) -> int:
    from qup.analysis.page.index import write_index
    from qup.analysis.report import writing
    from qup.study import Study, find_study, studies_in

    folders = [find_study(name, args.dir).folder for name in args.study]
    folders = folders or [folder for folder in studies_in(args.dir) if not Study.load(folder).dry_run]
    if not folders:
        raise InputError(f"--dir={args.dir}: no study is there")
    out = args.out or args.dir
    with writing(out):
        page = write_index(folders, out / "index.html")
    console.print(f"index   {page}")
    if args.open:
        _open(page, console)
    return 0


def _open(page: Path, console: Console) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        console.print(f"no browser could be started; open {page.resolve()}")


def _compare(args: argparse.Namespace, console: Console) -> int:
    from qup.analysis.compare import show_comparison
    from qup.study import find_study

    return show_comparison(find_study(args.a, args.dir, ran=True).folder, find_study(args.b, args.dir, ran=True).folder, console)


def _measures(args: argparse.Namespace, console: Console) -> int:
    from qup.analysis.measures import show_measures
    from qup.study import find_study

    return show_measures(find_study(args.study, args.dir), console)


def _rank(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.rank import rank

    files = [word for word in args.words if "=" not in word]
    return rank(files, [word for word in args.words if "=" in word], args.store, args.sample, console)


def _sync(args: argparse.Namespace, console: Console) -> int:
    from qup.study import find_study
    from qup.tracking import sync_study

    return sync_study(find_study(args.study, args.dir, ran=True).folder, console)


def _init(args: argparse.Namespace, console: Console) -> int:
    from qup.commands.init import init

    return init(args.folder, console)


def _schema(args: argparse.Namespace, console: Console) -> int:
    from qup.commands.schema import show_schema

    return show_schema(args.name, args.to, console)


def _export(args: argparse.Namespace, console: Console) -> int:
    from qup.export import export

    return export(args.what, args.to, args.study, args.dir, console, args.format, repo=args.push, public=args.public)


def _answers(args: argparse.Namespace, console: Console) -> int:
    from qup.answers.explanation import explain

    for step, found in explain(args.answer, args.gold, args.timeout_s):
        console.print(f"[bold]{step}[/bold]", end="  ")
        console.print(found, markup=False)
    return 0


def _store(args: argparse.Namespace, console: Console) -> int:
    from qup.launch.commands.store import collect_garbage, list_artifacts, show_artifact, verify_artifacts
    from qup.store import Store

    store = Store(args.store)
    if not store.root.is_dir():
        raise InputError(f"--store={args.store}: no such directory; store.dir of the launches is meant")
    match args.action:
        case "ls":
            return list_artifacts(store, console)
        case "show":
            return show_artifact(store, args.artifact, console)
        case "verify":
            return verify_artifacts(store, console)
        case _:
            return collect_garbage(store, console, dry_run=args.dry_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qup", description="Launches studies, and looks after them and their stores. The settings of a launch: qup launch --help"
    )
    parser.add_argument("--dir", type=Path, default=Path("multirun"), help="where studies are presented (study.dir); default multirun")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, handler: Handler, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.set_defaults(handler=handler)
        made.add_argument("--dir", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return made

    # Hydra reads what follows `launch`, before this parser sees it
    command("launch", _launch, "one cell, or with -m a grid of them; what follows are Hydra's overrides")

    answers = command("answers", _answers, "explains one verdict: whether an answer is the same as a gold answer, step by step")
    answers.add_argument("answer", help="as a response writes it")
    answers.add_argument("gold", help="as the data set writes it")
    answers.add_argument("--timeout-s", type=float, default=5.0, help="seconds of CPU a comparison may take (default: %(default)s)")

    status = command("status", _status, "a row a cell, one glyph a stage: stored, queued, running, failed and why")
    status.add_argument("study", nargs="?", help="without it: what studies there are")
    status.add_argument("--watch", action="store_true", help="refresh until the study ends")
    status.add_argument("--json", action="store_true", help="for programs")

    retry = command("retry", _retry, "submit again what failed or was lost")
    retry.add_argument("study")
    retry.add_argument("--stage", action="append", default=[], help="only this stage kind; may be repeated")
    retry.add_argument("--code", choices=("frozen", "live"), default="frozen", help="live: freeze the code anew")
    retry.add_argument("--mem", metavar="xN", help="so many times the memory, where it ran out")
    retry.add_argument("--time", metavar="xN", help="so many times the time, where it ran out")

    cancel = command("cancel", _cancel, "cancel a study's jobs, or one cell's; what another study needs is left")
    cancel.add_argument("study")
    cancel.add_argument("cell", nargs="?")

    rm = command("rm", _rm, "unregister studies that have ended, with their logs and reports; what they stored stays until store gc")
    rm.add_argument("study", nargs="+")

    wait = command("wait", _wait, "wait for a study to end; the exit status tells how")
    wait.add_argument("study")

    logs = command("logs", _logs, "the log of one stage of one cell")
    logs.add_argument("cell", help="label or number of the cell, as status shows it")
    logs.add_argument("stage", help="stage kind")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    logs.add_argument("--study", help="needed where several studies are there")

    explain = command("explain", _explain, "which stages of a cell are stored, and which field, file or input changed a key")
    explain.add_argument("cell", help="label or number of the cell, as status shows it")
    explain.add_argument("--study", help="needed where several studies are there")

    report = command("report", _report, "build the report from the store, also while a study runs")
    report.add_argument("study", nargs="*")
    report.add_argument("--open", action="store_true", help="show it in the browser")
    report.add_argument(
        "--index", action="store_true", help="one page over all studies of a folder, or those named: date, arms, answer, link"
    )
    report.add_argument("--out", type=Path, help="write it there: for stores you may only read")

    compare = command("compare", _compare, "two studies side by side")
    compare.add_argument("a")
    compare.add_argument("b")

    measures = command("measures", _measures, "what would have told us: every measure as a predictor of the study's utility")
    measures.add_argument("study")

    ranked = command("rank", _rank, "rank teachers' traces for a student by every measure; nothing is trained")
    ranked.add_argument(
        "words", nargs="+", metavar="FILE|SETTING", help="files of traces, and settings: model=… problems=… problems.path=…"
    )
    ranked.add_argument("--sample", type=int, default=64, help="problems drawn of those that all teachers have; default 64")
    ranked.add_argument("--store", type=Path, default=Path("store"), help="store.dir; default store")

    sync = command("sync", _sync, "replay the local metric logs into W&B")
    sync.add_argument("study")

    export = command("export", _export, "a cell's model, a stream, or a cell's evaluation, for other tools")
    export.add_argument("what", help="a cell's label or number, or stream/<key>")
    export.add_argument("to", type=Path, help="directory to make")
    export.add_argument(
        "--format", choices=("lm-eval", "lighteval"), help="a cell's evaluation, sample by sample, as this harness lays it out"
    )
    export.add_argument(
        "--push", metavar="OWNER/NAME", help="send it to this new repository of the hub as well, private; the token is $HF_TOKEN"
    )
    export.add_argument("--public", action="store_true", help="with --push: for everyone to see")
    export.add_argument("--study", help="needed where several studies are there")

    init = command("init", _init, "a folder of your own with problems, traces, a benchmark and an experiment that runs at once")
    init.add_argument("folder", type=Path, help="folder to make")

    schema = command("schema", _schema, "JSON schemas of the YAML files, by which editors complete and check them")
    schema.add_argument(
        "name", nargs="?", help="a section, such as trainer; without it: files with @package _global_, experiments above all"
    )
    schema.add_argument("--to", type=Path, metavar="DIR", help="write them there, all where none is named")

    store = command("store", _store, "what the store holds")
    store.add_argument("--store", type=Path, default=Path("store"), help="store.dir; default store")
    actions = store.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="every artifact, with size and time")
    shown = actions.add_parser("show", help="one artifact's manifest")
    shown.add_argument("artifact", help="stage/key; the key may be shortened")
    actions.add_parser("verify", help="compare every file with its checksum")
    collected = actions.add_parser("gc", help="remove what no registered study and no running stage needs")
    collected.add_argument("--dry-run", action="store_true", help="only say what would go")
    for action in actions.choices.values():
        action.add_argument("--store", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exits 0, or 1 with one message on stderr, or 2 for wrong arguments."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["launch"]:
        from qup.commands.launch import main as launch

        return launch(given[1:])
    args = _parser().parse_args(given)
    handler: Handler = args.handler
    try:
        from qup.launch.console import make_console

        status = handler(args, make_console())
    except QupError as error:
        print(f"qup: {error}", file=sys.stderr)
        status = 1
    except BrokenPipeError:
        status = 0
    except OSError as error:
        told = machine_fault(error)
        if told is None:
            raise
        print(f"qup: {told}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
