"""What a person says of an image and of its objects, as the page sends it and as the database keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from d2tune.acceptance.objects import ShownObject
from d2tune.errors import DataError

Verdict = Literal["right", "wrong"]
Kind = Literal["right", "false_alarm", "wrong_class", "bad_outline", "missed"]
Preference = Literal["left", "right", "same"]

KIND_WORDS: dict[Kind, str] = {
    "right": "right",
    "missed": "missed",
    "false_alarm": "false alarm",
    "wrong_class": "wrong class",
    "bad_outline": "bad outline",
}
"""The kinds of marks as a person reads them."""

MARKS = 2_000
_Person = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
_Comment = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000)]


class Strict(BaseModel):
    """A value whose unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Mark(Strict):
    """The judgment of one object, or of a place where one was missed.

    Attributes:
        kind: What is right or wrong.
        object: Number of the object; None for a missed one.
        x: Of a missed object, in pixels from the left.
        y: Of a missed object, in pixels from the top.
        class_name: The class that a missed object or one of a wrong class has; None where it is not known.
        comment: Free text.
    """

    kind: Kind
    object: int | None = Field(None, ge=1)
    x: float | None = Field(None, ge=0, allow_inf_nan=False)
    y: float | None = Field(None, ge=0, allow_inf_nan=False)
    class_name: str | None = None
    comment: _Comment = ""

    @model_validator(mode="after")
    def _has_a_place(self) -> Mark:
        is_missed = self.kind == "missed"
        if is_missed == (self.object is not None) or is_missed == (self.x is None or self.y is None):
            raise ValueError("a missed object has x and y, any other mark has the number of its object")
        return self

    @property
    def is_wrong(self) -> bool:
        """Whether it says that something is wrong."""
        return self.kind != "right"


class Judgment(Strict):
    """The judgment of an image and its objects.

    Attributes:
        verdict: Of the image as a whole; None where only objects are judged so far, or the verdict was taken back.
        comment: Free text.
        marks: At most one for each object.
        min_score: The lowest score of the objects that were shown.
        judged_by: Who says it.
    """

    verdict: Verdict | None = None
    comment: _Comment = ""
    marks: tuple[Mark, ...] = Field((), max_length=MARKS)
    min_score: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    judged_by: _Person

    @model_validator(mode="after")
    def _marks_each_object_once(self) -> Judgment:
        numbers = [mark.object for mark in self.marks if mark.object is not None]
        if len(numbers) != len(set(numbers)):
            raise ValueError("an object has several marks")
        return self

    def shown(self, objects: Sequence[ShownObject]) -> list[ShownObject]:
        """Those objects that were shown: with at least the lowest score, or without one."""
        return [one for one in objects if one.score is None or one.score >= self.min_score]

    def mark_of(self, number: int) -> Mark | None:
        """The mark of an object."""
        return next((mark for mark in self.marks if mark.object == number), None)

    def is_right(self, number: int) -> bool | None:
        """Whether a shown object is right: by its own mark, else by the judgment of the image.

        Without a mark it is right where the image is right, and where something else on the image is marked wrong.
        None where the image is not judged, or is wrong without saying what.
        """
        mark = self.mark_of(number)
        if mark is not None:
            return not mark.is_wrong
        if self.verdict == "right":
            return True
        return True if self.verdict == "wrong" and any(mark.is_wrong for mark in self.marks) else None

    @property
    def missed(self) -> list[Mark]:
        """The objects that were missed."""
        return [mark for mark in self.marks if mark.kind == "missed"]


def check_fits(
    judgment: Judgment,
    objects: Sequence[ShownObject],
    class_names: Sequence[str],
    *,
    width_px: int,
    height_px: int,
) -> None:
    """Refuse a judgment of other objects, classes or places than an image has.

    Raises:
        DataError: It does not fit; the message says what.
    """
    numbers = {one.number for one in objects}
    for at, mark in enumerate(judgment.marks, start=1):
        place = f"mark {at} of {len(judgment.marks)}"
        if mark.object is not None and mark.object not in numbers:
            expected = f"1 to {len(numbers)}" if numbers else "no mark, because the image has no objects"
            raise DataError("the image has no such object", place=place, found=str(mark.object), expected=expected)
        if mark.class_name is not None and mark.class_name not in class_names:
            raise DataError(
                "there is no such class", place=place, found=repr(mark.class_name), expected=", ".join(class_names)
            )
        if mark.x is not None and mark.y is not None and (mark.x > width_px or mark.y > height_px):
            expected = f"at most {width_px}, {height_px}"
            raise DataError(
                "the place is not on the image", place=place, found=f"{mark.x:g}, {mark.y:g}", expected=expected
            )


class SavedJudgment(Strict):
    """A judgment with what the database adds.

    Attributes:
        revision: Number of the row; later judgments have larger numbers.
        judged_at: When, in UTC, as ISO 8601 writes it.
        judgment: The judgment.
    """

    revision: int
    judged_at: str
    judgment: Judgment


class PairJudgment(Strict):
    """Which of two predictions of an image is better.

    Attributes:
        preference: By the side on which the page showed it.
        comment: Free text.
        judged_by: Who says it.
    """

    preference: Preference
    comment: _Comment = ""
    judged_by: _Person


class SignOff(Strict):
    """The decision of a person about a model.

    Attributes:
        decision: What is decided.
        comment: Conditions or reasons.
        signed_by: Who decides.
        role: What the person is, such as a title.
    """

    decision: Literal["accepted", "accepted_with_conditions", "refused"]
    comment: _Comment = ""
    signed_by: _Person
    role: Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)] = ""


class SavedSignOff(Strict):
    """A decision with what the database adds.

    Attributes:
        signed_at: When, in UTC, as ISO 8601 writes it.
        judgments_sha256: Hash of the judgments that it is about.
        sign_off: What was decided.
    """

    signed_at: str
    judgments_sha256: str
    sign_off: SignOff
