"""Unknown keys, wrong types, ranges: Pydantic's errors in plain words, with key, rule and remedy."""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Union, cast, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from r1ray.check.synonyms import synonyms_of
from r1ray.config import Config
from r1ray.config.files import conf_dir, groups_in
from r1ray.config.tree import value_of, without
from r1ray.mistakes import Mistake, closest, did_you_mean

Loc = tuple[str | int, ...]

TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "dict": "a mapping (keys with values)",
    "model": "a mapping (keys with values)",
    "list": "a list",
    "tuple": "a list",
}
EXAMPLES = {"name": "first_try", "run_dir": "runs/first_try", "rollout.stop": """'["</answer>"]'"""}
LIMITS = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be greater than"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be less than"),
}


def validate(raw: Mapping[str, Any], *, prefix: str = "") -> tuple[dict[str, Any], list[Mistake]]:
    """({section: its validated object} for the valid sections of `raw`, every mistake in the others).

    Unknown keys are reported and then ignored, so that a typo does not hide what else is wrong with its group.
    """
    errors = _errors(raw)
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    cleaned = without(raw, [error["loc"] for error in unknown])
    bad = {error["loc"][0] for error in errors if error["type"] != "extra_forbidden"}
    # Pydantic would read true as 1.
    nodes = [node for node in _walk(Config, cleaned) if isinstance(node.value, bool) and node.loc[0] not in bad]
    booleans = [node for node in nodes if node.annotation is not bool]
    mistakes = [_translate(error, prefix, raw) for error in errors]
    mistakes += [_wrong_type(prefix + _dotted(node.loc), node.value, "a number") for node in booleans]
    bad |= {node.loc[0] for node in booleans}
    groups = {
        name: TypeAdapter(_whole_type(field)).validate_python(cleaned[name])
        for name, field in Config.model_fields.items()
        if name not in bad and name in cleaned
    }
    return groups, mistakes


def _whole_type(field: FieldInfo) -> Any:
    """The annotation with its validators, which Pydantic keeps separately."""
    annotated: Any = Annotated
    return annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def without_null_entries(raw: dict[str, Any]) -> dict[str, Any]:
    """Removes the null entries of maps of named sections: `data.train.countdown=null` takes that dataset out of the mixture."""
    return without(raw, [node.loc for node in _walk(Config, raw) if node.is_entry and node.value is None])


def _unknown_key(loc: Loc, value: Any, *, prefix: str = "") -> Mistake:
    """Suggests r1ray's name for a key of another project, a key of the same section, or one elsewhere (`+lr=1`: trainer.lr)."""
    parent, key = loc[:-1], str(loc[-1])
    # At the top a group may be meant: recipes=r1_zero.
    siblings = _fields(Config, parent) if parent else sorted({*Config.model_fields, *groups_in(conf_dir())} - {key})
    rule = f"{prefix + _dotted(parent) or 'the configuration'} has no key {key}".replace(". has", " has")
    elsewhere = [path for path in key_paths() if path.rpartition(".")[2] == key]
    if meant := synonyms_of(_dotted(loc), value):
        remedy = f"did you mean {' and '.join(prefix + path for path in meant)}?"
    elif not closest(key, siblings) and elsewhere:
        remedy = f"did you mean {' or '.join(prefix + path for path in elsewhere[:3])}?"
    else:
        remedy = did_you_mean(key, siblings, prefix=prefix + "".join(f"{part}." for part in parent))
    return Mistake(key=prefix + _dotted(loc), value=value, rule=rule, remedy=remedy)


def key_paths(model: type[BaseModel] = Config, path: str = "") -> list[str]:
    """Every key of the schema, dotted; the entries of a map of groups are counted once, under `<name>`."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        inner, is_map = _inner_model(field.annotation)
        here = f"{path}{name}"
        if inner is None:
            paths.append(here)
        else:
            paths += key_paths(inner, f"{here}.<name>." if is_map else f"{here}.")
    return paths


def _dotted(loc: Loc) -> str:
    return ".".join(str(part) for part in loc)


def _errors(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        Config.model_validate(raw)
    except ValidationError as error:
        return [dict(item) for item in error.errors(include_url=False)]
    return []


def _translate(error: dict[str, Any], prefix: str, raw: Mapping[str, Any]) -> Mistake:
    kind, loc, value, context = error["type"], error["loc"], error["input"], error.get("ctx", {})
    loc = loc[:-1] if loc[-1] == "[key]" else loc  # the mistake is in the key of a map
    in_list = isinstance(loc[-1], int) and not isinstance(value_of(raw, _dotted(loc[:-1])), dict)
    # No override can set one entry of a list.
    key = prefix + _dotted(loc[:-1] if in_list else loc)
    if kind == "extra_forbidden":
        return _unknown_key(loc, value, prefix=prefix)
    if kind == "too_long" or (kind == "missing" and in_list):
        # The schema's only list of a fixed length is trainer.betas.
        return Mistake(
            key=key, value=value, rule="must be a list of two numbers", remedy=f"give both: {key}=[0.9,0.95]"
        )
    if kind == "finite_number":
        return Mistake(key=key, value=value, rule="must be a finite number", remedy="give a number, not nan or inf")
    if kind == "string_too_short":
        return Mistake(
            key=key, value="''", rule="must not be empty", remedy=f"for example {key}={EXAMPLES.get(key, 'TEXT')}"
        )
    if kind == "missing":
        return Mistake(key=key, value=None, rule="must be given", remedy=_how_to_give(key, loc))
    if kind == "literal_error":
        options = [option.strip().strip("'") for option in context["expected"].replace(" or ", ", ").split(",")]
        guess = closest(str(value), options)
        remedy = f"did you mean {guess}?" if guess else f"for example {key}={options[0]}"
        return Mistake(key=key, value=value, rule=f"must be one of {', '.join(options)}", remedy=remedy)
    if kind in LIMITS:
        name, words = LIMITS[kind]
        limit = f"{context[name]:g}" if isinstance(context[name], float) else str(context[name])
        remedy = f"give a {'larger' if kind.startswith('greater') else 'smaller'} value"
        if kind.endswith("equal") and not in_list:
            remedy = (
                f"for example {key}={limit}"
                if context[name] or isinstance(context[name], int)
                else "give 0 or a positive number"
            )
        return Mistake(key=key, value=value, rule=("each " if in_list else "") + f"{words} {limit}", remedy=remedy)
    for name, words in TYPES.items():
        if kind.startswith(name):
            return _wrong_type(key, value, words)
    return Mistake(key=key, value=value, rule=error["msg"], remedy="see the comments in conf/ and in the code")


def as_mistakes(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, Any], *, owner: str, prefix: str
) -> Iterator[Mistake]:
    """The mistakes in a plug-in's arguments. `owner` is the plug-in's name, `prefix` is the key of its arguments with a dot."""
    for item in error.errors(include_url=False):
        kind, loc, context = item["type"], item["loc"], item.get("ctx", {})
        if kind == "extra_forbidden":
            rule, remedy = (
                f"{owner} takes no such argument",
                did_you_mean(str(loc[0]), model.model_fields, prefix=prefix),
            )
            yield Mistake(key=prefix + _dotted(loc), value=item["input"], rule=rule, remedy=remedy)
        elif kind == "missing" and len(loc) == 1:
            key = prefix + _dotted(loc)
            yield Mistake(key=key, value=None, rule=f"{owner} needs this argument", remedy=f"add {key}=VALUE")
        elif kind == "argument":
            name = context["argument"]
            # A field's validator gets its value, a model's validator all values.
            value = item["input"] if loc else item["input"].get(name, model.model_fields[name].default)
            yield Mistake(key=prefix + name, value=value, rule=context["rule"], remedy=context["remedy"])
        else:
            yield _translate(cast("dict[str, Any]", item), prefix, given)


def _how_to_give(key: str, loc: Loc) -> str:
    remedy = f"add {key}=... or choose a group that sets it"
    # The recipe changes a dataset that the selected data= or eval= file does not have.
    if loc[:-2] in (("data", "train"), ("eval", "sets")):
        return f"remove it: {key.rpartition('.')[0]}=null; or {remedy}"
    if loc[0] == "stages" and len(loc) > 1:
        return f"add {key}=rl, or correct the name {loc[1]}: --cfg job shows which stages there are"
    return remedy


def _wrong_type(key: str, value: Any, words: str) -> Mistake:
    kind = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    is_a = "nothing" if value is None else next(name for known, name in kind.items() if isinstance(value, known))
    remedy = f"give {words}"
    if words == "text" and value is None:
        remedy = f"for example {key}={EXAMPLES.get(key, 'TEXT')}"
    elif words == "text":
        remedy = f"""quote it: '{key}="{value}"'"""
    elif words == "a list" and isinstance(value, str):
        remedy = f"{key}=[{value}]"
    elif words == "a whole number" and isinstance(value, float):
        remedy, is_a = f"for example {key}={round(value)}", "a number with decimals"
    return Mistake(key=key, value=value, rule=f"must be {words}, not {is_a}", remedy=remedy)


def _fields(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys allowed at `loc`; none below a free mapping."""
    if not loc:
        return list(model.model_fields)
    field = model.model_fields.get(str(loc[0]))
    inner, is_map = _inner_model(field.annotation) if field else (None, False)
    return [] if inner is None else _fields(inner, loc[2:] if is_map else loc[1:])


def _inner_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section type of an annotation, and whether it is a map of such sections: `G`, `G | None`, `dict[str, G]`."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arm for arm in get_args(annotation) if arm is not type(None))
    if get_origin(annotation) is dict:
        return _inner_model(get_args(annotation)[1])[0], True
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (cast("type[BaseModel]", annotation) if is_model else None), False


class _Node(NamedTuple):
    """A key of a configuration with its type in the schema."""

    loc: Loc
    annotation: Any
    value: Any
    is_entry: bool
    """Whether it is an entry of a map of sections, named by the user."""


def _walk(model: type[BaseModel], raw: dict[str, Any], loc: Loc = ()) -> Iterator[_Node]:
    """Every key of `raw` that the schema knows, groups before what is in them."""
    for name, field in model.model_fields.items():
        here, value = (*loc, name), raw.get(name)
        inner, is_map = _inner_model(field.annotation)
        if name in raw:
            yield _Node(here, field.annotation, value, False)
        if inner is None or not isinstance(value, dict):
            continue
        tree = cast("dict[str, Any]", value)
        for key, entry in tree.items() if is_map else ():
            yield _Node((*here, key), inner, entry, True)
            if isinstance(entry, dict):
                yield from _walk(inner, cast("dict[str, Any]", entry), (*here, key))
        if not is_map:
            yield from _walk(inner, tree, here)
