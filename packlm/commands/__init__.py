"""The command line: what all commands share (`command`), and `packlm`, which finds the stage of a verb (`main`)."""

from packlm.commands.command import Command, ConfigArguments, Group, SettingOption, run

__all__ = ["Command", "ConfigArguments", "Group", "SettingOption", "run"]
