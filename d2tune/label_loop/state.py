"""What a labeling loop has done so far, in a file, so that it goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from d2tune import files
from d2tune.errors import RunError
from d2tune.text import reason_of

NAME = "label_loop.json"
"""Name of the file in the folder of a loop."""

Stage = Literal["choose", "predict", "label", "take", "train", "compare", "done"]


class _Entries(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class RoundImage(_Entries):
    """An image of a round.

    Attributes:
        name: Its file name in the folder of the round.
        source: The image file itself.
    """

    name: str
    source: str


class TakenImage(_Entries):
    """An image whose annotations a person has seen, and that is trained on.

    Attributes:
        name: Its file name in the folder of the round.
        image: The image file that is trained on.
        annotation: Its Labelme file.
        listed: Its name in lists of images.
    """

    name: str
    image: str
    annotation: str
    listed: str


class Round(_Entries):
    """A round.

    Attributes:
        number: From 1.
        stage: What comes next.
        model: The run or package that predicted; None where there was none yet.
        images: The images, most uncertain first.
        is_listed: Whether the images were listed, to be labeled without the loop.
        taken: The images that a person has seen.
        run: The run folder of the training.
        weights: The file that the training starts from; None for those of the project.
        iterations: Its optimizer steps; None for those of the project.
        train_list: List of the training images, where the project does not find them by itself.
        sentence: The result.
        is_worse: Whether the new weights are significantly worse than the earlier ones.
    """

    number: int = Field(ge=1)
    stage: Stage = "choose"
    model: str | None = None
    images: list[RoundImage] = []
    is_listed: bool = False
    taken: list[TakenImage] = []
    run: str | None = None
    weights: str | None = None
    iterations: int | None = None
    train_list: str | None = None
    sentence: str | None = None
    is_worse: bool = False


class LoopState(_Entries):
    """A loop.

    Attributes:
        label_loop: Version of the file.
        folder: The folder of the images of the last round.
        base_list: List of the training images before the first round, where a list is needed.
        val_list: List of the validation images, where the project does not name them.
        rounds: The rounds; all but the last one are done.
    """

    label_loop: Literal[1] = 1
    folder: str
    base_list: str | None = None
    val_list: str | None = None
    rounds: list[Round] = []

    @property
    def open_round(self) -> Round | None:
        """The round that is not done."""
        return self.rounds[-1] if self.rounds and self.rounds[-1].stage != "done" else None

    @property
    def taken(self) -> list[TakenImage]:
        """The images of all rounds that a person has seen."""
        return [image for one in self.rounds for image in one.taken]


def read_state(loop: Path) -> LoopState | None:
    """The state of a loop; None before the first round.

    Args:
        loop: The folder of the loop.

    Raises:
        RunError: The file is damaged, or of a newer version.
    """
    path = loop / NAME
    hint = "Restore the file, or move it away to begin with a first round; labeled files stay where they are."
    try:
        return LoopState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or None
        raise RunError(
            "the state of the loop is damaged", file=path, place=place, found=first["msg"], hint=hint
        ) from None
    except OSError as error:
        raise RunError(f"the state of the loop cannot be read: {reason_of(error)}", file=path, hint=hint) from None


def write_state(loop: Path, state: LoopState) -> None:
    """Write the state atomically."""
    files.write_text(loop / NAME, json.dumps(state.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")
