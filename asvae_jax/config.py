"""A `ConfigDict` from a config file becomes typed settings here, once, and every mistake in it is found on the way."""

import dataclasses
import difflib
import functools
import inspect
import math
import runpy
import traceback
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

from ml_collections import ConfigDict

from asvae_jax.checks import check, check_images
from asvae_jax.errors import ConfigError, first_line
from asvae_jax.settings import (
    IMAGE_SETS,
    METHOD_SETTINGS,
    TOY_LIMITS,
    Config,
    ConvModel,
    ImageData,
    ImageEvaluation,
    MlpModel,
    ToyData,
    ToyEvaluation,
)


def resolve(config: Config | ConfigDict | Mapping[str, Any]) -> Config:
    """Types and checks a config.

    Raises:
      ConfigError: for an unknown or missing key, a wrong type, an unknown word or an impossible combination.
    """
    if isinstance(config, Config):
        return config
    values = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    name = _name_in(values, "data")
    check_word("data.name", name, [*TOY_LIMITS, *IMAGE_SETS])
    is_toy = name in TOY_LIMITS
    method = _name_in(values, "method")
    check_word("method.name", method, METHOD_SETTINGS)
    choices = {
        "method": METHOD_SETTINGS[method],
        "model": MlpModel if is_toy else ConvModel,
        "data": ToyData if is_toy else IMAGE_SETS[name].settings,
        "evaluation": ToyEvaluation if is_toy else ImageEvaluation,
    }
    typed = _typed_section(Config, values, "", choices)
    check(typed)
    return typed


def of_this_version(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as an older version stored them in JSON, with those that it had no choice in."""
    settings = _with_tuples(settings)
    method = settings["method"]
    if method["name"] == "asintrovae":
        without = dict(
            distance_in="exponent", distance_pairs="rec_fake", root_distance=False, slope_weight=0.0,
            balance_pulls=False, means_bandwidths=(), late_from=0.0, late_alpha_factor=1.0,
            late_w_enc_factor=1.0, w_exp=1.0, w_latent=0.0, latent_rise=0.0,
        )  # fmt: skip
        method = {**without, **method}
        # What comes late used to be the distance of the means alone.
        if "means_from" in method:
            method["late_from"] = method.pop("means_from")
        # Narrow kernels used to be part of D itself, and D's pull could grow, which no setting of today says. Without
        # any, or growth, nothing is lost.
        for gone, value in (("narrow_bandwidths", ()), ("w_dec_growth", 1.0)):
            if method.get(gone) == value:
                del method[gone]
        # The bound on the codes' slope used to last to the end.
        method.setdefault("slope_until", 1.0 if method["slope_weight"] else 0.0)
    without = dict(final_factor=1.0, fall_power=1.0, encoder_factor=1.0, encoder_rise=0.0)
    optimizer = {**without, **settings["optimizer"]}
    model = settings["model"]
    if model["kind"] == "mlp":
        model = {"initial_gain": 0.0, **model}
    training = {"max_negative_intervals": 0, **settings["training"]}
    return {**settings, "method": method, "model": model, "optimizer": optimizer, "training": training}


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that JSON made lists of are tuples again."""
    found = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = _with_tuples(value)
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


def resolve_data(values: Mapping[str, Any]) -> ImageData:
    """The data section of an image set alone, typed and checked.

    Raises:
      ConfigError: as `resolve` does.
    """
    name = _name_in({"data": values}, "data")
    check_word("data.name", name, IMAGE_SETS)
    data = _typed_section(IMAGE_SETS[name].settings, values, "data", {})
    check_images(data)
    return data


def _name_in(values: Mapping[str, Any], section: str) -> Any:
    """The `name` that decides what else a section holds."""
    if not isinstance(values.get(section), Mapping) or "name" not in values[section]:
        raise ConfigError(f"{section} must be a section with a name, got {values.get(section)!r}.")
    return values[section]["name"]


def load_file(argument: str) -> ConfigDict:
    """The ConfigDict of a config file and its variant, as `--config` takes them: `configs/digits.py:sintrovae,tiny`.

    Raises:
      ConfigError: if there is no such file, it fails, it has no `get_config`, or it does not know a word of the
        variant.
    """
    path, _, variant = argument.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"There is no config file {path}.")
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise ConfigError(f"{path} defines no get_config(variant).")
        if not inspect.signature(get_config).parameters:
            if variant:
                raise ConfigError(f"get_config() of {path} knows no variant such as {variant!r}; let it take one.")
            return get_config()
        return get_config(variant)
    except ConfigError:
        raise
    except Exception as error:  # it may be any program
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f" in line {own[-1]}" if own else ""
        raise ConfigError(f"{path} fails{where} with {type(error).__name__}: {first_line(error)}.") from error


def check_overrides(config: ConfigDict, paths: Iterable[str]) -> None:
    """Raises a ConfigError for a dotted path that is no setting of `config`, or one that brings others with it."""
    for path in paths:
        if path == "method.name":
            raise ConfigError(
                "method.name brings other settings with it: choose the method by a word after the config file's name, "
                "as in --config=configs/8gaussians.py:sintrovae."
            )
        section: Any = config
        for depth, key in enumerate(path.split(".")):
            parent = ".".join(path.split(".")[:depth])
            if not isinstance(section, ConfigDict):
                raise ConfigError(f"{path} is no setting: {parent} is a value and not a section; set {parent} itself.")
            if key not in section:
                owner = f" of method {section.name!r}" if parent == "method" else ""
                _unknown(f"{path} is no setting{owner}", key, section)
            section = section[key]


def check_word(path: str, word: Any, allowed: Iterable[str]) -> None:
    """Raises a ConfigError that names the nearest allowed word."""
    if word not in list(allowed):
        _unknown(f"{path}={word!r} is not known", str(word), allowed)


def _unknown(what: str, word: str, allowed: Iterable[str]) -> NoReturn:
    near = difflib.get_close_matches(word, list(allowed), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{what}.{hint} Choose from: {', '.join(sorted(allowed))}.")


def _typed_section(section: type, values: Any, path: str, choices: Mapping[str, type]) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a section with keys, got {values!r}.")
    hints = {**_type_hints(section), **choices}
    names = [field.name for field in dataclasses.fields(section)]
    where = f"{path}." if path else ""
    owner = f" of method {values['name']!r}" if path == "method" else ""
    for key in values:
        if key not in names:
            _unknown(f"{where}{key} is no setting{owner}", key, names)
    missing = [name for name in names if name not in values]
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing; give it a value.")
    return section(**{name: _typed(hints[name], values[name], where + name) for name in names})


# Asked for once for each section of thousands of cells.
_type_hints = functools.cache(typing.get_type_hints)


def _typed(hint: Any, value: Any, path: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _typed_section(hint, value, path, {})
    origin = typing.get_origin(hint)
    if origin is Literal:
        check_word(path, value, typing.get_args(hint))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} must be a tuple, got {value!r}.")
        return tuple(_typed(typing.get_args(hint)[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, hint):
        raise ConfigError(f"{path} must be {_a_type(hint)}, got {value!r}.")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{path} must be finite, got {value!r}.")
    return value


def _a_type(hint: type | types.UnionType) -> str:
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    return names.get(hint, str(hint))
