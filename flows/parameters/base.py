"""What the parameters of all flows have in common: a name that a flow does not know is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from pydantic.fields import FieldInfo

from pointcloud.errors import PointloomError


class FlowParameters(BaseModel):
    """The parameters of a flow; the flow's one argument, `parameters`, is a model derived from this one.

    The JSON schema that a deployment gives to the Prefect server says `additionalProperties: false`, so the server
    refuses a misspelt name when a run is requested; a run that passes this check fails with one sentence.

    Raises:
        PointloomError: a name that is none of the fields. (Not a ValueError, so pydantic passes it on as it is.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _inputs: Any = PrivateAttr(None)

    def hand_on(self, inputs: Any) -> None:
        """Keep for the flow what was found when these parameters were checked: it is not looked for twice."""
        self._inputs = inputs

    def handed_on(self) -> Any:
        """What `hand_on` kept, once; None where nothing was checked before the flow, as in a deployment."""
        inputs, self._inputs = self._inputs, None
        return inputs

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_names(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and (sentence := unknown_names(given, cls.model_fields)):
            raise PointloomError(sentence)
        return given


def unknown_names(given: Iterable[object], known: Iterable[str], where: str = "") -> str:
    """A sentence about the names that are not known, each with the one that was probably meant; empty without any.

    Args:
        given: names as the user wrote them.
        known: names that would be right.
        where: what the sentence names as their place, as `in file.yaml`.
    """
    known = list(known)
    unknown = [str(name) for name in given if name not in known]
    if not unknown:
        return ""
    close = {name: get_close_matches(name, known, n=1) for name in unknown}
    what = ", ".join(repr(name) for name in unknown)
    meant = [matches[0] for matches in close.values() if matches]
    advice = (
        f"did you mean {', '.join(map(repr, meant))}?" if meant else f"expected some of {', '.join(known)}."
    )
    return f"unknown parameter{'s' if len(unknown) > 1 else ''} {what}{where and f' {where}'}; {advice}"


_FROM_DATACLASS = object()


def described(config: type, name: str, default: Any = _FROM_DATACLASS, note: str = "") -> Any:
    """A field of a flow's model that a dataclass of another package also has, with the description given there.

    Args:
        config: the dataclass; its fields are `Annotated[…, Field(description=…)]`.
        name: of the field.
        default: of the flow; without it, the dataclass's.
        note: what is added to the description here.
    """
    given = getattr(config, name) if default is _FROM_DATACLASS else default
    return Field(given, description=f"{descriptions(config)[name]}{note and ' ' + note}")


def optional_fields(config: type) -> dict[str, Any]:
    """All fields of such a dataclass for `pydantic.create_model`, each with its description; None where not given."""
    return {
        name: (get_args(hint)[0] | None, Field(None, description=descriptions(config)[name]))
        for name, hint in get_type_hints(config, include_extras=True).items()
    }


def descriptions(config: type) -> dict[str, str]:
    """What each field of such a dataclass means, by its name."""
    return {
        name: next(note.description or "" for note in get_args(hint) if isinstance(note, FieldInfo))
        for name, hint in get_type_hints(config, include_extras=True).items()
    }
