"""Everything that the page works with: images, predictions, ground truth and judgments."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from d2tune.acceptance.image_list import ImageList
from d2tune.acceptance.judgments import Judgment, PairJudgment, SavedJudgment, SavedSignOff, SignOff, check_fits
from d2tune.acceptance.objects import ShownObject, is_background, objects_of
from d2tune.acceptance.predictions import Predictions
from d2tune.acceptance.statistics import SignTest, sign_test
from d2tune.acceptance.store import SavedPair, Store, StoredImage
from d2tune.acceptance.summary import JudgedImage, Summary, summarize
from d2tune.acceptance.truth import Truth
from d2tune.errors import DataError, ProjectError
from d2tune.report.sheets.drawing import instance_colors
from d2tune.text import counted

MAX_PIXELS = 120_000_000
MAX_UPLOAD_BYTES = 50_000_000


class NoSuchModelError(Exception):
    """A model that the page does not have."""


class StillBlindError(Exception):
    """The result of a blind comparison was asked for before it may be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceSettings:
    """What the page shows and where its judgments are kept.

    Attributes:
        database: The SQLite file; added images are in a folder of its name beside it.
        images: The folder with images, or one image; None where they only come through the page.
        truth: Annotations of any format to show beside the predictions; None takes those in the folder of images.
        is_blind: Whether two models are compared without their names.
        title: The heading of the page and of the report.
        max_upload_bytes: Largest file that is added.
        max_pixels: Largest image that is shown.
        check: Called with the content of a file before it is added; an error refuses it.
        reserving: A context for an upload, which yields a function that is called with the bytes of each piece.
    """

    database: Path
    images: Path | None = None
    truth: Path | None = None
    is_blind: bool = False
    title: str = "Acceptance"
    max_upload_bytes: int = MAX_UPLOAD_BYTES
    max_pixels: int = MAX_PIXELS
    check: Callable[[bytes], object] = lambda content: None
    reserving: Callable[[], AbstractContextManager[Callable[[int], object]]] = lambda: nullcontext(lambda count: None)


class Acceptance:
    """The page's data; any number of threads may use it. Close it when the server ends.

    Args:
        settings: What is shown.
        models: What predicts; two of them for a blind comparison.

    Raises:
        DataError: The folder has no images, or the database or the annotations cannot be read.
        ProjectError: The number of models does not fit.
    """

    def __init__(self, settings: AcceptanceSettings, models: Sequence[Predictions]) -> None:
        if not models or (settings.is_blind and len(models) != 2):
            expected = "two models" if settings.is_blind else "a model or a file of predictions"
            number = counted(len(models), "model")
            raise ProjectError("the number of models does not fit the page", found=number, expected=expected)
        self.settings = settings
        self.models = tuple(models)
        self.truth = Truth.of(settings.truth, settings.images, _classes_of(models[0]))
        self.store = Store(settings.database)
        try:
            self.images = ImageList(self.store, settings.images, max_pixels=settings.max_pixels)
        except BaseException:
            self.store.discard_new()
            raise
        self._model_ids: dict[int, int] = {}
        self._locks: dict[tuple[int, int], threading.Lock] = {}
        self._locks_guard = threading.Lock()

    @property
    def session(self) -> str:
        """By which the page's memory in the browser is kept apart from that of other pages of the same address."""
        names = [str(self.settings.database.absolute()), *(model.name for model in self.models)]
        return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def model(self, index: int) -> Predictions:
        """A model by its place.

        Raises:
            NoSuchModelError: There is none.
        """
        if not 0 <= index < len(self.models):
            raise NoSuchModelError
        return self.models[index]

    def _model_id(self, index: int) -> int:
        """The number of a model in the database, which needs its hash and so waits until it is loaded."""
        model = self.model(index)
        if index not in self._model_ids:
            self._model_ids[index] = self.store.model_id(model.sha256, model.name)
        return self._model_ids[index]

    def class_names(self, index: int = 0) -> tuple[str, ...]:
        """The classes of a model, and after them those that only the other models and the ground truth have."""
        others = (name for model in self.models for name in _classes_of(model))
        return tuple(dict.fromkeys([*_classes_of(self.model(index)), *others, *self.truth.class_names]))

    def colors(self, index: int = 0) -> dict[str, str]:
        """A color for each class, as CSS writes it."""
        names = self.class_names(index)
        shades = instance_colors(len(names) + 1)[1:].tolist()  # the first one is red, which stands for wrong
        return {name: "#{:02x}{:02x}{:02x}".format(*shade) for name, shade in zip(names, shades, strict=True)}

    def objects(self, image: StoredImage, index: int) -> list[ShownObject]:
        """What a model predicts on an image; it is computed once and then kept.

        Raises:
            D2TuneError: There is no prediction.
        """
        model, model_id = self.model(index), self._model_id(index)
        assert image.sha256 is not None
        stored = self.store.objects(image.id, model_id, image.sha256)
        if stored is not None:
            return stored
        with self._locks_guard:
            lock = self._locks.setdefault((image.id, index), threading.Lock())
        with lock:
            stored = self.store.objects(image.id, model_id, image.sha256)
            if stored is None:
                stored = objects_of(model.predict(self.images.path(image)), background=model.background)
                self.store.put_objects(image.id, model_id, image.sha256, stored)
        return stored

    def truth_objects(self, image: StoredImage) -> list[ShownObject] | None:
        """What a person annotated on an image; None where it is not annotated."""
        return None if image.is_added else self.truth.objects(image.name, image.width_px, image.height_px)

    def judgment(self, image: StoredImage, index: int) -> SavedJudgment | None:
        """The latest judgment of an image as it is now."""
        assert image.sha256 is not None
        return self.store.judgment(image.id, self._model_id(index), image.sha256)

    def judge(self, image: StoredImage, index: int, judgment: Judgment, *, seen: int | None) -> SavedJudgment:
        """Keep a judgment.

        Raises:
            DataError: It is about objects, classes or places that the image does not have.
            ConflictError: Another person has judged the image since it was opened.
        """
        assert image.sha256 is not None
        size = {"width_px": image.width_px, "height_px": image.height_px}
        check_fits(judgment, self.objects(image, index), self.class_names(index), **size)
        return self.store.put_judgment(image.id, self._model_id(index), image.sha256, judgment, seen=seen)

    def judgments(self, index: int) -> dict[int, SavedJudgment]:
        """The latest judgments by image id, of the images in the list as they are now."""
        saved = self.store.judgments(self._model_id(index))
        known = self._as_they_are(saved)
        return {key[0]: one for key, one in saved.items() if key in known}

    def _as_they_are(self, judged: Iterable[tuple[int, str]]) -> set[tuple[int, str | None]]:
        """Ids and hashes of the images; also of those that were opened in another server of this database alone."""
        unknown = {one.id for one in self.images.all() if one.sha256 is None}
        for image_id in unknown.intersection(image_id for image_id, _ in judged):
            with suppress(DataError):  # it can no longer be read
                self.images.get(image_id)
        return {(one.id, one.sha256) for one in self.images.all()}

    def judged_images(self, index: int) -> list[JudgedImage]:
        """The images that have a judgment, in the order of the list, with what was judged."""
        saved = self.judgments(index)
        return [
            JudgedImage(image, self.objects(image, index), saved[image.id])
            for image in self.images.all()
            if image.id in saved
        ]

    def summary(self, index: int) -> Summary:
        """The results of the judgments of a model."""
        return summarize(self.judged_images(index), self.class_names(index), images=len(self.images))

    def judgments_sha256(self, index: int) -> str:
        """A hash of the judgments that count, and of the images and the model that they are about."""
        saved = self.judgments(index)
        rows = [
            [image.name, image.sha256, saved[image.id].model_dump(mode="json")]
            for image in self.images.all()
            if image.id in saved
        ]
        text = json.dumps([self.model(index).sha256, rows], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def sign_off(self, index: int, sign_off: SignOff) -> None:
        """Keep a decision about a model, bound to the judgments as they are now.

        Raises:
            DataError: No image is judged.
        """
        if not any(one.judgment.verdict for one in self.judgments(index).values()):
            raise DataError("no image is judged, so that there is nothing to sign off")
        self.store.put_sign_off(self._model_id(index), self.judgments_sha256(index), sign_off)

    def saved_sign_off(self, index: int) -> SavedSignOff | None:
        """The latest decision about a model; None where there is none."""
        return self.store.sign_off(self._model_id(index))

    # a blind comparison

    @property
    def _pair(self) -> tuple[int, int]:
        if not self.settings.is_blind:
            raise NoSuchModelError
        first, second = self._model_id(0), self._model_id(1)
        if first == second:
            raise DataError("the two models of the comparison are the same model", found=self.models[0].sha256)
        return first, second

    def first_is_left(self, image: StoredImage) -> bool:
        """Whether the first model is shown on the left: by chance, and the same whenever the image is opened."""
        return self.store.first_is_left(image.id, self._pair, secrets.randbits(1) == 1)

    def prefer(self, image: StoredImage, pair: PairJudgment) -> None:
        """Keep a preference.

        Raises:
            RevealedError: The result was shown before.
        """
        assert image.sha256 is not None
        models = self._pair
        self.store.put_pair(image.id, models, image.sha256, pair, first_is_left=self.first_is_left(image))

    def pairs(self) -> dict[int, SavedPair]:
        """The latest preferences by image id, of the images in the list as they are now."""
        saved = self.store.pairs(self._pair)
        known = self._as_they_are(saved)
        return {key[0]: one for key, one in saved.items() if key in known}

    def reveal(self) -> None:
        """Show the result of the comparison from now on, and take no further preferences.

        Raises:
            DataError: There is no preference.
        """
        if not self.pairs():
            raise DataError("no image is compared, so that there is no result")
        self.store.reveal(self._pair)

    @property
    def revealed_at(self) -> str | None:
        """When the result of the comparison was shown first."""
        return self.store.revealed_at(self._pair)

    def comparison(self) -> SignTest:
        """The result of the comparison.

        Raises:
            StillBlindError: It may not be shown yet.
        """
        if self.revealed_at is None:
            raise StillBlindError
        sides = [one.first_is_better for one in self.pairs().values()]
        return sign_test(sides.count(True), sides.count(False), sides.count(None))


def _classes_of(model: Predictions) -> list[str]:
    """The classes of a model that have objects."""
    return [name for name in model.class_names if not is_background(name, model.background)]
