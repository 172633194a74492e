"""What can go wrong while drawing. The text of each error is safe to show to the person who asked.

GenerationError            could not draw
├─ InvalidRequest          outside what the model can draw
├─ OutOfMemory             too large for this card
├─ BadPicture              black, NaN or banded output, after a retry
├─ WeightsMissing          names the file and what to do about it
├─ DownloadFailed          weights could not be fetched; what came is kept
│  ├─ HubUnreachable       no network, or it broke
│  └─ LicenceNotAccepted   nothing is fetched before the operator accepts it
└─ GenerationCancelled     its owner, or the end of the process, stopped it

Knows no model and nobody who asks.
"""

from gen.message import Worded


class GenerationError(Worded):
    """Could not draw; `str()` is one line that is safe to show, `told` the same in another language."""


class InvalidRequest(GenerationError):
    """The request is outside what can be drawn; the text names the limit and the value."""


class OutOfMemory(GenerationError):
    """The picture needs more memory than the card has."""


class BadPicture(GenerationError):
    """The model's output is not a picture: NaN, which decodes to black, or one flat colour."""


class DeviceMissing(GenerationError):
    """The device asked for cannot be used here; the text names it and the best that can."""


class WeightsMissing(GenerationError):
    """A file of the model is missing, damaged or not what its name says; the text names it."""


class DownloadFailed(GenerationError):
    """Weights could not be fetched; the text says why and what to do."""


class HubUnreachable(DownloadFailed):
    """There is no network, no hub, or the connection broke."""


class LicenceNotAccepted(DownloadFailed):
    """The operator has not accepted the weights' licence; nothing was fetched."""


class GenerationCancelled(GenerationError):
    """The drawing was stopped before its end."""
