"""docs/datasets.md: its Python runs as it stands, and its table names types and splits that exist."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from typing import Any

from fiftyone_refvos import types
from tests.conftest import REPOSITORY
from tests.mevis_folder import simple_mevis

PAGE = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)]


def test_the_examples_run(tmp_path, capsys):
    simple_mevis(tmp_path / "mevis")
    names: dict[str, Any] = {}
    for block in BLOCKS:
        block = block.replace("/data/mevis", str(tmp_path / "mevis")).replace('["train", "valid_u"]', '["train"]')
        exec(block.replace("/scratch", str(tmp_path)), names)
    assert names["dataset"].values("video_name") == ["one", "two"]
    assert capsys.readouterr().out.endswith("[]\n")
    assert (tmp_path / "refvos" / "train").is_dir()
    names["dataset"].delete()


def test_the_table_names_types_that_exist():
    rows = re.findall(r"^\| [^|]+ \| (`\w+`[^|]*) \| ([^|]+) \|", PAGE, flags=re.MULTILINE)
    named = [(name, splits) for names, splits in rows for name in re.findall(r"`(\w+)`", names)]
    classes = {name for name, value in vars(types).items() if getattr(value, "layout", None) is not None}
    assert {name for name, _ in named} == classes
    for name, splits in named:
        documented = getattr(types, name).__doc__
        if "\n    Split" in documented:
            assert all(split in documented for split in re.findall(r"`\w+`", splits))


def test_types_are_there_without_an_import_of_their_own_and_are_imported_only_then():
    code = """
        import sys, fiftyone_refvos as rv
        assert "fiftyone" not in sys.modules
        print(rv.types.RefSAV.__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout == "RefSAV\n", done.stderr
