"""Completion in a shell: a script for it, which calls back with the line so far, and the words that may come next."""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping

from tracefl.conf.key_text import base_keys, choices, group_keys, group_names, named_values
from tracefl.conf.run_names import LAST, known_runs, last_run
from tracefl.conf.tool import HELP, VERSION, Grammar

# Where nothing is offered, as after csv=, a shell completes the names of files.
SCRIPTS = {
    "bash": """\
_tracefl() {
    local line=${COMP_LINE:0:COMP_POINT} word=${COMP_WORDS[COMP_CWORD]} each
    [[ $word == = ]] && word=  # bash begins a new word at =, and replaces that word alone
    local whole=${line##* }
    COMPREPLY=()
    while IFS= read -r each; do
        COMPREPLY+=("${each#"${whole%"$word"}"}")
    done < <("$1" --complete "$line" 2> /dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -o bashdefault -o default -F _tracefl tracefl
""",
    "zsh": """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_tracefl() {
    local -a found
    found=(${(f)"$(${words[1]} --complete "${(j: :)words[1,CURRENT]}" 2> /dev/null)"})
    if (( ${#found} )); then
        compadd -S '' -- ${(M)found:#*=}
        compadd -- ${found:#*=}
    else
        compset -P '*='
        _files
    fi
}
compdef _tracefl tracefl
""",
    "fish": """\
complete -c tracefl -f -a '(tracefl --complete (commandline -cp | string collect) 2> /dev/null)'
complete -c tracefl -n 'string match -q "*=*" -- (commandline -ct)' -F
""",
}
"""Shell to the script that makes it complete ``tracefl``: ``eval "$(tracefl --completion bash)"``."""

_OPTIONS = ("--completion", *HELP[:1], VERSION)


def complete(line: str, commands: Collection[str], read_grammar: Callable[[str], Grammar]) -> list[str]:
    """Return the words that the last word of a command line may become.

    Args:
        line: The line up to the cursor.
        commands: The names of the commands.
        read_grammar: Returns a command's grammar.
    """
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is not closed yet
        words = line.split()
    *before, last = [*words, ""] if not words or line[-1:].isspace() else words
    if len(before) < 2:
        offered = [*commands, *_OPTIONS] if before else []
    elif before[1] == _OPTIONS[0]:
        offered = list(SCRIPTS)
    elif before[1] in commands:
        offered = list(_offered(last, before[2:], read_grammar(before[1])))
    else:
        offered = []
    return [word for word in offered if word.startswith(last) and (last or not word.startswith("-"))]


def _offered(last: str, before: Collection[str], grammar: Grammar) -> Iterator[str]:
    """Yield what may stand in place of the last word of a command, given those before it."""
    key, equals, _ = last.partition("=")
    keys = _keys(grammar, key.partition(".")[0] if "." in key else "")
    if equals:
        yield from (f"{key}={value}" for value in keys.get(key, ()))
        return
    yield from sorted({*grammar.flags, HELP[0], VERSION} - set(before))
    has_first = any("=" not in word and not word.startswith("-") for word in before)
    if not has_first and (grammar.names or grammar.first == "RUN"):
        yield from grammar.names or _runs(last)
    else:
        given = {word.partition("=")[0] for word in before}
        yield from (f"{each}=" for each in keys if each not in given)


def _keys(grammar: Grammar, group: str) -> Mapping[str, Collection[str]]:
    """Return a command's keys and the values that they may have, where those can be listed; of groups only one's."""
    own = {key: getattr(reader, "choices", ()) for key, reader in grammar.keys.items()}
    passed_on = group_names() if grammar.groups is None else grammar.groups
    groups = {each: choices(each) for each in passed_on if "." not in each}
    dotted = base_keys() if grammar.groups is None else {}
    if group in groups or any(each.startswith(f"{group}.") for each in passed_on):
        of_group = group_keys(group)
        dotted |= {key: comment for key, comment in of_group.items() if group in groups or key in passed_on}
    return own | groups | {key: named_values(comment) for key, comment in dotted.items()}


def _runs(last: str) -> Iterator[str]:
    """Yield the runs by name, those of an equal name and what looks like a path by path."""
    runs = known_runs()
    names = [run.name for run in runs]
    if last_run() is not None:
        yield LAST
    yield from (str(run) if "/" in last or names.count(run.name) > 1 else run.name for run in runs)
