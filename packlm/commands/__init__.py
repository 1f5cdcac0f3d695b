"""The command line: what all commands share (`command`), and `packlm`, which finds the stage of a verb (`verbs`)."""

from packlm.commands.command import Command, ConfigArguments, Group, SettingOption, run
from packlm.commands.verbs import main

__all__ = ["Command", "ConfigArguments", "Group", "SettingOption", "main", "run"]
