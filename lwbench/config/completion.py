"""Completion of command lines in a shell."""

import os
from collections.abc import Callable, Sequence

from ..paths import conf_folder


def complete(
    arguments: Sequence[str], verbs: Sequence[str], plain_keys: Callable[[str], Sequence[str]]
) -> int:
    """Shell completion: `eval "$(lwbench -sc install=bash)"`.

    Hydra completes keys and options; it has no notion of verbs, so the verb is removed from the
    line that it sees. `plain_keys(verb)`: what is offered behind a verb that does not use Hydra,
    nothing for the other verbs.
    """
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    verb, position = "train", 1 + (len(words) > 1 and words[1] == "-m")
    if any(a.startswith("query=") for a in arguments):
        is_new_word = line.endswith(" ") or not line
        if len(words) + is_new_word <= position + 1:
            print(" ".join(verbs))
            return 0
        verb = words[position] if words[position] in verbs else "train"
        if offered := plain_keys(verb):
            print(" ".join(offered))
            return 0
        line = " ".join([words[0], *words[position + 1 :]]) + (" " if is_new_word else "")
        os.environ["COMP_LINE"], os.environ["COMP_POINT"] = line, str(len(line))
    search_path = create_config_search_path(str(conf_folder()))
    try:
        main = Hydra.create_main_hydra2("lwbench", search_path)
        main.shell_completion(verb, [a for a in arguments if "=" in a])
    finally:
        GlobalHydra.instance().clear()
    return 0
