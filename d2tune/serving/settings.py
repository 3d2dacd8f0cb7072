"""The settings of a server: its limits, its queue and how it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from d2tune.errors import check_range
from d2tune.serving.sites import check_sites

MIB = 1 << 20
DATABASE = Path("acceptance.sqlite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is refused before an image is decoded, or before its masks are pasted.

    Attributes:
        body_bytes: Largest body of a request.
        waiting_bytes: Most bytes of the bodies of all requests together, so that many slow clients do not fill memory.
        pixels: Most pixels of an image, as its header declares them.
        depth_bits: Most bits of a value of a pixel; 8, 16 or 32.
        profile_bytes: Largest color profile or EXIF block of an image.
        several_frames: Whether of an image of several frames or pages the first is used; otherwise it is refused.
        instances: Most instances of an image; those with the highest scores are kept, before masks are pasted.
        batch_images: Most images of a request.
        body_s: Seconds that a client may take to send a body.
        header_s: Seconds that a client may take to send the head of a request.
    """

    body_bytes: int = 32 * MIB
    waiting_bytes: int = 512 * MIB
    pixels: int = 50_000_000
    depth_bits: int = 16
    profile_bytes: int = 4 * MIB
    several_frames: bool = False
    instances: int = 1000
    batch_images: int = 16
    body_s: float = 60.0
    header_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """The settings of a server.

    Attributes:
        limits: The limits.
        queue: Most images of a model that are decoded, waiting or being predicted; further requests get 429.
        deadline_s: Seconds from the arrival of a request until the network must begin with it.
        batch_wait_s: Seconds that a forward pass waits for images that are being decoded, to take them too.
        keys: File with the hashes of the keys of clients; None serves without keys.
        cors_origins: Origins whose pages may call the API from a browser; ``*`` is any.
        hosts: Names, besides private ones, by which the server without keys is known: see `is_known_host`.
        drain_delay_s: Seconds after SIGTERM in which requests are still accepted while ``/readyz`` says no, so that a
            load balancer notices.
        drain_s: Seconds after that for the requests in progress.
    """

    limits: Limits = field(default_factory=Limits)
    queue: int = 64
    deadline_s: float = 30.0
    batch_wait_s: float = 0.01
    keys: Path | None = None
    cors_origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    drain_delay_s: float = 0.0
    drain_s: float = 60.0

    def check(self) -> None:
        """Refuse numbers outside of their ranges.

        Raises:
            ProjectError: One is.
        """
        check_range(self.limits.body_bytes / MIB, place="--max-mb", above=0, most=4096)
        check_range(self.limits.pixels / 1e6, place="--max-megapixels", above=0, most=400)
        check_range(self.limits.instances, place="--max-instances", least=1)
        check_range(self.queue, place="--queue", least=1, most=100_000)
        check_range(self.deadline_s, place="--deadline", above=0, most=3600)
        check_range(self.drain_delay_s, place="--drain-delay", least=0, most=600)
        check_sites(self.cors_origins, self.hosts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """What the page at ``/`` shows.

    Attributes:
        images: Folder with images, or an image; None where they only come through the page.
        truth: Annotations to show beside the predictions; None takes those in the folder of images.
        judgments: The database of judgments.
        predictions: COCO files of predictions to judge as those of models; ``NAME=PATH`` names one.
        is_blind: Whether two models are compared without their names.
        title: The heading of the page and of the report; None takes a general one.
        compare: Further models for the page that compares two on an image: names of published networks, runs, packages
            and exported models; ``NAME=PATH`` names one.
    """

    images: Path | None = None
    truth: Path | None = None
    judgments: Path = DATABASE
    predictions: tuple[str | Path, ...] = ()
    is_blind: bool = False
    title: str | None = None
    compare: tuple[str, ...] = ()
