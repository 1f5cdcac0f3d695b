"""The `packlm` command: finds the stage behind a verb, and runs it.

    packlm run|config|sync ...                         all stages; the resolved configuration; what MLflow has missed
    packlm compare RUN RUN ...                         runs side by side
    packlm preprocess|train ...                        one stage
    packlm evaluate|score|pairs|rescore|next|generate ...   what one does with a model

Every command takes `--config FILE` and `--section.key value`; `packlm config --explain` lists all settings.
"""

import runpy
import sys

from packlm.base.errors import did_you_mean

STAGES = {
    "run": "pipeline", "config": "pipeline", "compare": "pipeline", "sync": "pipeline", "preprocess": "preprocess", "train": "train",
    "evaluate": "serve", "score": "serve", "pairs": "serve", "rescore": "serve", "next": "serve", "generate": "serve",
}  # fmt: skip
"""Verb -> the stage that has it."""


def main() -> None:
    """The `packlm` command."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__, end="")
        return
    command, *rest = words
    if command not in STAGES:
        hint = did_you_mean(command, STAGES, f"there are {', '.join(STAGES)}")
        print(f"error: unknown command {command!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    stage = STAGES[command]
    sys.argv = [f"packlm {command}", *(rest if stage == command else words)]
    runpy.run_module(f"packlm.stages.{stage}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
