"""The verbs around an installation and its files: install, relocate, verify."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_install(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos install`."""
    install = verbs.add_parser("install", help="make FiftyOne find the plugin and the models")
    install.set_defaults(run=_install)


def add_relocate(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos relocate`."""
    relocate = verbs.add_parser("relocate", help="let the paths in all datasets follow media that were moved")
    relocate.add_argument("old", help="the folder that the datasets name")
    relocate.add_argument("new", help="where its contents are now")
    relocate.set_defaults(run=_relocate)


def add_verify(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos verify`."""
    verify = verbs.add_parser("verify", help="compare models with golden cases, stage by stage")
    verify.add_argument("cases", nargs="+", type=Path, help="case folders, parents of such, or single files")
    verify.set_defaults(run=_verify)


def _install(args: argparse.Namespace) -> int:
    from fiftyone_refvos.installation import install

    print("\n".join(install()))
    return 0


def _relocate(args: argparse.Namespace) -> int:
    from fiftyone_refvos.relocate import relocate

    counts = relocate(args.old, args.new)
    for name, count in counts.items():
        print(f"{name}: {count} samples")
    if not counts:
        print(f"no dataset names files in {args.old}", file=sys.stderr)
    return 0 if counts else 2


def _verify(args: argparse.Namespace) -> int:
    from fiftyone_refvos.verify import verify

    reports = []
    for report in verify(args.cases):
        print("\n".join(report.lines()), flush=True)
        reports.append(report)
    if not reports:
        print("nothing was recognised as a golden case", file=sys.stderr)
        return 2
    failed = sum(not report.passed for report in reports)
    print(f"{len(reports) - failed} of {len(reports)} cases passed")
    return 1 if failed else 0
