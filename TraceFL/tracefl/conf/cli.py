"""What Hydra is given of the command line, and its errors, which say what was probably meant."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError
from yaml import YAMLError

from tracefl.common.names import did_you_mean
from tracefl.common.paths import expand
from tracefl.conf.key_text import CONF, choices, group_names
from tracefl.conf.override_text import explain_list, explain_override
from tracefl.conf.slips import explain_slip, is_cut_off
from tracefl.errors import ConfigError, one_line

_NO_NAME = re.compile(r"[-+]?[0-9._]+(e[-+]?[0-9]+)?|true|false", re.IGNORECASE)  # Hydra reads these as values
_OPTIONS = ("cfg", "resolve", "package", "multirun", "config_dir")  # of Hydra's, those that do something here
_FILE = "file:"  # before the path of an experiment that is not in the package


def read_words(arguments: Sequence[str]) -> list[str]:
    """Return a command line with Hydra's options first: it reads none between two ``key=value``.

    Raises:
        ConfigError: An argument is neither ``key=value`` nor an option, with what was probably meant; or a key is
            given twice.
    """
    parser = get_args_parser()
    parser.error = _refuse_option  # type: ignore[method-assign]  # argparse would print its usage and exit
    parser.allow_abbrev = False
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    _refuse_options(vars(given))
    words = [word for word in arguments if word in unknown or word in given.overrides]
    for position, word in enumerate(words):
        if word.startswith("~"):
            continue  # prepare_overrides says that keys cannot be removed
        if word.startswith("-") or "=" not in word.lstrip("=") or is_cut_off(word):
            raise ConfigError(explain_slip(words, position, _known_keys()))
        key = word.partition("=")[0]
        if "@" in key:  # Hydra's package of a group, which no group here has
            raise ConfigError(f"unknown key {key!r}, see --help{did_you_mean(key.partition('@')[0], _known_keys())}")
    refuse_repeated(words)
    return [word for word in arguments if word not in words] + words


def _refuse_options(given: Mapping[str, Any]) -> None:
    """Raise a ConfigError for an option of Hydra's that does nothing here, or goes with no other that is given."""
    chosen = [name for name, value in given.items() if name != "overrides" and value not in (None, False)]
    for name in chosen:
        if name not in _OPTIONS:
            raise ConfigError(f"unknown option '--{name.replace('_', '-')}', see --help")
    if given["cfg"] is None and (alone := [name for name in chosen if name in ("resolve", "package")]):
        raise ConfigError(f"--{alone[0]} says how --cfg prints, and goes with it alone; add --cfg job, or leave it out")
    if given["cfg"] is not None and given["multirun"]:
        raise ConfigError("--cfg prints the configuration of one run; leave out --multirun")


def refuse_repeated(words: Iterable[str]) -> None:
    """Raise a ConfigError for a key that is given twice, of whose values Hydra would take the last."""
    values: dict[str, str] = {}
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key in values:
            raise ConfigError(f"{key} is given twice: {values[key]!r} and {value!r}; give it once")
        values[key] = value


def _refuse_option(message: str) -> NoReturn:
    raise ConfigError(message)


def prepare_overrides(arguments: Sequence[str]) -> list[str]:
    """Return overrides as Hydra is to read them.

    ``model.config`` and ``model.config.KEY`` may add keys: each architecture has its own sizes, checked when it is
    built. A file that ``experiment=path/to/mine.yaml`` names becomes a choice of that group, beside those of the
    package.

    Raises:
        ConfigError: A key is appended (+key) or removed (~key): nothing would read it, or something would miss it; a
            group is set to null; or the file cannot be read.
    """
    arguments = [_with_files(a) if a.startswith("experiment=") else a for a in arguments]
    for argument in arguments:
        if argument.startswith(("+", "~")) and not argument.startswith("++model.config."):
            key = argument.lstrip("+~").partition("=")[0]
            raise ConfigError(f"keys cannot be added or removed, got {argument!r}{did_you_mean(key, _known_keys())}")
        group, _, choice = argument.partition("=")
        is_none = choice in ("null", "") and group != "experiment"
        is_no_name = choice.startswith(("[", "{")) or _NO_NAME.fullmatch(choice)
        if (is_none or is_no_name) and group.isidentifier() and (CONF / group).is_dir():
            raise ConfigError(f"{argument!r} chooses nothing; choose one of {', '.join(choices(group))}")
    return [f"++{a}" if a.startswith(("model.config.", "model.config=")) else a for a in arguments]


def _with_files(override: str) -> str:
    """Register the files that ``experiment=`` names, several in a sweep, and return it with names that Hydra finds."""
    names = override.split("=", 1)[1].split(",")
    return f"experiment={','.join(_registered(name) if name.endswith('.yaml') else name for name in names)}"


def _registered(name: str) -> str:
    """Register an experiment's file; the name that is returned is never that of one in the package."""
    name = name.strip().removeprefix(_FILE)
    try:
        node = OmegaConf.load(expand(name))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ConfigError(f"experiment={name} cannot be read: {reason}") from error
    if not isinstance(node, DictConfig):
        raise ConfigError(f"experiment={name} holds no keys; give a file of key: value lines")
    group, _, file = f"experiment/{_FILE}{name}".rpartition("/")
    ConfigStore.instance().store(group=group, name=file, node=node, package="_global_", provider="file")
    return _FILE + name


def compose_base(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the base configuration with overrides as Hydra reads them; Hydra's errors are passed on."""
    GlobalHydra.instance().clear()
    with initialize_config_module("tracefl.conf", version_base="1.3"):
        return compose("base", list(overrides))


def command_line(overrides: Iterable[str], config_dir: str | None = None) -> str:
    """Return the command for a run with these overrides, without those that decide what to do with an existing run."""
    kept = [
        o.replace(f"experiment={_FILE}", "experiment=", 1)
        for o in overrides
        if o.partition("=")[0] not in ("overwrite", "resume", "dry_run")
    ]
    folder = [] if config_dir is None else ["--config-dir", config_dir]
    return shlex.join(["tracefl", "run", *folder, *kept])


def explain_config_error(error: Exception) -> str:
    """Return a composition error on one line, with names similar to the one that does not exist."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = (error.missing_cfg_file or "").partition("/")
        there = [choice for choice in error.options if not choice.startswith("_")]  # also those of --config-dir
        own = ", or a file: experiment=path/to/mine.yaml" if group == "experiment" else ""
        return f"unknown {group} {name!r}; choose one of {', '.join(there)}{own}{did_you_mean(name, there)}"
    if isinstance(error, OverrideParseException):
        return explain_override(error.override, _defaults())
    cause = error.__cause__ or error
    several = re.search(
        r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?:\n| requires)", str(error), re.DOTALL
    )
    if several:
        return explain_list(several.group(1), _defaults())
    if isinstance(error, InterpolationKeyError):
        absent = re.search(r"'(.*)' not found", str(error))
        named = absent.group(1) if absent else ""
        return f"{error.full_key} refers to the key {named!r}, which does not exist{did_you_mean(named, _known_keys())}"
    no_group = re.search(r"Override (\S+?)=.* looks like a config group override", str(error), re.DOTALL)
    if no_group:
        return f"unknown key {no_group.group(1)!r}, see --help{did_you_mean(no_group.group(1), _known_keys())}"
    unknown = re.search(r"Could not override '([^']+)'", str(error)) or re.search(r"full_key: (\S+)", str(cause))
    if unknown and re.search("not in struct|No match in the defaults list|To append to your", f"{error} {cause}"):
        key = unknown.group(1)
        return f"unknown key {key!r}, see --help{did_you_mean(key, _known_keys())}"
    why = f": {one_line(cause)}" if cause is not error and str(error).startswith("Error merging override") else ""
    return f"{one_line(error)}{why}"


def _known_keys() -> list[str]:
    """Return every group, and every key of the default configuration, dotted."""
    return list(_defaults())


def _defaults() -> dict[str, Any]:
    """Return the keys of ``_known_keys``, each with its default."""
    cfg: dict[str, Any] = OmegaConf.to_container(compose_base(), resolve=False)  # type: ignore[assignment]

    def walk(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            yield f"{prefix}{key}", value
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    return {**{group: {} for group in group_names()}, **dict(walk(cfg, ""))}
