"""The rounds of a labeling loop: choose, predict, label, take, train, compare.

Each stage leaves its result on the disk and in the state of the loop before the next one begins, so a loop that was
stopped anywhere goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from d2tune import files
from d2tune.annotate import open_labelme
from d2tune.errors import DataError, MachineError, ProjectError, check_path, check_range
from d2tune.label_loop import training
from d2tune.label_loop.choosing import candidates, check_model, choose, gather, propose, round_images
from d2tune.label_loop.data import LoopData, read_loop_data
from d2tune.label_loop.state import LoopState, Round, read_state, write_state
from d2tune.label_loop.taking import CHECKED, check_seen, places_of, seen_images, take
from d2tune.project import LoadedProject, load_overridden
from d2tune.run_folder import ensure_writable, latest_run
from d2tune.run_lock import locked
from d2tune.runs.load import load_model
from d2tune.text import counted

Say = Callable[[str], None]

LABELS = "labels.txt"
"""File of the labels in the folder of a round, as Labelme reads it."""

_LENGTHS = ("train.iterations", "train.epochs", "SOLVER.MAX_ITER")
_WEIGHTS = ("weights", "MODEL.WEIGHTS")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """How a loop is run.

    Attributes:
        images: Images of a round.
        model: The run or package that the first round of this call begins with; None is the latest run.
        opens: Whether Labelme is opened; otherwise the images are listed.
        labelme: The command that starts Labelme; None is the installed one.
        num_gpus: GPUs to train on; None takes one where there is one.
        keeps_length: Whether the length of a training was given, and is not shortened where it continues another one.
        keeps_weights: Whether the weights that a training begins with were given.
    """

    images: int = 20
    model: Path | None = None
    opens: bool = True
    labelme: str | None = None
    num_gpus: int | None = None
    keeps_length: bool = False
    keeps_weights: bool = False


def label_loop(
    project: str | Path,
    folder: str | Path,
    *,
    rounds: int | None = None,
    images: int = 20,
    model: str | Path | None = None,
    opens: bool = True,
    labelme: str | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    num_gpus: int | None = None,
    say: Say = print,
    ask: Callable[[], bool] | None = None,
) -> list[Round]:
    """Run rounds of labeling: predict on unlabeled images, correct in Labelme, train on, compare.

    Args:
        project: The project file, whose training split is a folder of Labelme files or a list of its images.
        folder: The folder of the images to label.
        rounds: How many rounds to finish; None is one, and as many more as ``ask`` says.
        images: Images of a round.
        model: A run or package to begin with; None is the latest run of the project.
        opens: Whether to open Labelme; otherwise the images are listed, and the next call takes what was corrected.
        labelme: The command that starts Labelme; None is the installed one.
        profile: A profile of the project.
        overrides: ``key=value`` settings of the project.
        num_gpus: GPUs to train on; None takes one where there is one.
        say: Receives a line for each step.
        ask: Asked after each round whether another one follows; None does not ask.

    Returns:
        The rounds that this call finished.

    Raises:
        D2TuneError: The project, the folder, the model or a corrected file cannot be used, or Labelme ended abnormally.
    """
    for place, path in {"project": project, "folder": folder, "--model": model}.items():
        check_path(path, place=place)
    check_range(images, place="--images", least=1)
    check_range(1 if rounds is None else rounds, place="--rounds", least=1)
    has_gpu = num_gpus != 0 and torch.cuda.is_available()
    loaded = load_overridden(project, profile=profile, words=overrides, wandb=False, has_gpu=has_gpu)
    options = LoopOptions(
        images=images,
        model=None if model is None else Path(model),
        opens=opens,
        labelme=labelme,
        num_gpus=num_gpus,
        keeps_length=any(word.split("=")[0] in _LENGTHS for word in overrides),
        keeps_weights=any(word.split("=")[0] in _WEIGHTS for word in overrides),
    )
    loop = LabelLoop(loaded, Path(folder), options, say)
    done: list[Round] = []
    ensure_writable(loop.path)
    with locked(loop.path):
        while (one := loop.round(is_first=not done)) is not None:
            done.append(one)
            if len(done) == rounds or (rounds is None and not (ask is not None and ask())):
                break
    return done


class LabelLoop:
    """A labeling loop of a project.

    Args:
        loaded: The project.
        folder: The folder of the images to label.
        options: How it is run.
        say: Receives a line for each step.
    """

    def __init__(self, loaded: LoadedProject, folder: Path, options: LoopOptions, say: Say) -> None:
        self.path = Path("runs") / loaded.project.name / "label_loop"
        self._loaded = loaded
        self._folder = folder
        self._options = options
        self._say = say
        self._data: LoopData | None = None

    def round(self, *, is_first: bool) -> Round | None:
        """Do what is left of the round that is not done, or a new round.

        Args:
            is_first: Whether it is the first one of this call.

        Returns:
            The round; None if it stopped because a person has not labeled anything, or no image is left.
        """
        state = read_state(self.path) or LoopState(folder=str(self._folder.resolve()))
        one = state.open_round
        if one is None:
            model = self._options.model if is_first and self._options.model is not None else self._latest(state)
            one = Round(number=len(state.rounds) + 1, model=None if model is None else str(model.resolve()))
            state.folder = str(self._folder.resolve())
            state.rounds.append(one)
        else:
            self._check_continued(state, one)
            self._say(f"round {one.number} goes on: {one.stage}")
        stages = {
            "choose": lambda: self._choose(state, one, is_first=is_first),
            "predict": lambda: self._predict(one),
            "label": lambda: self._label(one),
            "take": lambda: self._take(one),
            "train": lambda: self._train(state, one),
            "compare": lambda: self._compare(one),
        }
        while one.stage != "done":
            follows = stages[one.stage]()
            if one.images:
                write_state(self.path, state)
            if not follows:
                return None
        return one

    def _check_continued(self, state: LoopState, one: Round) -> None:
        """Refuse arguments that are not those of the round that is not done."""
        if state.folder != str(self._folder.resolve()):
            raise DataError(
                f"round {one.number} is not finished, and has the images of another folder",
                file=self._folder,
                expected=state.folder,
                hint="Finish that round first.",
            )
        model = self._options.model
        if model is not None and str(model.resolve()) != one.model:
            raise ProjectError(
                f"round {one.number} is not finished, and has another model",
                place="--model",
                found=str(model),
                expected=str(one.model),
                hint="Finish that round first, without --model.",
            )

    def _latest(self, state: LoopState) -> Path | None:
        """The run that the next round begins with: the latest, unless the last round made it worse."""
        latest = latest_run(self._loaded.project.name, having="checkpoints/model_best.pth")
        if latest is None:
            return None
        last = state.rounds[-1] if state.rounds else None
        if last is None or not last.is_worse or last.run != str(latest.path.absolute()):
            return latest.path
        return None if last.model is None else Path(last.model)

    def _round_folder(self, one: Round) -> Path:
        return self.path / f"round_{one.number}"

    def _read_data(self, *, anew: bool = False) -> LoopData:
        if self._data is None or anew:
            self._data = read_loop_data(self._loaded)
        return self._data

    # stages, which return whether the next stage follows

    def _choose(self, state: LoopState, one: Round, *, is_first: bool) -> bool:
        data = self._read_data(anew=True)
        model = None if one.model is None else Path(one.model)
        if model is not None:
            check_model(model, data)
        unlabeled = candidates(self._folder, data, self.path)
        self._say(f"round {one.number}: {self._folder}: {unlabeled.note}")
        if not unlabeled.images.paths:
            if is_first:
                raise DataError("all images are labeled", file=self._folder, hint="Add images, or name another folder.")
            self._say("all images are labeled")
            return False
        training.freeze_split(state, data, self.path)
        folder = self._round_folder(one)
        folder.mkdir(parents=True, exist_ok=True)
        paths, note = choose(model, unlabeled, data, folder, count=self._options.images)
        self._say(note)
        one.images = round_images(paths)
        one.stage = "predict"
        return True

    def _predict(self, one: Round) -> bool:
        folder = self._round_folder(one)
        gather(one.images, folder)
        propose(None if one.model is None else Path(one.model), one.images, folder)
        files.write_text(folder / LABELS, "".join(f"{label}\n" for label in self._read_data().labels))
        one.stage = "label"
        return True

    def _label(self, one: Round) -> bool:
        folder, data = self._round_folder(one), self._read_data()
        if self._options.opens and not (one.is_listed and seen_images(one.images, folder)):
            self._say(
                f"Labelme opens with {counted(len(one.images), 'image')}. Each one that you save is trained on; tick "
                f"the flag {CHECKED!r} of an image that needs no change. Close the window when you are done."
            )
            status = open_labelme(folder, folder, data.labels, flags=[CHECKED], labelme=self._options.labelme)
            if status:
                raise MachineError(
                    f"Labelme ended with status {status}; {len(seen_images(one.images, folder))} of "
                    f"{counted(len(one.images), 'image')} are saved",
                    file=folder,
                    hint="The same command opens Labelme again; with --no-open it takes what is saved.",
                )
        seen = seen_images(one.images, folder)
        if not seen:
            self._say_unseen(one, folder)
            return False
        check_seen(seen, folder, data)
        one.taken = places_of(seen, data, self._folder)
        one.stage = "take"
        return True

    def _say_unseen(self, one: Round, folder: Path) -> None:
        """Say that nothing was labeled; without Labelme, list the images."""
        if self._options.opens:
            self._say("no image was changed or checked, so nothing is trained; the same command opens Labelme again")
            return
        self._say(f"{counted(len(one.images), 'image')} to label, with the labels in {folder / LABELS}:")
        for image in one.images:
            self._say(str(folder / image.name))
        self._say("save their Labelme files beside them; the same command then takes what was changed, and trains on")
        one.is_listed = True

    def _take(self, one: Round) -> bool:
        take(one.taken, one.images, self._round_folder(one))
        left = len(one.images) - len(one.taken)
        proposals = f"; {counted(left, 'image')} unchanged, not trained on" if left else ""
        self._say(f"{counted(len(one.taken), 'image')} added to the training split{proposals}")
        one.stage = "train"
        return True

    def _train(self, state: LoopState, one: Round) -> bool:
        data = self._read_data(anew=True)
        training.freeze_split(state, data, self.path)
        one.train_list = training.write_train_list(state, self._round_folder(one))
        if one.run is None or not training.can_be_resumed(Path(one.run)):
            one.weights, one.iterations = None, None
            if one.model is not None and not self._options.keeps_weights:
                one.weights = training.starting_weights(load_model(one.model), self._loaded.project)
            elif one.model is not None:
                self._say(f"the training begins with the weights that are given, not with those of {one.model}")
            project = training.round_project(self._loaded, state, one).project
            if one.weights is not None and not self._options.keeps_length:
                one.iterations = training.continued_iterations(project, images=training.training_images(data, one))
            one.run = training.new_run_folder(project)
            write_state(self.path, state)
        training.train_round(
            training.round_project(self._loaded, state, one), Path(one.run), num_gpus=self._options.num_gpus
        )
        one.stage = "compare"
        return True

    def _compare(self, one: Round) -> bool:
        assert one.run is not None
        run, folder = Path(one.run), self._round_folder(one)
        comparison = None
        if one.model is not None:
            comparison = training.compare_rounds(Path(one.model), run, folder)
        if comparison is None:
            one.is_worse = False
            one.sentence = f"Round {one.number} is not compared with an earlier run; it is {run}."
        else:
            self._say(comparison.table())
            one.sentence = training.sentence_of(one.number, comparison)
            one.is_worse = comparison.metrics[comparison.main].better == "A"
        self._say(one.sentence)
        if one.is_worse:
            self._say(f"The next round begins with the earlier one again, {one.model}.")
        one.stage = "done"
        return True
