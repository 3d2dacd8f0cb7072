"""The command ``d2tune``: parse, call one function, print."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2tune.errors import D2TuneError, ProjectError, printable

if TYPE_CHECKING:
    from d2tune.annotations.model.options import ReadOptions
    from d2tune.evaluation.evaluate import EvaluationResult
    from d2tune.evaluation.map_files import MapsResult

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words after ``d2tune``; None takes the process's own.

    Returns:
        The exit status: 0, or 1 after a mistake that was told in one line.
    """
    options, rest = _parser().parse_known_args(arguments)
    if rest and (options.run_name != "train" or any(word.startswith("-") for word in rest)):
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        # argparse gives a list of words once; overrides may also follow a later option
        options.words = [*options.words, *rest]
    from d2tune.hardware import yield_idle_cores
    from d2tune.logs import set_up_terminal

    yield_idle_cores()
    set_up_terminal(debug=options.debug)
    try:
        return int(options.run(options))
    except D2TuneError as error:
        if options.debug:
            raise
        print(f"error: {error.one_line()}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # the reader of a pipe, such as `head`, has seen enough; without this Python complains once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if options.debug:
            raise
        print(printable(f"error: {error.filename or 'the system'}: {error.strerror or error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="d2tune", description="Fine-tune Detectron2 on your own polygons.")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and every log line")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_doctor, _sample, _data, _annotate, _convert, _check, _split, _train, _evaluate, _compare, _predict):
        add(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction, name: str, run: Command, text: str, *aliases: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, aliases=list(aliases))
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, run_name=name)
    return parser


def _doctor(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune.doctor import examine, format_report

        report = examine()
        print(format_report(report))
        return 0 if report.ok else 1

    _command(commands, "doctor", run, "say what is installed and what this machine can do")


def _sample(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune.samples import render_sample

        made = render_sample(options.kind, options.out, images=options.images, seed=options.seed, force=options.force)
        print(made.summary())
        return 0

    parser = _command(commands, "sample", run, "render a labeled set of photo-like images, offline")
    parser.add_argument("kind", help="balloon, carvana, cells, chipset, crops, face, membrane, ships, steel or street")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, made if missing")
    parser.add_argument("--images", type=int, default=80, help="images in all (default: 80)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")
    parser.add_argument("--force", action="store_true", help="overwrite a folder that is not empty")


def _data(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune.project import load_project
        from d2tune.public_data import fetch

        loaded = load_project(options.project)
        fetched = fetch(
            loaded.project.name, options.out or loaded.project.data.root, url=options.url, force=options.force
        )
        print(fetched.summary())
        return 0

    parser = _command(commands, "data", run, "fetch a project's public photos and check every one of them")
    parser.add_argument("project", type=Path, help="projects/balloon.yaml")
    parser.add_argument("--out", type=Path, help="folder (default: the project's data folder)")
    parser.add_argument("--url", help="another address of the same archive")
    parser.add_argument("--force", action="store_true", help="overwrite a folder that is not empty")


def _annotate(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune.annotate import annotate

        return annotate(options.project, part=options.part)

    parser = _command(commands, "annotate", run, "draw polygons in Labelme, with the project's labels")
    parser.add_argument("project", type=Path)
    parser.add_argument("--part", default="train", choices=["train", "val"], help="which images (default: train)")


def _convert(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune import api
        from d2tune.annotations.convert import FindingsError, findings_table
        from d2tune.annotations.model.ledger import summary

        try:
            results = api.convert(options.source, **_convert_options(options))
        except FindingsError as error:
            print(findings_table(error.findings))
            print(summary(error.ledger))
            raise
        for result in results:
            if result.findings:
                print(findings_table(result.findings))
            print(summary(result.dataset.ledger))
            paths = [str(path) for path in result.paths[:3]]
            more = [f"and {len(result.paths) - 3} more"] if len(result.paths) > 3 else []
            print(f"{result.dataset.size_in_words()}: {printable(', '.join([*paths, *more])) or 'nothing to write'}")
            if not result.dataset.images:
                print("warning: no annotated image was read; is it the right folder and --format?", file=sys.stderr)
        return 0

    parser = _command(commands, "convert", run, "turn annotations of one format into another")
    _reading_arguments(parser)
    parser.add_argument("--to", default="coco", choices=["coco", "labelme", "semantic", "panoptic", "rle"])
    parser.add_argument(
        "--tolerance-px",
        type=float,
        default=1.0,
        help="how far outlines of predictions may lie off their masks in Labelme files (default: 1.0)",
    )
    parser.add_argument("--out", type=Path, help="folder; for COCO and run-length CSV also a file")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")


def _check(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune.annotations.convert import findings_table, write_findings
        from d2tune.annotations.model.ledger import summary, write_ledger
        from d2tune.checking import check

        results = check(options.source, **_check_options(options))
        findings = [finding for result in results for finding in result.findings]
        if options.findings:
            write_findings(options.findings, findings)
        if options.ledger:
            write_ledger(options.ledger, [row for result in results for row in result.dataset.ledger])
        for result in results:
            dataset = result.dataset
            if result.findings:
                print(findings_table(result.findings))
            print(summary(dataset.ledger))
            counts = ", ".join(f"{count} {name}" for name, count in dataset.counts().items())
            part = f"{result.part}: " if result.part else ""
            print(f"{part}{dataset.size_in_words()}" + (f" ({printable(counts)})" if counts else ""))
        if options.report:
            print(f"the page: {options.report}")
        return 1 if any(finding.level == "error" for finding in findings) else 0

    parser = _command(commands, "check", run, "read annotations as convert does, and only say what is wrong with them")
    _reading_arguments(parser)
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page that shows what is in the data")
    parser.add_argument("--splits", type=Path, help="folder of train.txt, val.txt, test.txt (default: splits in it)")


def _check_options(options: argparse.Namespace) -> dict[str, Any]:
    if options.splits and not options.report:
        raise ProjectError("--splits goes with --report", hint="The page shows the parts: --report check.html.")
    chosen: dict[str, Any] = {"strict": options.strict, "report": options.report}
    if options.source.suffix.lower() in (".yaml", ".yml"):
        if options.splits:
            raise ProjectError("--splits does not go with a project file", hint="A project names its parts itself.")
        return chosen | {"overrides": _reading_overrides(options)}
    return chosen | {"format": options.format, "options": _read_options(options), "splits": options.splits}


def _split(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune import api
        from d2tune.annotations.convert import FindingsError, findings_table
        from d2tune.report.split_table import split_report, written_lists

        try:
            made, out = api.split(options.source, **_split_options(options))
        except FindingsError as error:
            print(findings_table(error.findings))
            raise
        if made.dataset.findings:
            print(findings_table(made.dataset.findings), end="\n\n")
        print(f"{split_report(made)}\n\n{written_lists(made, out, options.source)}")
        return 0

    parser = _command(commands, "split", run, "divide annotated images into parts that have the same mix of classes")
    _reading_arguments(parser)
    parser.add_argument("--val", type=float, help="share of the images to validate on (default: 0.2)")
    parser.add_argument("--test", type=float, default=0.0, help="share to set aside for a last test (default: none)")
    parser.add_argument("--kfold", type=int, help="divide into this many folds; each validates the others once")
    parser.add_argument("--seed", type=int, default=0, help="decides between equally good divisions (default: 0)")
    parser.add_argument(
        "--group-by",
        metavar="RULE",
        help="keep together what has the same folder (folder), burst (exif-time), or first bracket or match of a "
        "pattern in its name: 'regex:^(board[0-9]+)_'",
    )
    parser.add_argument("--gap-s", type=float, help="with exif-time: longest gap within a burst (default: 60 s)")
    duplicates = parser.add_mutually_exclusive_group()
    duplicates.add_argument("--duplicate-distance", type=int, help="most bits between near-duplicates (default: 40)")
    duplicates.add_argument("--no-duplicates", action="store_true", help="do not look for near-duplicates")
    parser.add_argument("--out", type=Path, help="folder for the lists (default: splits in the source folder)")
    parser.add_argument("--force", action="store_true", help="replace the lists of another split")


def _split_options(options: argparse.Namespace) -> dict[str, Any]:
    from d2tune.annotations.splitting.duplicates import DEFAULT_DISTANCE
    from d2tune.annotations.splitting.splits import SplitOptions

    if options.gap_s is not None and options.group_by != "exif-time":
        raise ProjectError("--gap-s goes with --group-by exif-time", hint="Leave one out, or add the other.")
    distance = DEFAULT_DISTANCE if options.duplicate_distance is None else options.duplicate_distance
    how = SplitOptions(
        val=options.val,
        test=options.test,
        kfold=options.kfold,
        seed=options.seed,
        group_by=options.group_by,
        gap_s=60.0 if options.gap_s is None else options.gap_s,
        duplicate_distance=None if options.no_duplicates else distance,
    )
    return {
        "how": how,
        "out": options.out,
        "force": options.force,
        "format": options.format,
        "options": _read_options(options),
        "strict": options.strict,
        "findings_path": options.findings,
        "ledger_path": options.ledger,
    }


def _reading_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, help="annotations: a folder or a file; for convert and check also a project"
    )
    parser.add_argument(
        "--format",
        default="auto",
        help="labelme, via, coco, rle, voc, voc-masks, masks, label_images, panoptic (default: by content)",
    )
    parser.add_argument("--labels", type=Path, help="file of class names, one a line, in the order of their ids")
    parser.add_argument("--rename", default="", metavar="OLD=NEW,...", help="rename labels, or merge several into one")
    parser.add_argument("--drop", default="", metavar="LABEL,...", help="leave out the shapes with these labels")
    parser.add_argument("--image-root", type=Path, help="folder of the images (default: the source)")
    parser.add_argument("--stuff", default="", help="names of the classes that are stuff, separated by commas")
    parser.add_argument("--class-name", help="class of shapes that carry none (VIA, run-length CSV, mask images)")
    parser.add_argument("--class-attribute", help="VIA region attribute that holds the class")
    parser.add_argument(
        "--nested-groups",
        default="union",
        choices=["union", "hole"],
        help="a part inside another part of its group is united with it, or a hole (default: union)",
    )
    parser.add_argument(
        "--instance-suffix",
        default="keep",
        choices=["keep", "strip"],
        help="strip reads person-1 as an instance of person (default: keep)",
    )
    parser.add_argument("--pixel-offset", type=float, default=0.0, help="added to VIA coordinates, in pixels")
    parser.add_argument("--preset", help="run-length dialect: carvana, airbus, severstal")
    parser.add_argument("--color-map", type=Path, help="file of the colors in masks: name,r,g,b a line")
    parser.add_argument("--split-components", action="store_true", help="one instance per connected component")
    parser.add_argument("--allow-outside", action="store_true", help="let images lie outside the data folder")
    parser.add_argument("--include-unlabeled", action="store_true", help="take bare images as negatives")
    parser.add_argument("--no-predictions", action="store_true", help="leave out shapes flagged as predictions")
    parser.add_argument("--workers", type=int, help="processes that read Labelme files (default: by their number)")
    parser.add_argument("--findings", type=Path, help="write the findings to this JSON file")
    parser.add_argument("--ledger", type=Path, help="write what became of every shape to this CSV or JSON file")
    parser.add_argument("--strict", action="store_true", help="count warnings as errors")
    parser.add_argument("--skip-bad", action="store_true", help="leave out files with errors, and name them")


def _read_options(options: argparse.Namespace) -> ReadOptions:
    from d2tune.annotations.convert import read_labels, read_rename
    from d2tune.annotations.model.options import ReadOptions

    return ReadOptions(
        labels=read_labels(options.labels) if options.labels else None,
        image_root=options.image_root,
        stuff=tuple(name.strip() for name in options.stuff.split(",") if name.strip()),
        class_name=options.class_name,
        class_attribute=options.class_attribute,
        nested_groups=options.nested_groups,
        instance_suffix=options.instance_suffix,
        pixel_offset=options.pixel_offset,
        preset=options.preset,
        color_map=options.color_map,
        split_components=options.split_components,
        allow_outside=options.allow_outside,
        skip_bad=options.skip_bad,
        no_predictions=options.no_predictions,
        workers=options.workers,
        rename=read_rename(options.rename, options.drop),
        include_unlabeled=options.include_unlabeled,
    )


def _convert_options(options: argparse.Namespace) -> dict[str, object]:
    chosen: dict[str, object] = {
        "to": options.to,
        "strict": options.strict,
        "force": options.force,
        "findings_path": options.findings,
        "ledger_path": options.ledger,
        "tolerance_px": options.tolerance_px,
    }
    if options.source.suffix.lower() in (".yaml", ".yml"):
        chosen["overrides"] = _reading_overrides(options)
        return chosen | ({"out": options.out} if options.out else {})
    if options.out is None:
        raise ProjectError("--out is missing", hint="Name the folder or file that the annotations are written to.")
    return chosen | {"out": options.out, "format": options.format, "options": _read_options(options)}


_SAID_BY_A_PROJECT = ("format", "labels", "image_root", "class_name", "class_attribute", "rename", "drop")


def _reading_overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The reading options that were given beside a project file, which says itself what its data are."""
    plain = argparse.ArgumentParser()
    _reading_arguments(plain)
    nothing = plain.parse_args([str(options.source)])
    for name in _SAID_BY_A_PROJECT:
        if getattr(options, name) != getattr(nothing, name):
            option = f"--{name.replace('_', '-')}"
            raise ProjectError(
                f"{option} does not go with a project file", hint="Say it in the project's data section."
            )
    given, usual = _read_options(options), _read_options(nothing)
    names = [field.name for field in dataclasses.fields(given)]
    return {name: getattr(given, name) for name in names if getattr(given, name) != getattr(usual, name)}


def _train(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune import api

        words = list(options.words)
        config = options.config or (words.pop(0) if words else None)
        if config is None:
            raise ProjectError("which project?", hint="Name it: d2tune train projects/balloon.yaml")
        if options.out and not options.eval_only:
            raise ProjectError("--out goes with --eval-only", hint="The folder of a run is named with --output-dir.")
        if options.eval_only:
            return _run_eval_only(config, words, options)
        api.train(
            config,
            profile=options.profile,
            overrides=words,
            output_dir=options.output_dir,
            resume=options.resume,
            num_gpus=options.num_gpus,
            sample=not options.no_sample,
            wandb=options.wandb,
        )
        return 0

    parser = _command(commands, "train", run, "fine-tune a project, evaluate it and draw images")
    parser.add_argument("words", nargs="*", metavar="PROJECT.yaml key=value", help="project file, then overrides")
    parser.add_argument("--config", "--config-file", help="the project file, as Detectron2 users name it")
    parser.add_argument("--profile", help="gpu, cpu or another of the project's profiles (default: the hardware's)")
    parser.add_argument("--output-dir", type=Path, help="run folder (default: runs/<project>/<time>)")
    parser.add_argument("--resume", action="store_true", help="go on with the latest run, or with --output-dir")
    parser.add_argument("--eval-only", action="store_true", help="only score the latest run, or --output-dir")
    parser.add_argument("--out", type=Path, help="with --eval-only: folder for the results")
    parser.add_argument("--num-gpus", type=int, help="GPUs to train on (default: 1 where there is one; 0 is the CPU)")
    parser.add_argument("--no-sample", action="store_true", help="stop where the data are missing; render no sample")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases")


def _run_eval_only(config: str, words: list[str], options: argparse.Namespace) -> int:
    from d2tune import api
    from d2tune.project import parse_overrides

    keys, raw = parse_overrides(words)
    weights = str(keys.pop("weights", raw.pop("MODEL.WEIGHTS", "best")))
    given = {"--profile": options.profile, "--resume": options.resume, "--num-gpus": options.num_gpus is not None}
    given |= {"--no-sample": options.no_sample, "--wandb": options.wandb}
    unused = [*keys, *raw, *(name for name, value in given.items() if value)]
    if unused:
        raise ProjectError(
            f"{unused[0]} has no effect with --eval-only",
            hint="A run is scored with its own settings; only weights=FILE (or MODEL.WEIGHTS) can be named.",
        )
    return _print_evaluation(api.evaluate(options.output_dir or config, weights=weights, out=options.out))


def _print_evaluation(result: EvaluationResult | MapsResult) -> int:
    print(result.table)
    print(f"\n{result.sentence}")
    return 0


def _evaluate(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune import api

        chosen: dict[str, Any] = {"backend": options.backend}
        if options.metrics:
            chosen["metrics"] = tuple(dict.fromkeys(options.metrics))
        if options.predictions or options.ground_truth:
            both = _two_files(options)
            chosen["labels"] = options.labels
            return _print_evaluation(api.evaluate_files(*both, out=options.out or "evaluation", **chosen))
        if options.labels:
            raise ProjectError("--labels goes with --predictions", hint="A run knows its classes.")
        if options.run_folder is None:
            raise ProjectError("which run?", hint="Name it, or give --predictions and --ground-truth.")
        chosen |= {"weights": options.weights, "batch_size": options.batch_size}
        return _print_evaluation(api.evaluate(options.run_folder, data=options.data, out=options.out, **chosen))

    parser = _command(commands, "eval", run, "score a run, or any model's predictions from a file", "evaluate")
    parser.add_argument(
        "run_folder", type=Path, nargs="?", metavar="RUN", help="run folder, or a project file for its latest run"
    )
    parser.add_argument("--data", type=Path, help="other annotations with the same classes, or a list of images")
    parser.add_argument("--weights", default="best", help="best, final or a checkpoint file")
    parser.add_argument(
        "--predictions",
        type=Path,
        help="predictions of any model, instead of a run: COCO results, COCO panoptic, or a folder of label PNGs",
    )
    parser.add_argument("--ground-truth", type=Path, help="what --predictions belongs to, of the same kind")
    parser.add_argument("--labels", type=Path, help="with folders of label PNGs: file of class names, one a line")
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=["bbox", "segm", "boundary"],
        help="what to score (default: all that the predictions have)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "device", "faster-coco-eval", "pycocotools"],
        help="who matches detections with ground truth; the figures are the same",
    )
    parser.add_argument("--batch-size", type=int, help="images per forward pass (default: 8 on CUDA, 4 on the CPU)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: RUN/evaluation, or evaluation)")


def _two_files(options: argparse.Namespace) -> tuple[Path, Path]:
    if options.predictions is None or options.ground_truth is None:
        raise ProjectError("--predictions and --ground-truth go together", hint="Name both files.")
    if options.run_folder or options.data or options.weights != "best" or options.batch_size:
        raise ProjectError("with --predictions no model is run", hint="Leave out RUN, --data, --weights, --batch-size.")
    return options.predictions, options.ground_truth


def _compare(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune import api

        result = api.compare(options.a, options.b, ground_truth=options.ground_truth, out=options.out)
        print(f"A is {result.a}, B is {result.b}; {result.images} images\n")
        print(result.table())
        print(f"\n{result.verdict}.")
        return 0

    parser = _command(commands, "compare", run, "say whether run B is better than run A, by how much and how surely")
    parser.add_argument("a", type=Path, metavar="RUN_A", help="run folder, evaluation folder, or file of COCO results")
    parser.add_argument("b", type=Path, metavar="RUN_B", help="likewise, evaluated on the same data")
    parser.add_argument("--ground-truth", type=Path, help="COCO instances file, where A and B are files of results")
    parser.add_argument("--out", type=Path, help="folder for comparison.json")


def _predict(commands: argparse._SubParsersAction) -> None:
    def run(options: argparse.Namespace) -> int:
        from d2tune import api

        result = api.predict(
            options.run_folder,
            options.source,
            out=options.out,
            weights=options.weights,
            min_score=options.min_score,
            to=options.to,
            tolerance_px=options.tolerance_px,
            force=options.force,
        )
        for line in result.skipped:
            print(f"left out: {line}", file=sys.stderr)
        print(result.summary)
        return 0

    parser = _command(commands, "predict", run, "predict on images, and draw what is found")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder, or a project file for its latest run")
    parser.add_argument("source", type=Path, nargs="?", help="image or folder (default: the validation images)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: RUN/predictions)")
    parser.add_argument("--weights", default="best", help="best, final or a checkpoint file")
    parser.add_argument("--min-score", type=float, help="least score of an instance (default: 0.5)")
    parser.add_argument(
        "--to",
        default="auto",
        choices=["auto", "coco", "labelme", "csv"],
        help="what is written: COCO, label maps or segments with images, by the task; Labelme files; or the CSV of a "
        "competition",
    )
    parser.add_argument(
        "--tolerance-px", type=float, default=1.0, help="how far Labelme outlines may lie off the masks (default: 1.0)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite Labelme files that are there")
