"""What a row of each table holds: text and flags, nothing imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """Where an implementation lies: ``module:attribute``."""

    target: str


@dataclass(frozen=True, kw_only=True)
class ConfiguredRow(Row):
    """A method or a plug-in. ``config`` is its configuration class, importable without torch.

    ``note`` is what a report must say of results with it, ``short`` the same where there is little
    room. ``claims_half`` says that its paper claims the accuracy in half the epochs, ``null`` that
    it changes nothing but chance, so that it shows the noise floor.
    """

    config: str
    note: str = ""
    short: str = ""
    claims_half: bool = False
    null: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskRow(ConfiguredRow):
    """An evaluation task, with its recipe as ``config``: its name in tables, its share of the time.

    A ``standing`` task is part of every cell whose study names no tasks. One without a label
    carries it as its attribute, or is called by its name.
    """

    label: str = ""
    share: float = 0.0
    standing: bool = False


@dataclass(frozen=True, kw_only=True)
class DatasetRow(Row):
    """A data set: the preset chosen when none is named, whether it needs a folder, or a file.

    ``sizes`` names the settings of ``data`` by which it may be made smaller.
    """

    preset: str
    needs_root: bool = True
    file: bool = False
    sizes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StatisticRow(Row):
    """A statistic of a variant at a target.

    Under ``head``, if it has one, the table of epochs to target shows its ``column`` with so many
    ``digits``; the report shows the others in tables of their own.
    """

    column: str = ""
    head: str = ""
    digits: int = 2


@dataclass(frozen=True, kw_only=True)
class LauncherRow(Row):
    """A launcher: whether it reads ``--jobs``, a cluster's settings, or of them ``--ngpus``."""

    jobs: bool = True
    site: bool = True
    ngpus: bool = False


@dataclass(frozen=True, kw_only=True)
class TrackerRow(Row):
    """A tracker: the module that it needs, which the package's extra of its name installs."""

    needs: str = ""
